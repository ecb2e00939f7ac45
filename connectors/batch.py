"""The synchronous part of a pipeline: a poll's records in, answers out. Runs in a worker thread."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import Engine
from ..engine.errors import CheckpointError, CodecError, FrameError, SnapshotError, StreamError, UndertowError
from .codecs import frames_of
from .columns import NO_SEQ, NO_TIME, Answers, Columns
from .config import Policy
from .dead_letters import DeadLetters
from .ledger import Ledger, Taken
from .payloads import Codec
from .positions import Positions
from .records import Record
from .stepping import Stepper
from .store import Checkpoint, Commit, Store, StoredStream
from .streams import Name
from .summary import Summary

if TYPE_CHECKING:
    from .kafka.dead_topic import DeadLetterTopic


@dataclass(slots=True)
class Counts:
    records: int = 0
    frames: int = 0
    answers: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    replayed: int = 0


class Batch:
    """Takes records in order and gives their answers; knows what a commit and a checkpoint have to say of them.

    failure: why the record behind the last one was not taken, where bad records stop the run.
    """

    def __init__(
        self,
        engine: Engine,
        codec: Codec | None,
        policy: Policy,
        max_streams: int,
        max_frames: int,
        dead: "DeadLetters | DeadLetterTopic | None",
        standbys: int = 0,
    ):
        self.engine, self.codec, self.dead = engine, codec, dead
        self.ledger = Ledger(engine.spec, policy, max_streams, slots(max_streams, standbys), max_frames)
        self.stepper = Stepper(engine, self.ledger)
        self.positions = Positions({})
        self.counts, self.failure = Counts(), None
        self._stored_refusals: set[tuple[str, int]] = set()

    def restore(self, store: Store) -> Mapping[str, int]:
        """Takes over what the store holds; the lengths that were committed. Raises CheckpointError."""
        found, ledger = store.recovered(), self.ledger
        self.positions = Positions(found.partitions)
        ledger.watermarks = {
            p.partition: p.watermark_ns for p in found.partitions.values() if p.watermark_ns is not None
        }
        ledger.refused, self._stored_refusals = set(found.refused), set(found.refused)
        for stream in store.streams():
            self._restore(store, stream)
        return found.lengths

    def columns(self, records: Sequence[Record]) -> Columns:
        """The records as columns; those that cannot be decoded are bad."""
        return columns_of(records, self.codec, self.engine)

    def answers(self, columns: Columns) -> list[Answers]:
        """The decoded answers of the records, in their order. Sets `failure` and takes no more where a bad record stops the run."""
        replayed, given, at = self.positions.replayed(columns), [], 0
        while at < len(columns) and self.failure is None:
            taken = self.ledger.take(columns, at, replayed)
            stepped = self.stepper.step(columns, taken, replayed)
            self._refuse(columns, taken, stepped.lost, replayed)
            self._count(taken, replayed[at : at + taken.taken])
            given.append(stepped.answers)
            at += taken.taken
            if taken.failure is not None:
                self.failure = _placed(columns.source(at), taken.failure)
        self.positions.took(columns, at)
        self.counts.answers += int(sum(a.rows.sum() for a in given))
        return given

    def commit(self, lengths: Mapping[str, int], checkpoint: bool, store: Store) -> None:
        """Writes a commit, or a checkpoint, of everything taken so far, whose answers are durable at these lengths."""
        ledger, positions = self.ledger, self.positions
        partitions = positions.checkpoint(ledger.watermarks) if checkpoint else positions.commit()
        commit = Commit(lengths, partitions, ledger.refused - self._stored_refusals)
        store.write(commit, self._checkpoint() if checkpoint else None)
        positions.wrote(partitions, checkpoint)
        if checkpoint:
            ledger.refused -= self._settled()
            ledger.changed.clear()
            ledger.streams.changed[:] = False
        self._stored_refusals = set(ledger.refused)

    def summary(
        self,
        seconds: float,
        commits: int,
        checkpoints: int,
        last_commit_s: float,
        stopped_by: str | None,
        lag: int | None = None,
    ) -> Summary:
        counts, ledger = self.counts, self.ledger
        p50, p99 = np.percentile(self.stepper.seconds or [0.0], (50, 99)) * 1e6
        return Summary(
            records=counts.records,
            frames=counts.frames,
            answers=counts.answers,
            streams_seen=ledger.streams_seen,
            streams_live=ledger.live,
            dead_letters=counts.dead_letters,
            late_frames=ledger.late_frames,
            quarantined=counts.quarantined,
            replayed=counts.replayed,
            commits=commits,
            checkpoints=checkpoints,
            seconds=seconds,
            steps_per_s=counts.frames / seconds if seconds else 0.0,
            step_p50_us=float(p50),
            step_p99_us=float(p99),
            backend=self.engine.backend,
            last_commit_s=last_commit_s,
            stopped_by=stopped_by,
            lag=lag,
        )

    # ---------------------------------------------------------------------------------------------- inside

    def _refuse(self, columns: Columns, taken: Taken, lost: Mapping[int, str], replayed: np.ndarray) -> None:
        """Tells the dead letters which records were not answered, in their order."""
        quarantined: dict[int, UndertowError] = {
            i: StreamError(f"stream {columns.keys[i]!r} is quarantined until it ends: {why}") for i, why in lost.items()
        }
        for i, reason in sorted((taken.refusals | quarantined).items()):
            if replayed[i]:
                continue
            self.counts.quarantined += i in quarantined
            if self.dead is not None:
                self.dead.write(columns, i, reason)
                self.counts.dead_letters += 1

    def _count(self, taken: Taken, replayed: np.ndarray) -> None:
        again = int(replayed.sum())
        self.counts.replayed += again
        self.counts.records += taken.taken - again
        counts = taken.steps.count
        self.counts.frames += int(counts.sum()) - (int(counts[self._again(taken, replayed)].sum()) if again else 0)

    @staticmethod
    def _again(taken: Taken, replayed: np.ndarray) -> np.ndarray:
        return replayed[taken.steps.record - taken.begin]

    def _checkpoint(self) -> Checkpoint:
        index = self.ledger.streams.index
        changed = [(name, index.get(name)) for names in self.ledger.changed.values() for name in names]
        stay = [(name, row) for name, row in changed if row >= 0]
        return Checkpoint(
            lambda: (self._stored(name, row) for name, row in stay),
            [name for name, row in changed if row < 0],
            self._settled(),
        )

    def _settled(self) -> set[tuple[str, int]]:
        """Refusals below the checkpoint's offsets."""
        return {(p, offset) for p, offset in self.ledger.refused if offset < self.positions.next.get(p, 0)}

    def _stored(self, name: Name, row: int) -> StoredStream:
        partition, key = name
        wire_key = (key,) if isinstance(key, bytes) else key
        return StoredStream(partition, wire_key, self.ledger.streams.kept(row), self.engine.snapshot(row))

    def _restore(self, store: Store, stored: StoredStream) -> None:
        streams, what = self.ledger.streams, f"{store.path}: stream {stored.key!r} of '{stored.partition}'"
        if not streams.room:
            raise CheckpointError(f"{what}: more than {streams.capacity} streams are stored; raise [model] max_streams")
        row = streams.open((stored.partition, stored.key))
        try:
            streams.keep(row, stored.kept)
            self.engine.restore(row, stored.snapshot)
        except SnapshotError as error:
            raise CheckpointError(f"{what}: {error}") from error
        if self.engine.frames(row) != stored.kept.frames:
            raise CheckpointError(
                f"{what}: its row has seen {self.engine.frames(row)} frames, expected {stored.kept.frames}"
            )
        self.ledger.restored([row])


def columns_of(records: Sequence[Record], codec: Codec | None, engine: Engine) -> Columns:
    """Records one by one as columns; those that cannot be decoded or stepped are bad."""
    partitions: dict[str, int] = {}
    inputs, counts = engine.spec.inputs, np.zeros(len(records), np.int64)
    bad: dict[int, UndertowError] = {}
    chunks: list[list[np.ndarray]] = [[np.zeros((0, *t.shape), t.dtype)] for t in inputs]
    for i, record in enumerate(records):
        partitions.setdefault(record.partition, len(partitions))
        try:
            arrays = _chunk(record, codec, engine)
        except (CodecError, FrameError) as error:
            bad[i] = error
            continue
        for chunk, array in zip(chunks, arrays, strict=False):
            chunk.append(array)
        counts[i] = len(arrays[0]) if arrays else 0

    def column(values: Iterator[Any], dtype: Any = np.int64) -> np.ndarray:
        return np.fromiter(values, dtype, len(records))

    return Columns(
        list(partitions),
        column(partitions[r.partition] for r in records),
        column(r.offset for r in records),
        column(r.next_offset for r in records),
        [r.key for r in records],
        [np.concatenate(c) for c in chunks],
        counts,
        column(NO_TIME if r.event_time_ns is None else r.event_time_ns for r in records),
        column(r.frame_ns for r in records),
        column(NO_SEQ if r.seq is None else r.seq for r in records),
        column((r.end for r in records), np.bool_),
        column((r.end_partition for r in records), np.bool_),
        bad,
        [r.value for r in records],
    )


def _chunk(record: Record, codec: Codec | None, engine: Engine) -> list[np.ndarray]:
    """An array for each input; none where the record only ends streams. Raises CodecError, FrameError."""
    if isinstance(record.value, np.ndarray):
        return engine.check(record.key, record.value)
    frames = frames_of(record, codec)
    return [] if frames is None else engine.check(record.key, frames.arrays)


def _placed(source: str, refusal: UndertowError) -> UndertowError:
    """The same error, saying which record it is of."""
    return refusal if str(refusal).startswith(source) else type(refusal)(f"{source}: {refusal}")


def slots(max_streams: int, standbys: int = 0) -> int:
    """Slots of the engine: twice as many as streams may be open, because a replay may meet partitions in another order; as
    many again for each worker that this one may stand by for; and one for a stream that begins anew while its old row is left."""
    return (2 + standbys) * max_streams + 1
