"""One stage's part of every row of an arena."""

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .artifact import StateSpec, StepSpec
from .layout import FRAMES, LAST_ACTIVE, Layout

if TYPE_CHECKING:
    from .arena import Arena, Follower


class Section:
    """A view of all slots: `offset` bytes into each row lies what `layout` says. spec: of a stage, else None.

    prefix: what its states' names begin with among those of the whole row. address: of the part of slot 0; stride: bytes from
    a slot's to the next slot's.
    """

    def __init__(
        self,
        arena: "Arena",
        memory: mmap.mmap,
        offset: int,
        layout: Layout,
        states: Sequence[StateSpec],
        spec: StepSpec | None = None,
        prefix: str = "",
    ):
        self.arena, self.layout, self.states, self._spec, self.prefix = arena, layout, tuple(states), spec, prefix
        self.offset, self.stride, self.slots = offset, arena.row_bytes, arena.slots
        self._memory = memory
        self.address = arena.address + offset
        self.rows = self._view(0, (layout.row_bytes,), "uint8")
        if spec is not None:
            self.frames, self.last_active = self._view(FRAMES, (), "int64"), self._view(LAST_ACTIVE, (), "int64")

    @property
    def spec(self) -> StepSpec:
        """What steps it."""
        assert self._spec is not None
        return self._spec

    @property
    def steps(self) -> bool:
        """It is a stage's."""
        return self._spec is not None

    def follow(self, follower: "Follower") -> None:
        """From now on steps change the follower's states; see `Arena.follow`."""
        self.arena.follow(follower)

    def reset(self, slots: np.ndarray) -> None:
        """These slots' parts are those of a stream that has seen nothing."""
        self.arena.pull(slots)
        self.rows[slots] = self.layout.initial(self.states)
        self.arena.wrote(slots)

    def column(self, name: str) -> np.ndarray:
        """A view (slots, *shape) of one state of all slots."""
        state = next(s for s in self.states if s.name == name)
        return self._view(self.layout.states[name], state.shape, state.dtype)

    def columns(self) -> dict[str, np.ndarray]:
        """`column` of every state, by name."""
        return {s.name: self.column(s.name) for s in self.states}

    def pending(self, name: str) -> np.ndarray:
        """A view (slots, K - 1, *frame) of the buffered frames of an input."""
        tensor = next(t for t in self.spec.inputs if t.name == name)
        return self._view(self.layout.pending[name], (self.spec.frames_per_step - 1, *tensor.shape), tensor.dtype)

    def _view(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        item = np.dtype(dtype).itemsize
        inner = [int(np.prod(shape[i + 1 :])) * item for i in range(len(shape))]
        return np.ndarray(
            (self.slots, *shape), dtype, buffer=self._memory, offset=self.offset + offset, strides=(self.stride, *inner)
        )
