"""The oracle: a recurrence that forgets nothing and forgives nothing, as a step artifact and in plain Python.

h' = (31 h + x + 1) mod 2^31 in int64, and the output is h'. A step that is lost, repeated, out of order or made on another
stream's state shows in that output and in every later one of the stream; and as 31 has an inverse modulo 2^31, an output
and its frame tell which state it was made from. The wide one carries 1 KiB: its last 127 values take part in each step, with weights.
"""

import zlib
from collections import deque
from collections.abc import Iterable

import numpy as np

from undertow.engine.artifact import Artifact

from ..step_graph import StepGraph

MODULUS, FACTOR = 2**31, 31
INVERSE = pow(FACTOR, -1, MODULUS)
WIDE = 127  # values of the wide one's buffer: with h 1 KiB


def step(h: int, x: int) -> int:
    return (FACTOR * h + x + 1) % MODULUS


def state_before(y: int, x: int) -> int:
    """The state from which the frame x gives y."""
    return (y - x - 1) * INVERSE % MODULUS


class Recurrence:
    """The plain reference: one stream. wide: with the buffer."""

    def __init__(self, wide: bool = False):
        self.h = 0
        self.past = deque([0] * WIDE, WIDE) if wide else None

    def step(self, x: int) -> int:
        if self.past is not None:
            x += sum(i * value for i, value in enumerate(self.past, 1))
        self.h = step(self.h, x)
        if self.past is not None:
            self.past.append(self.h)
        return self.h


def reference(frames: Iterable[int], wide: bool = False) -> list[int]:
    """The outputs of a stream with these frames."""
    recurrence = Recurrence(wide)
    return [recurrence.step(x) for x in frames]


def frame(key: bytes, n: int) -> int:
    """Frame n of the stream `key`, from 0 to 2^20: the same in every run, another for every key and n."""
    return zlib.crc32(b"%s/%d" % (key, n)) % 2**20


def oracle(wide: bool = False) -> Artifact:
    """x (1,) -> y (1,), both int64; states h (1,) and, of the wide one, past (127,)."""
    g = StepGraph()
    x, h = g.input("x", (1,), "int64"), g.state("h", (1,), "int64")
    total = g.op("Add", g.op("Add", g.op("Mul", h, g.ints(FACTOR)), x), g.ints(1))
    if wide:
        past = g.state("past", (WIDE,), "int64")
        weighted = g.op("Mul", past, g.weight(np.arange(1, WIDE + 1), "int64"))
        total = g.op("Add", total, g.op("ReduceSum", weighted, g.ints(1), keepdims=1))
    after = g.op("Mod", total, g.ints(MODULUS))
    g.next("h", after)
    if wide:
        newer = g.op("Slice", past, g.ints(1), g.ints(WIDE), g.ints(1))
        g.next("past", g.op("Concat", newer, after, axis=1))
    g.output("y", after, (1,), "int64")
    return g.artifact()
