"""One stream of a pipeline stepped again, apart from all others: by the same ledger, engine and decoder as in a run.

What other streams of the partition do to it is their event times alone, for idling is judged by the partition's watermark. So of
their records only the times are taken, and those only where streams expire. Whether a new stream found room depends on
all others, and is not done again: here it always does.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..engine import Engine, Key
from ..engine.errors import SnapshotError, UndertowError
from .batch import Batch
from .columns import NO_SEQ, Answers, Columns
from .output_lines import key_bytes_of, rows
from .payloads import Codec
from .records import Answer
from .store import StoredPartition
from .stored import kept_of


@dataclass(frozen=True, slots=True)
class Request:
    """stream: as it is shown. begin: where to begin to read; with the state that the changelog has, the initial one, or the snapshot's.

    partition, end: None where not told. key: the stream's of a topic.
    """

    stream: str
    begin: Literal["start", "changelog"] | int = "start"
    end: int | None = None
    partition: str | None = None
    snapshot: bytes | None = None

    @property
    def key(self) -> bytes:
        """Raises ConfigError."""
        return key_bytes_of(self.stream)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was read of a partition. cut: it was to begin earlier, and there is nothing any more."""

    partition: str
    begin: int
    end: int
    cut: bool


class Refusals:
    """Why records of the stream have no answer; stands where a run has its dead letters."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def write(self, columns: Columns, i: int, reason: UndertowError) -> None:
        text = str(reason)
        self.reasons.append(text if text.startswith(columns.source(i)) else f"{columns.source(i)}: {text}")


@dataclass(slots=True)
class Payload:
    """An answer as the sink would write it."""

    source: str
    step: int
    end: bool
    value: bytes


@dataclass(slots=True)
class OneStream:
    """A model that steps it. codec: of the sink, where its payloads are asked for. lives: which life of the stream each answer is of."""

    batch: Batch
    refusals: Refusals
    codec: Codec | None = None
    answers: list[Answer] = field(default_factory=list)
    lives: list[int] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    records: int = 0
    _life: int = 0

    @property
    def engine(self) -> Engine:
        return self.batch.engine

    def begin_with(self, partition: str, key: Key, snapshot: bytes) -> None:
        """The stream goes on from a snapshot. Raises SnapshotError."""
        streams = self.batch.ledger.streams
        row = streams.open((partition, key))
        self.engine.restore(row, snapshot)
        streams.keep(row, kept_of(self.engine.spec, self.engine.frames(row)))

    def begin_at(self, partition: str, offset: int) -> None:
        """Everything from this offset on is answered."""
        self.batch.positions.stored[partition] = StoredPartition(partition, offset)

    def take(self, columns: Columns, mine: np.ndarray) -> None:
        """mine: which records are the stream's, bool (N,). Nothing is taken after a bad record that stops the run."""
        if self.batch.failure is None and len(columns):
            self.records += int(mine.sum())
            for given in self.batch.answers(columns):
                self._keep(given)

    def _keep(self, given: Answers) -> None:
        answers = list(given)
        if self.codec is not None and answers:
            values = self.codec.encode_many(given.values, given.rows)
            self.payloads += [Payload(a.source, a.step, a.end, v) for a, v in zip(answers, values, strict=True)]
        for answer in answers:
            self.answers.append(answer)
            self.lives.append(self._life)
            self._life += answer.end

    @property
    def outputs(self) -> int:
        return sum(map(rows, self.answers))


def narrowed(columns: Columns, mine: np.ndarray, watched: bool) -> tuple[Columns, np.ndarray]:
    """The stream's own records, those that end its partition, and, where watched, the others' times; and which are its own."""
    spans_ns = np.maximum(columns.counts - 1, 0) * columns.frame_ns
    bad = np.zeros(len(columns), np.bool_)
    bad[list(columns.bad)] = True
    times = np.where(mine | bad, columns.times_ns, columns.times_ns + np.where(columns.counts > 0, spans_ns, 0))
    kept = mine | columns.ends_partition | watched
    places = np.flatnonzero(kept)
    own = mine[places]
    rows_of_mine = np.repeat(mine, columns.counts)
    ordered = {int(place): i for i, place in enumerate(places)}

    def told(values: np.ndarray, otherwise: Any) -> np.ndarray:
        return np.where(own, values[places], otherwise)

    only = Columns(
        columns.partitions,
        columns.partition[places],
        columns.offsets[places],
        columns.next_offsets[places],
        [columns.keys[i] for i in places.tolist()],
        [frames[rows_of_mine] for frames in columns.frames],
        told(columns.counts, 0),
        times[places],
        columns.frame_ns[places],
        told(columns.seqs, NO_SEQ),
        told(columns.ends, False),
        columns.ends_partition[places],
        {ordered[i]: why for i, why in columns.bad.items() if mine[i]},
        [columns.payloads[i] for i in places.tolist()],
    )
    return only, own


def check_snapshot(snapshot: bytes | None, begin: object) -> None:
    """Raises SnapshotError where it is not said which records come after it."""
    if snapshot is not None and not isinstance(begin, int):
        raise SnapshotError(
            "a snapshot does not say where its stream was read up to; give the next record's offset with --from"
        )
