"""Recordings played as live streams: they begin at different times, give a frame each at every tick, and end."""

import math
import time
from collections.abc import Iterator

import numpy as np

from .demo import Bundle
from .engine import Engine

WARM_UP = 20  # first ticks that are not timed


class Run:
    """A playing of a bundle's recordings through one engine, one `engine.step` a tick over the streams that are live.

    speed: times real time; None plays as fast as the engine goes. Every figure is of what has been played so far.
    """

    def __init__(self, bundle: Bundle, speed: float | None = None, seed: int = 0):
        self._bundle, self._speed = bundle, speed
        self.engine = Engine(bundle.artifact, max_streams=len(bundle.frames))
        begins = np.random.default_rng(seed).integers(0, math.ceil(bundle.rate_hz * 2), len(bundle.frames))
        self._begin: dict[str, int] = dict(zip(bundle.frames, begins.tolist(), strict=True))
        self._end = {key: self._begin[key] + len(frames) for key, frames in bundle.frames.items()}
        self._outputs = {key: np.empty_like(expected) for key, expected in bundle.expected.items()}
        self._ticks = max(self._end.values())
        self._times_ns, self._widths = np.zeros(self._ticks, np.int64), np.zeros(self._ticks, np.int64)
        self.live = self.steps = self.right = 0

    def play(self) -> Iterator[None]:
        """Plays everything, a tick for each value that it gives."""
        began = time.monotonic()
        for t in range(self._ticks):
            if self._speed:
                time.sleep(max(0.0, began + t / (self._speed * self._bundle.rate_hz) - time.monotonic()))
            self._tick(t)
            yield

    def _tick(self, t: int) -> None:
        keys = [key for key, begin in self._begin.items() if begin <= t < self._end[key]]
        self.live = len(keys)
        if keys:
            frames = np.stack([self._bundle.frames[key][t - self._begin[key]] for key in keys])
            began = time.perf_counter_ns()
            values, _ = self.engine.step(keys, frames)
            self._times_ns[t] = time.perf_counter_ns() - began
            self._widths[t] = len(keys)
            self._settle(t, keys, values)

    def _settle(self, t: int, keys: list[str], values: np.ndarray) -> None:
        self.steps += len(keys)
        for key, guess, value in zip(keys, values.argmax(1), values, strict=True):
            self._outputs[key][t - self._begin[key]] = value
            self.right += int(guess == self._bundle.truth[key])
            if t + 1 == self._end[key]:
                self.engine.close(key)

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Log-probabilities (T, labels) by stream."""
        return self._outputs

    @property
    def accuracy(self) -> float:
        """Share of the frames played so far whose most likely label is the truth."""
        return self.right / max(1, self.steps)

    @property
    def step_us(self) -> np.ndarray:
        """Microseconds of each `engine.step`, a tick each, without the first ones."""
        timed = np.flatnonzero(self._widths)[WARM_UP:]
        return self._times_ns[timed] / 1e3

    @property
    def steps_per_s(self) -> float:
        """Streams stepped in a second of `engine.step`."""
        timed = np.flatnonzero(self._widths)[WARM_UP:]
        return float(self._widths[timed].sum() / max(1e-9, self._times_ns[timed].sum() / 1e9))
