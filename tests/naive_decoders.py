"""Slow, obvious decoders of one stream, which keep everything that they were given. The oracles of `engine/decoders/{labels,threshold,mean}.py`.

Each takes outputs one by one and gives the events of that output as dicts, as `Events` gives them, and those of the end.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Event = dict[str, Any]


def run(decoder: Any, outputs: np.ndarray) -> list[Event]:
    """All events of a stream that has these outputs and ends then."""
    events = []
    for at, output in enumerate(outputs):
        events += [{"at": at} | event for event in decoder.take(at, output)]
    return events + [{"at": len(outputs) - 1} | event for event in decoder.finish()]


def weighted_mean(values: Sequence[np.ndarray], half_life: float | None) -> np.ndarray:
    """The last one weighs 1; without a half-life all do."""
    ages = np.arange(len(values))[::-1]
    weights = np.ones(len(values)) if half_life is None else 0.5 ** (ages / half_life)
    return np.tensordot(weights, np.asarray(values, np.float64), 1) / weights.sum()


class NaiveLabels:
    def __init__(
        self,
        labels: Sequence[str],
        scores: str = "logits",
        half_life: float | None = None,
        min_duration: int = 1,
        top: int = 1,
        emit: str = "every",
        place_s: float | None = None,
    ):
        self.names, self.scores, self.half_life, self.least = labels, scores, half_life, min_duration
        self.top, self.changes, self.place_s = top, emit == "changes", place_s
        self.past: list[np.ndarray] = []
        self.likeliest: list[int] = []
        self.label = -1

    def take(self, at: int, output: np.ndarray) -> list[Event]:
        self.past.append(self.probabilities(output))
        weights = self.past[-1] if self.half_life is None else weighted_mean(self.past, self.half_life)
        ranks = sorted(range(len(weights)), key=lambda k: -weights[k])
        self.likeliest.append(ranks[0])
        since = at
        while since > 0 and self.likeliest[since - 1] == ranks[0]:
            since -= 1
        before = self.label
        if before < 0 or at - since + 1 >= self.least:
            self.label = ranks[0]
        if self.changes and self.label == before:
            return []
        told: Event = {"label": self.names[self.label], "confidence": weights[self.label]}
        if self.top > 1:
            told["labels"] = [self.names[k] for k in ranks[: self.top]]
            told["confidences"] = [weights[k] for k in ranks[: self.top]]
        if self.changes:
            told |= {"begin": since} | in_seconds(self.place_s, begin_s=since)
        return [told]

    def probabilities(self, output: np.ndarray) -> np.ndarray:
        scores = output.astype(np.float64)
        if self.scores == "probabilities":
            return scores
        odds = np.exp(scores)
        return odds if self.scores == "log-probabilities" else odds / odds.sum()

    def finish(self) -> list[Event]:
        return []


class NaiveThreshold:
    def __init__(
        self,
        on: float,
        off: float | None = None,
        below: bool = False,
        min_on: int = 1,
        min_off: int = 1,
        names: tuple[str, str] = ("start", "end"),
        place_s: float | None = None,
    ):
        self.on, self.off, self.below, self.least = on, on if off is None else off, below, (min_on, min_off)
        self.names, self.place_s = names, place_s
        self.values: list[float] = []
        self.began: int | None = None  # where what is on began
        self.waiting = 0  # outputs, one after the other, that ask for the other state

    def take(self, at: int, output: float) -> list[Event]:
        x = float(output)
        self.values.append(x)
        is_on = self.began is not None
        if is_on:
            turns = x > self.off if self.below else x < self.off
        else:
            turns = x <= self.on if self.below else x >= self.on
        self.waiting = self.waiting + 1 if turns else 0
        if self.waiting < self.least[is_on] or not turns:
            return []
        begin, self.waiting = at - self.waiting + 1, 0
        if is_on:
            return [self.ended(begin)]
        self.began = begin
        return [self.told(0, begin, 0, self.values[begin:])]

    def finish(self) -> list[Event]:
        return [] if self.began is None else [self.ended(len(self.values))]

    def ended(self, end: int) -> Event:
        began, self.began = self.began, None
        assert began is not None
        return self.told(1, end, end - began, self.values[began:end])

    def told(self, which: int, begin: int, duration: int, values: list[float]) -> Event:
        seconds = in_seconds(self.place_s, begin_s=begin, duration_s=duration)
        mean = math.fsum(values) / len(values)
        return {"event": self.names[which], "begin": begin, "duration": duration, "confidence": mean} | seconds


class NaiveMean:
    def __init__(self, half_life: float | None = None):
        self.half_life = half_life
        self.values: list[np.ndarray] = []

    def take(self, at: int, output: np.ndarray) -> list[Event]:
        self.values.append(output.astype(np.float64))
        mean = weighted_mean(self.values, self.half_life)
        variance = weighted_mean([(v - mean) ** 2 for v in self.values], self.half_life)
        return [{"mean": mean.tolist(), "deviation": np.sqrt(variance).tolist()}]

    def finish(self) -> list[Event]:
        return []


def in_seconds(place_s: float | None, **places: int) -> Event:
    return {} if place_s is None else {name: place * place_s for name, place in places.items()}
