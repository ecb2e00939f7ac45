"""Recordings as live streams: all at once, a step of each at a time."""

import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from data import RATE_HZ
from model import STEP

import undertow as ut


@dataclass(frozen=True, slots=True)
class Partial:
    """What was heard so far, when `at_s` seconds of the stream had been given."""

    at_s: float
    text: str


@dataclass(slots=True)
class Heard:
    """Of one stream. finals: what became final, in order. words: with their times. partials: as they came."""

    finals: list[str] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    partials: list[Partial] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(t for t in self.finals if t)

    def take(self, event: dict[str, Any], now_s: float) -> None:
        """Adds what became known when `now_s` seconds of the stream had been given."""
        self.partials.append(Partial(now_s, " ".join(t for t in (self.text, event["text"]) if t)))
        if event["final"]:
            self.finals.append(event["text"])
            self.words += event["words"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Of live streams: how many at most at once, steps of all together, seconds of each call."""

    streams: int
    steps: int
    took: list[float]

    @property
    def steps_per_s(self) -> float:
        return self.steps / sum(self.took)

    @property
    def p99_ms(self) -> float:
        return 1000 * float(np.quantile(self.took, 0.99))


def searching(folder: Path, model: str = "speech.onnx") -> ut.Engine:
    """An engine with the decoder of pipeline.toml."""
    return ut.Engine(folder / model, decode=decoder(folder, "pipeline.toml"))


def decoder(folder: Path, pipeline: str) -> dict[str, Any]:
    """The [decode] of a pipeline's file, whose own files begin in its folder."""
    table = tomllib.loads((folder / pipeline).read_text())["decode"]
    return table | {name: str(folder / table[name]) for name in ("lexicon", "ngram")}


def play(
    engine: ut.Engine, streams: Mapping[str, np.ndarray], take: Callable[[str, Any, float], None], step: int = STEP
) -> Speed:
    """Gives each stream its samples, `step` at a time, and closes it; take(key, answer, seconds given so far)."""
    took, count = [], 0
    for at in range(0, max(map(len, streams.values())), step):
        chunks = {key: samples[at : at + step] for key, samples in streams.items() if at < len(samples)}
        begin = time.perf_counter()
        answers = engine.push_many(chunks)
        took.append(time.perf_counter() - begin)
        count += len(chunks)
        for key, answer in answers.items():
            take(key, answer, (at + step) / RATE_HZ)
    for key, samples in streams.items():
        take(key, engine.close(key), len(samples) / RATE_HZ)
    return Speed(len(streams), count, took)


def outputs(engine: ut.Engine, streams: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What an engine without a decoder gives: (T, labels) of each stream."""
    found: dict[str, list[np.ndarray]] = {key: [] for key in streams}
    play(engine, streams, lambda key, rows, now_s: found[key].append(rows))
    return {key: np.concatenate(rows) for key, rows in found.items()}


def words(engine: ut.Engine, streams: Mapping[str, np.ndarray], step: int = STEP) -> tuple[dict[str, Heard], Speed]:
    """What an engine with a CTC decoder says of each stream."""
    found = {key: Heard() for key in streams}

    def take(key: str, events: Any, now_s: float) -> None:
        for event in events:
            found[key].take(event, now_s)

    return found, play(engine, streams, take, step)


def searched(engine: ut.Engine, scores: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """(key, text) for outputs that are there already; the engine's model gives back what it gets."""
    for key, heard in words(engine, scores, 1)[0].items():
        yield key, heard.text
