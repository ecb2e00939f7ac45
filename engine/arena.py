"""The state arena: one row of bytes for each resident stream, the slots that streams own, and the index from keys to slots."""

import mmap
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from .artifact import StateSpec, StepSpec, TensorSpec
from .errors import ArenaFullError, StreamError, UndertowError, UnknownStreamError
from .index import Key, KeyIndex
from .layout import Layout, digest
from .section import Section


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
    """Rows for up to `max_streams` streams, and `spare` slots behind them that no key owns: room to step copies of streams.

    A row is its sections end to end: one for each stage, one for whatever else is kept of a stream (`kept`: groups of states).
    The whole address range is reserved at once and the operating system commits pages as they are touched, so growth
    copies nothing and addresses never change. Free slots are reused last in, first out, which keeps residents together.
    """

    def __init__(
        self,
        specs: Sequence[StepSpec],
        max_streams: int,
        kept: Sequence[Sequence[StateSpec]] = (),
        spare: int = 0,
        names: Sequence[str] = (),
        collects: Sequence[TensorSpec] = (),
    ):
        """names: of the stages, where there are several. collects: the inputs whose frames wait beside the arena for their streams' ends."""
        layouts = [Layout.of(spec) for spec in specs] + [Layout.of_states(states) for states in kept]
        self.collects = tuple(collects)
        self.max_streams, self.slots = max_streams, max_streams + spare
        self.row_bytes = sum(layout.row_bytes for layout in layouts)
        self._memory = mmap.mmap(-1, max(1, self.slots * self.row_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.rows = np.frombuffer(self._memory, np.uint8)[: self.slots * self.row_bytes].reshape(self.slots, -1)
        self.address = address(self.rows)
        self.stages, self.kept = self._sections(specs, layouts, kept, names)
        self.frames, self.last_active = self.stages[0].frames, self.stages[0].last_active
        self.generations = np.zeros(max_streams, np.int64)
        self.index = KeyIndex[Key](max_streams)
        self._free: list[int] = []
        self._fresh = 0  # slots below were used before
        self._initial = np.concatenate([s.layout.initial(s.states) for s in (*self.stages, *self.kept)])
        self._followers: list[Follower] = []

    def _sections(
        self,
        specs: Sequence[StepSpec],
        layouts: list[Layout],
        kept: Sequence[Sequence[StateSpec]],
        names: Sequence[str],
    ) -> tuple[list[Section], list[Section]]:
        offset, stages, others = 0, [], []
        for i, layout in enumerate(layouts):
            if i < len(specs):
                prefix = f"{names[i]}." if names else ""
                stages.append(Section(self, self._memory, offset, layout, specs[i].states, specs[i], prefix))
            else:
                others.append(Section(self, self._memory, offset, layout, kept[i - len(specs)]))
            offset += layout.row_bytes
        return stages, others

    @property
    def states(self) -> Iterator[tuple[str, Section, StateSpec]]:
        """Every state of a row: its name among them all, and where it is."""
        for section in (*self.stages, *self.kept):
            for state in section.states:
                yield section.prefix + state.name, section, state

    @property
    def digest(self) -> bytes:
        """8 bytes that are the same for arenas whose rows mean the same."""
        return digest(
            [s.spec for s in self.stages], [s for k in self.kept for s in k.states], self.row_bytes, self.collects
        )

    def follow(self, follower: Follower) -> None:
        """From now on steps change the follower's states, and rows are read and written through `read` and `write`."""
        self._followers.append(follower)

    @property
    def followed(self) -> bool:
        """States are kept elsewhere, so rows are read and written through `read` and `write`."""
        return bool(self._followers)

    def wrote(self, slots: np.ndarray) -> None:
        """The rows of these slots were written here."""
        for follower in self._followers:
            for slot in slots.tolist():
                follower.wrote(slot)

    def pull(self, slots: np.ndarray) -> None:
        """Brings the rows of these slots up to date, where states are kept elsewhere."""
        for follower in self._followers:
            follower.pull(slots)

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Copies of rows, uint8 (n, row_bytes)."""
        self.pull(slots)
        return self.rows[slots]

    def write(self, slot: int, row: np.ndarray) -> None:
        """Replaces one row, uint8 (row_bytes,)."""
        self.rows[slot] = row
        for follower in self._followers:
            follower.wrote(slot)

    def write_many(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Replaces rows, uint8 (n, row_bytes), of distinct slots."""
        self.rows[slots] = rows
        self.wrote(slots)

    def reset(self, slots: np.ndarray) -> None:
        """Makes rows those of streams that have seen nothing."""
        self.write_many(slots, np.broadcast_to(self._initial, (len(slots), len(self._initial))))

    def slot(self, key: Key) -> int:
        """The slot of a resident stream. Raises UnknownStreamError."""
        slot = self.index.get(key)
        if slot < 0:
            raise self._unknown(key)
        return slot

    def _unknown(self, key: Key) -> UnknownStreamError:
        return UnknownStreamError(
            f"stream {key!r} is not resident (never seen, closed, dropped or expired); {len(self.index)} streams are"
        )

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

    def open_some(self, keys: list[Key], now: int) -> tuple[list[int], dict[Key, UndertowError]]:
        """`open` of each distinct key: slots, -1 where it failed, and why."""
        try:
            slots = self.open_many(keys, now)
            self.reset(slots)
            self.last_active[slots] = now
            return slots.tolist(), {}
        except (ArenaFullError, StreamError):  # of some: find out which
            slots, errors = [-1] * len(keys), dict[Key, UndertowError]()
            for i, key in enumerate(keys):
                try:
                    slots[i] = self.open(key, now)
                except (ArenaFullError, StreamError) as error:
                    errors[key] = error
            return slots, errors

    def release(self, key: Key) -> None:
        """Forgets a stream; handles to its slot become stale."""
        slot = self.index.pop(key)
        if slot < 0:
            raise self._unknown(key)
        self.generations[slot] += 1
        self._free.append(slot)

    def idle(self, before: int) -> list[Key]:
        """Keys of the streams whose last frame was earlier than `before`, by slot."""
        late = self.last_active[: self._fresh] < before
        return [key for key, slot in self.index.items() if late[slot]] if late.any() else []

    def state(self, slot: int) -> dict[str, np.ndarray]:
        """Copies of a stream's states by name."""
        self.pull(np.array([slot], np.int64))
        return {name: section.column(state.name)[slot].copy() for name, section, state in self.states}


def address(array: np.ndarray) -> int:
    """The address of an array's first byte."""
    return array.__array_interface__["data"][0]
