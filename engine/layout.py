"""Where each piece of a stream's state lies in its row of the arena."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from .artifact import StepSpec

FRAMES, LAST_ACTIVE, HEADER_BYTES = 0, 8, 16  # int64 frames seen, int64 time of the last one in ns
ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """offsets of the states by name, of each input's buffered frames (frames_per_step > 1), and the bytes of a row."""

    states: dict[str, int]
    pending: dict[str, int]
    row_bytes: int

    @classmethod
    def of(cls, spec: StepSpec) -> "Layout":
        offset, states, pending = HEADER_BYTES, {}, {}
        for state in spec.states:
            size = np.dtype(state.dtype).itemsize
            offset = -(-offset // size) * size
            states[state.name] = offset
            offset += math.prod(state.shape) * size
        if spec.frames_per_step > 1:
            for tensor in spec.inputs:
                size = np.dtype(tensor.dtype).itemsize
                offset = -(-offset // size) * size
                pending[tensor.name] = offset
                offset += math.prod(tensor.shape) * size * (spec.frames_per_step - 1)
        return cls(states, pending, -(-offset // ALIGNMENT) * ALIGNMENT)

    def initial_row(self, spec: StepSpec) -> np.ndarray:
        """The row, uint8 (row_bytes,), of a stream that has seen nothing."""
        row = np.zeros(self.row_bytes, np.uint8)
        for state in spec.states:
            raw = np.ascontiguousarray(state.initial_value()).view(np.uint8).reshape(-1)
            row[self.states[state.name] :][: raw.size] = raw
        return row

    def digest(self, spec: StepSpec) -> bytes:
        """8 bytes that tell rows of other meaning apart."""
        tensors = [(t.name, t.shape, t.dtype) for t in (*spec.states, *(spec.inputs if self.pending else ()))]
        said = repr((tensors, spec.frames_per_step, self.row_bytes, spec.sequence))
        return hashlib.blake2b(said.encode(), digest_size=8).digest()
