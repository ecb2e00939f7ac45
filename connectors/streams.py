"""The open streams as columns: what a pipeline keeps of a stream beside its state, a row each."""

from collections.abc import Iterator

import msgspec
import numpy as np

from ..engine import Key
from ..engine.artifact import StepSpec
from ..engine.errors import SnapshotError
from ..engine.index import KeyIndex
from .columns import NO_SEQ, NO_TIME
from .numbering import Span

Name = tuple[str, Key]  # a partition and a key within it


class Kept(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """What a store keeps of a stream beside its state; columns as in `Streams`, None where unknown."""

    frames: int
    seq: int | None = None
    last_ns: int | None = None
    due_ns: int | None = None
    spans: list[Span] = []
    last_frame: list[bytes] = []
    quarantined: str | None = None


class Streams:
    """Rows for up to `capacity` streams; the row is the stream's name in the engine. All columns are (capacity,).

    frames: how many it has seen. seq: number of its next frame, NO_SEQ where unknown. last_ns: its partition's watermark
    at its last record; due_ns: when its next frame is due; NO_TIME where unknown. offset: records of its partition below
    have been taken into it already. serial: which opening this is. changed: it is in the ledger's `changed`.
    spans: the times of the frames that are not answered yet, of a model whose answers wait. quarantined: why.
    last_frame: of each input (capacity, *frame), where the gap policy needs it.
    A row that `close` has freed is used again only after `settle`: the engine may still have to end it.
    """

    def __init__(self, capacity: int, spec: StepSpec, keeps_last_frame: bool):
        self.capacity, self.index = capacity, KeyIndex[Name](capacity)
        self.frames, self.offset, self.serial = (np.zeros(capacity, np.int64) for _ in range(3))
        self.seq, self.last_ns, self.due_ns = (np.full(capacity, v, np.int64) for v in (NO_SEQ, NO_TIME, NO_TIME))
        self.changed = np.zeros(capacity, np.bool_)
        self.spans: dict[int, list[Span]] = {}
        self.quarantined: dict[int, str] = {}
        inputs = spec.inputs if keeps_last_frame else ()
        self.last_frame = [np.zeros((capacity, *t.shape), t.dtype) for t in inputs]
        self._free: list[int] = []
        self._closed: list[int] = []
        self._fresh = self._openings = 0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def room(self) -> int:
        """How many streams may be opened before the next `settle`."""
        return self.capacity - self._fresh + len(self._free)

    def name(self, row: int) -> Name:
        return self.index.key(row)

    def rows(self) -> Iterator[tuple[Name, int]]:
        yield from self.index.items()

    def open(self, name: Name) -> int:
        """A row for a new stream that has seen nothing; there has to be room."""
        if self._free:
            row = self._free.pop()
        else:
            row, self._fresh = self._fresh, self._fresh + 1
        self._openings += 1
        self.frames[row], self.offset[row], self.serial[row] = 0, 0, self._openings
        self.seq[row], self.last_ns[row], self.due_ns[row] = NO_SEQ, NO_TIME, NO_TIME
        self.changed[row] = False
        self.index.add(name, row)
        return row

    def open_many(self, names: list[Name]) -> list[int]:
        """Rows for new streams with distinct names, which `keep_many` fills; there has to be room."""
        rows = [self._free.pop() for _ in range(min(len(names), len(self._free)))]
        fresh = len(names) - len(rows)
        rows += range(self._fresh, self._fresh + fresh)
        self._fresh += fresh
        self.serial[rows] = np.arange(self._openings + 1, self._openings + 1 + len(names))
        self._openings += len(names)
        self.index.add_many(names, rows)
        return rows

    def close(self, row: int) -> None:
        self.index.pop(self.index.key(row))
        self.spans.pop(row, None)
        self.quarantined.pop(row, None)
        self._closed.append(row)

    def settle(self) -> None:
        """The engine knows no more of the closed rows."""
        self._free += self._closed
        self._closed.clear()

    @property
    def waiting(self) -> bool:
        """There are closed rows that `settle` would free."""
        return bool(self._closed)

    def kept(self, row: int) -> Kept:
        seq, last_ns, due_ns = (int(c[row]) for c in (self.seq, self.last_ns, self.due_ns))
        return Kept(
            int(self.frames[row]),
            None if seq == NO_SEQ else seq,
            None if last_ns == NO_TIME else last_ns,
            None if due_ns == NO_TIME else due_ns,
            self.spans.get(row, []),
            [frames[row].tobytes() for frames in self.last_frame],
            self.quarantined.get(row),
        )

    def keep(self, row: int, kept: Kept) -> None:
        """Takes over what a store kept. Raises SnapshotError where it is not of this model and policy."""
        self.keep_many([row], [kept])

    def keep_many(self, rows: list[int], kept: list[Kept]) -> None:
        """Takes over what a store kept, of distinct rows. Raises SnapshotError where it is not of this model and policy."""
        self.changed[rows] = False
        self.frames[rows] = [k.frames for k in kept]
        self.seq[rows] = [NO_SEQ if k.seq is None else k.seq for k in kept]
        self.last_ns[rows] = [NO_TIME if k.last_ns is None else k.last_ns for k in kept]
        self.due_ns[rows] = [NO_TIME if k.due_ns is None else k.due_ns for k in kept]
        for few in (self.spans, self.quarantined):
            if few:
                for row in rows:
                    few.pop(row, None)
        for row, k in zip(rows, kept, strict=True):
            if k.spans:
                self.spans[row] = k.spans
            if k.quarantined is not None:
                self.quarantined[row] = k.quarantined
            if self.last_frame or k.last_frame:
                self._keep_last(row, k)

    def keep_plain(
        self, rows: np.ndarray, frames: np.ndarray, seq: np.ndarray, last_ns: np.ndarray, due_ns: np.ndarray
    ) -> None:
        """`keep_many` of streams of which nothing is kept but numbers."""
        self.changed[rows] = False
        self.frames[rows], self.seq[rows], self.last_ns[rows], self.due_ns[rows] = frames, seq, last_ns, due_ns
        for few in (self.spans, self.quarantined):
            if few:
                for row in rows.tolist():
                    few.pop(row, None)
        for last in self.last_frame:
            last[rows] = 0

    def _keep_last(self, row: int, kept: Kept) -> None:
        """Streams that were stored under another gap policy have no last frame: zeros stand for it until the next one."""
        for place, frames in zip(kept.last_frame, self.last_frame, strict=False):
            if len(place) != frames[row].nbytes:
                raise SnapshotError(
                    f"a last frame of {len(place)} bytes is stored, the model's has {frames[row].nbytes}"
                )
            frames[row] = np.frombuffer(place, frames.dtype).reshape(frames.shape[1:])
        for frames in self.last_frame[len(kept.last_frame) :]:
            frames[row] = 0
