"""The state arena: one row of bytes for each resident stream, the slots that streams own, and the index from keys to slots."""

import mmap
from typing import Protocol

import numpy as np

from .artifact import StepSpec
from .errors import ArenaFullError, StreamError, UnknownStreamError
from .index import Key, KeyIndex
from .layout import FRAMES, LAST_ACTIVE, Layout


class Follower(Protocol):
    """Keeps states elsewhere, where steps read and write them."""

    def pull(self, slots: np.ndarray) -> None:
        """Brings the arena's rows of these slots up to date."""
        ...

    def wrote(self, slot: int) -> None:
        """The arena's row of this slot is newer than what it keeps."""
        ...


def check_key(key: Key) -> None:
    """Raises StreamError where it cannot name a stream."""
    if not isinstance(key, str | bytes | int | np.integer) or isinstance(key, bool):
        raise StreamError(f"stream key {key!r} is {type(key).__name__}; expected str, bytes or int")
    if isinstance(key, int) and not -(2**63) <= key < 2**64:
        raise StreamError(f"stream key {key} has more than 64 bits; expected a smaller number, str or bytes")


class Arena:
    """Rows for up to `max_streams` streams.

    The whole address range is reserved at once and the operating system commits pages as they are touched, so growth
    copies nothing and addresses never change. Free slots are reused last in, first out, which keeps residents together.
    """

    def __init__(self, spec: StepSpec, max_streams: int):
        self.spec, self.layout, self.max_streams = spec, Layout.of(spec), max_streams
        self._memory = mmap.mmap(
            -1, max(1, max_streams * self.layout.row_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self.rows = np.frombuffer(self._memory, np.uint8).reshape(max_streams, self.layout.row_bytes)
        counters = self.rows[:, : LAST_ACTIVE + 8].view(np.int64)
        self.frames, self.last_active = counters[:, FRAMES // 8], counters[:, LAST_ACTIVE // 8]
        self.generations = np.zeros(max_streams, np.int64)
        self.index = KeyIndex[Key](max_streams)
        self._free: list[int] = []
        self._fresh = 0  # slots below were used before
        self._initial = self.layout.initial_row(spec)
        self._follower: Follower | None = None

    def follow(self, follower: Follower) -> None:
        """From now on steps change the follower's states, and rows are read and written through `read` and `write`."""
        self._follower = follower

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Copies of rows, uint8 (n, row_bytes)."""
        if self._follower is not None:
            self._follower.pull(slots)
        return self.rows[slots]

    def write(self, slot: int, row: np.ndarray) -> None:
        """Replaces one row, uint8 (row_bytes,)."""
        self.rows[slot] = row
        if self._follower is not None:
            self._follower.wrote(slot)

    def write_many(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Replaces rows, uint8 (n, row_bytes), of distinct slots."""
        self.rows[slots] = rows
        if self._follower is not None:
            for slot in slots.tolist():
                self._follower.wrote(slot)

    def slot(self, key: Key) -> int:
        """The slot of a resident stream. Raises UnknownStreamError."""
        slot = self.index.get(key)
        if slot < 0:
            raise UnknownStreamError(
                f"stream {key!r} is not resident (never seen, closed, dropped or expired); {len(self.index)} streams are"
            )
        return slot

    def open(self, key: Key, now: int) -> int:
        """A slot in its initial state for a new stream. Raises ArenaFullError."""
        check_key(key)
        if self._free:
            slot = self._free.pop()
        elif self._fresh < self.max_streams:
            slot, self._fresh = self._fresh, self._fresh + 1
        else:
            raise ArenaFullError(
                f"stream {key!r}: all {self.max_streams} slots are taken; close or drop streams, set idle_timeout_s, or raise max_streams"
            )
        self.write(slot, self._initial)
        self.last_active[slot] = now
        self.index.add(int(key) if isinstance(key, np.integer) else key, slot)
        return slot

    def open_many(self, keys: list[Key], now: int) -> np.ndarray:
        """Slots, int64 (n,), for new streams with distinct keys, whose rows the caller writes. Raises ArenaFullError; nothing changes then."""
        kinds = set(map(type, keys))
        few = [min(keys), max(keys)] if kinds == {int} else keys if kinds - {str, bytes} else []  # pyright: ignore[reportArgumentType]
        for key in few:
            check_key(key)
        if len(keys) > len(self._free) + self.max_streams - self._fresh:
            raise ArenaFullError(
                f"{len(keys)} new streams and {self.max_streams - len(self.index)} free slots; close or drop streams, or raise max_streams"
            )
        used = [self._free.pop() for _ in range(min(len(keys), len(self._free)))]
        fresh = len(keys) - len(used)
        slots = np.array([*used, *range(self._fresh, self._fresh + fresh)], np.int64)
        self._fresh += fresh
        self.last_active[slots] = now
        self.index.add_many([int(k) if isinstance(k, np.integer) else k for k in keys], slots.tolist())
        return slots

    def release(self, key: Key) -> None:
        """Forgets a stream; handles to its slot become stale."""
        slot = self.slot(key)
        self.index.remove(slot)
        self.generations[slot] += 1
        self._free.append(slot)

    def idle(self, before: int) -> list[Key]:
        """Keys of the streams whose last frame was earlier than `before`, by slot."""
        late = self.last_active[: self._fresh] < before
        return [key for key, slot in self.index.items() if late[slot]] if late.any() else []

    def state(self, slot: int) -> dict[str, np.ndarray]:
        """Copies of a stream's states by name."""
        if self._follower is not None:
            self._follower.pull(np.array([slot], np.int64))
        return {s.name: self.column(s.name)[slot].copy() for s in self.spec.states}

    def column(self, name: str) -> np.ndarray:
        """A view (max_streams, *shape) of one state of all slots."""
        state = next(s for s in self.spec.states if s.name == name)
        return self._view(self.layout.states[name], state.shape, state.dtype)

    def pending(self, name: str) -> np.ndarray:
        """A view (max_streams, K - 1, *frame) of the buffered frames of an input."""
        tensor = next(t for t in self.spec.inputs if t.name == name)
        return self._view(self.layout.pending[name], (self.spec.frames_per_step - 1, *tensor.shape), tensor.dtype)

    def _view(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        item = np.dtype(dtype).itemsize
        inner = [int(np.prod(shape[i + 1 :])) * item for i in range(len(shape))]
        return np.ndarray(
            (self.max_streams, *shape),
            dtype,
            buffer=self._memory,
            offset=offset,
            strides=(self.layout.row_bytes, *inner),
        )


def address(array: np.ndarray) -> int:
    """The address of an array's first byte."""
    return array.__array_interface__["data"][0]
