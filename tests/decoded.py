"""Streams pushed to an engine with a decoder in any way, as tests of decoders do it, and how their events are compared."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import numpy as np

from undertow.engine import Engine
from undertow.engine.artifact import Artifact

from .step_graph import StepGraph

Told = dict[str, list[dict[str, Any]]]  # each stream's events


@cache
def echo(*shape: int) -> Artifact:
    """Says what it gets."""
    g = StepGraph()
    x = g.input("x", shape)
    g.output("y", g.op("Identity", x), shape)
    return g.artifact()


def described(artifact: Artifact, labels: tuple[str, ...] | None = None, rate_hz: float | None = None) -> Artifact:
    """The model with names for its values, and the rate of its frames."""
    return replace(artifact, spec=msgspec.structs.replace(artifact.spec, labels=labels, sample_rate_hz=rate_hz))


def outputs_of(artifact: Artifact, frames: np.ndarray, backend: str = "numba") -> np.ndarray:
    """What a decoder of this stream is given, from beginning to end."""
    engine = Engine(artifact, backend=backend)
    return np.concatenate([engine.push("a", frames), engine.close("a")])


def in_pieces(engine: Engine, streams: Mapping[str, np.ndarray], seed: int, other: Engine | None = None) -> Told:
    """All events of each stream, and of copies of some, `NAME'`, that take its frames from then on.

    By turns, at random: chunks of 0 to 25 frames of several streams, or of one; a frame of several streams, or of one by its
    handle. Between two of them some stream is snapshotted, dropped and restored, in `other` where there is one; or forked.
    """
    return _Driven(engine, streams, np.random.default_rng(seed), other).told()


class _Driven:
    def __init__(
        self, engine: Engine, streams: Mapping[str, np.ndarray], generator: np.random.Generator, other: Engine | None
    ):
        self.engines, self.generator = [engine, other or engine], generator
        self.left = dict(streams)
        self.events: Told = {key: [] for key in streams}
        self.home = dict.fromkeys(streams, engine)

    def told(self) -> Told:
        turns = (self.push_many, self.push_many, self.push, self.step, self.step_one, self.move, self.move, self.fork)
        while any(map(len, self.left.values())):
            turns[int(self.generator.integers(len(turns)))]()
        for engine in dict.fromkeys(self.engines):
            for key, events in engine.close_many(self.some(engine, ended=True)).items():
                self.take(key, events)
        return self.events

    def some(self, engine: Engine, ended: bool = False) -> list[str]:
        """Some of its streams in some order; ended: all that were opened."""
        here = [key for key in self.generator.permutation(sorted(self.left)).tolist() if self.home[key] is engine]
        return [key for key in here if (key in engine if ended else self.generator.random() < 0.7)]

    def next(self, key: str, count: int) -> np.ndarray:
        frames, self.left[key] = self.left[key][:count], self.left[key][count:]
        return frames

    def take(self, key: str, events: Any) -> None:
        assert (events.streams == 0).all()
        self.events[key] += list(events)

    def push_many(self) -> None:
        for engine in dict.fromkeys(self.engines):
            chunks = {key: self.next(key, int(self.generator.integers(0, 26))) for key in self.some(engine)}
            for key, events in engine.push_many(chunks).items():
                self.take(key, events)

    def push(self) -> None:
        key = str(self.generator.choice(sorted(self.left)))
        self.take(key, self.home[key].push(key, self.next(key, int(self.generator.integers(0, 26)))))

    def step(self) -> None:
        for engine in dict.fromkeys(self.engines):
            keys = [key for key in self.some(engine) if len(self.left[key])]
            if keys:
                events, ready = engine.step(keys, np.concatenate([self.next(key, 1) for key in keys]))
                assert ready.tolist() == [i in events.streams for i in range(len(keys))]
                for i, key in enumerate(keys):
                    self.take(key, events.of(i))

    def step_one(self) -> None:
        key = str(self.generator.choice(sorted(self.left)))
        for frame in self.next(key, 2):
            events = self.home[key].stream(key).step(frame)
            if events is not None:
                assert len(events)
                self.take(key, events)

    def move(self) -> None:
        key = str(self.generator.choice(sorted(self.left)))
        if key in (engine := self.home[key]):
            blob = engine.snapshot(key)
            engine.drop(key)
            self.home[key] = self.engines[int(self.generator.integers(2))]
            self.home[key].restore(key, blob)

    def fork(self) -> None:
        key = str(self.generator.choice(sorted(self.left)))
        copy = key + "'"
        if copy not in self.left and not key.endswith("'") and key in self.home[key]:
            self.home[key].fork(key, copy)
            self.home[copy], self.left[copy], self.events[copy] = self.home[key], self.left[key], [*self.events[key]]


def assert_told(got: Told, expected: Told) -> None:
    """Each stream's events, and those of its copy, are the expected ones: floats to rounding, all else equal."""
    for key, events in unfolded(got, expected):
        assert_events(events, expected[key], f"stream {key}")


def assert_same(got: Told, expected: Told) -> None:
    """Each stream's events, and those of its copy, are the expected ones to the last bit."""
    for key, events in unfolded(got, expected):
        assert events == expected[key], key


def unfolded(got: Told, expected: Told) -> list[tuple[str, list[dict[str, Any]]]]:
    """The events of streams and copies, with the stream's name."""
    assert {key.rstrip("'") for key in got} == expected.keys()
    return [(key.rstrip("'"), events) for key, events in got.items()]


def assert_events(got: list[dict[str, Any]], expected: list[dict[str, Any]], note: str = "") -> None:
    assert len(got) == len(expected), f"{note}: {got}\nexpected {expected}"
    for i, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.keys() == other.keys(), f"{note} {i}: {one}, expected {other}"
        for name, value in other.items():
            what = f"{note} event {i} {name}: {one[name]}, expected {value}"
            if np.asarray(value).dtype.kind == "f":
                np.testing.assert_allclose(one[name], value, rtol=1e-4, atol=1e-6, err_msg=what)
            else:
                assert one[name] == value, what
