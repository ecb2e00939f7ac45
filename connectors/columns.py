"""A poll's records, and the answers to them, as columns: what the hot path handles without an object a record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine import Key
from ..engine.errors import UndertowError
from .records import Answer

NO_TIME = -(2**63)  # of an event time that is not known
NO_SEQ = -1


@dataclass(slots=True)
class Columns:
    """N records; those of one partition in their order, those of several in any.

    partitions: their names. partition: index into those, int64 (N,). offsets, next_offsets: int64 (N,). keys: N of them.
    frames: of each input all frames of all records, (rows, *frame), of the model's dtypes. counts: how many of those
    rows each record has, int64 (N,), 0 where it only ends its stream or is bad.
    times_ns: event time of a record's first frame or NO_TIME; frame_ns: from a frame to the next, 0 where unknown; seqs:
    number of the first frame in its stream or NO_SEQ; all int64 (N,). ends: the stream ends with this record, bool (N,).
    ends_partition: so do all streams of its partition, bool (N,).
    bad: why a record cannot be stepped, by its place. payloads: what came, for dead letters.
    """

    partitions: list[str]
    partition: np.ndarray
    offsets: np.ndarray
    next_offsets: np.ndarray
    keys: list[Key]
    frames: list[np.ndarray]
    counts: np.ndarray
    times_ns: np.ndarray
    frame_ns: np.ndarray
    seqs: np.ndarray
    ends: np.ndarray
    ends_partition: np.ndarray
    bad: dict[int, UndertowError]
    payloads: Sequence[Any]

    def __len__(self) -> int:
        return len(self.keys)

    def source(self, i: int) -> str:
        """`partition/offset` of a record."""
        return f"{self.partitions[self.partition[i]]}/{self.offsets[i]}"


@dataclass(slots=True)
class Answers:
    """A answers to the records of `columns`, in the records' order; iterating gives them as `Answer`s.

    records: place of the record that completed each, int64 (A,). keys: the streams. steps: index in the stream of the
    first output, rows: how many outputs; times_ns: event time of the frame that the first one answers or NO_TIME,
    frame_ns as in `Answer`; all int64 (A,). ends: the stream's last answer, bool (A,).
    values: by the output's name all outputs of all answers, end to end, (rows.sum(), *out).
    """

    columns: Columns
    records: np.ndarray
    keys: list[Key]
    steps: np.ndarray
    rows: np.ndarray
    times_ns: np.ndarray
    frame_ns: np.ndarray
    ends: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Answer]:
        stops = np.cumsum(self.rows)
        times = zip(self.times_ns.tolist(), self.frame_ns.tolist(), self.ends.tolist(), strict=True)
        for i, (start, stop, (at, gap, end)) in enumerate(
            zip((stops - self.rows).tolist(), stops.tolist(), times, strict=True)
        ):
            values = {name: array[start:stop] for name, array in self.values.items()}
            source = self.columns.source(int(self.records[i]))
            yield Answer(self.keys[i], int(self.steps[i]), values, source, None if at == NO_TIME else at, gap, end)
