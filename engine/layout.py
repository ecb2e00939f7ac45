"""Where each piece of a stream's state lies in its row of the arena."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .artifact import StateSpec, StepSpec, TensorSpec

FRAMES, LAST_ACTIVE, HEADER_BYTES = 0, 8, 16  # int64 frames seen, int64 time of the last one in ns
ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """What one stage keeps in a row: offsets of the states by name, of each input's buffered frames (frames_per_step > 1), and the bytes of it all."""

    states: dict[str, int]
    pending: dict[str, int]
    row_bytes: int

    @classmethod
    def of(cls, spec: StepSpec) -> "Layout":
        states, offset = _placed(spec.states, HEADER_BYTES)
        pending: dict[str, int] = {}
        if spec.frames_per_step > 1:
            for tensor in spec.inputs:
                size = np.dtype(tensor.dtype).itemsize
                offset = -(-offset // size) * size
                pending[tensor.name] = offset
                offset += math.prod(tensor.shape) * size * (spec.frames_per_step - 1)
        return cls(states, pending, -(-offset // ALIGNMENT) * ALIGNMENT)

    @classmethod
    def of_states(cls, states: Sequence[StateSpec]) -> "Layout":
        """Of what is no step graph's: no counters, no buffered frames."""
        placed, offset = _placed(states, 0)
        return cls(placed, {}, -(-offset // ALIGNMENT) * ALIGNMENT)

    def initial(self, states: Sequence[StateSpec]) -> np.ndarray:
        """The bytes, uint8 (row_bytes,), of a stream that has seen nothing."""
        row = np.zeros(self.row_bytes, np.uint8)
        for state in states:
            raw = np.ascontiguousarray(state.initial_value()).view(np.uint8).reshape(-1)
            row[self.states[state.name] :][: raw.size] = raw
        return row


def _placed(states: Sequence[StateSpec], offset: int) -> tuple[dict[str, int], int]:
    """Where each state begins, and where the last one ends."""
    places: dict[str, int] = {}
    for state in states:
        size = np.dtype(state.dtype).itemsize
        offset = -(-offset // size) * size
        places[state.name] = offset
        offset += math.prod(state.shape) * size
    return places, offset


def digest(
    specs: Sequence[StepSpec], kept: Sequence[StateSpec], row_bytes: int, collects: Sequence[TensorSpec]
) -> bytes:
    """8 bytes that tell rows of other meaning apart: of the stages, of what else is kept, and of frames that are collected."""
    said = []
    for spec in specs:
        tensors = [
            (t.name, t.shape, t.dtype) for t in (*spec.states, *(spec.inputs if spec.frames_per_step > 1 else ()))
        ]
        said.append((tensors, spec.frames_per_step))
    others = [(s.name, s.shape, s.dtype) for s in kept]
    frames = [(t.name, t.shape, t.dtype) for t in collects]
    return hashlib.blake2b(repr((said, others, row_bytes, frames)).encode(), digest_size=8).digest()
