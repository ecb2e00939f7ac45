"""The synchronous part of a pipeline: a poll's records in, answers out. Runs in a worker thread."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine import Engine
from ..engine.errors import CheckpointError, CodecError, FrameError, SnapshotError, UndertowError
from .codecs import Codec, frames_of
from .config import Policy
from .dead_letters import DeadLetters
from .decoders import Decoder
from .ledger import Chunk, Ledger, Live, Part
from .positions import Positions
from .records import Answer, Record
from .stepping import Stepper
from .store import Checkpoint, Commit, Store, StoredStream


@dataclass(slots=True)
class Counts:
    records: int = 0
    frames: int = 0
    answers: int = 0
    dead_letters: int = 0
    replayed: int = 0


class Batch:
    """Takes records in order and gives their answers; knows what a commit and a checkpoint have to say of them.

    failure: why the record behind the last one was not taken, where bad records stop the run.
    """

    def __init__(
        self,
        engine: Engine,
        codec: Codec | None,
        decoder: Decoder,
        policy: Policy,
        max_streams: int,
        max_frames: int,
        dead: DeadLetters | None,
    ):
        self.engine, self.codec, self.decoder, self.dead = engine, codec, decoder, dead
        self.ledger = Ledger(engine.spec, policy, max_streams, max_frames)
        self.stepper = Stepper(engine, slots(max_streams))
        self.positions = Positions({})
        self.counts, self.failure = Counts(), None
        self._stored_refusals: set[tuple[str, int]] = set()

    def restore(self, store: Store) -> Mapping[str, int]:
        """Takes over what the store holds; the lengths that were committed. Raises CheckpointError."""
        found = store.recovered()
        self.positions = Positions(found.partitions)
        marks = {p.partition: p.watermark_ns for p in found.partitions.values() if p.watermark_ns is not None}
        self.ledger.restore(self._restored(store), marks, found.refused)
        self._stored_refusals = set(found.refused)
        return found.lengths

    def answers(self, records: Sequence[Record]) -> Sequence[Answer]:
        """The decoded answers of the records, in their order. Sets `failure` and takes no more where a bad record stops the run."""
        parts: list[Part] = []
        for record in records:
            replayed = self.positions.replayed(record)
            more, refusal = self.ledger.take(record, self._chunk(record), replayed)
            parts += more
            if refusal is not None and self.dead is None:
                self.failure = _placed(record, refusal)
                break
            if refusal is not None and self.dead is not None and not replayed:
                self.dead.write(record, refusal)
                self.counts.dead_letters += 1
            self.positions.took(record)
            self._count(more, replayed)
        answers = self.decoder(self.stepper.step(parts))
        self.counts.answers += sum(len(next(iter(a.values.values()))) for a in answers)
        return answers

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
        self._stored_refusals = set(ledger.refused)

    # ---------------------------------------------------------------------------------------------- inside

    def _chunk(self, record: Record) -> Chunk | UndertowError | None:
        try:
            if isinstance(record.value, np.ndarray):
                return self.engine.check(record.key, record.value)
            frames = frames_of(record, self.codec)
            return None if frames is None else self.engine.check(record.key, frames.arrays)
        except (CodecError, FrameError) as error:
            return error

    def _count(self, parts: Sequence[Part], replayed: bool) -> None:
        self.counts.replayed += replayed
        self.counts.records += not replayed
        if not replayed:
            self.counts.frames += sum(len(p.chunk[0]) for p in parts if p.chunk is not None)

    def _checkpoint(self) -> Checkpoint:
        changed, live = self.ledger.changed, self.ledger.live
        stay = [live[name] for name in changed if name in live]
        return Checkpoint(lambda: map(self._stored, stay), [n for n in changed if n not in live], self._settled())

    def _settled(self) -> set[tuple[str, int]]:
        """Refusals below the checkpoint's offsets."""
        return {(p, offset) for p, offset in self.ledger.refused if offset < self.positions.next.get(p, 0)}

    def _stored(self, live: Live) -> StoredStream:
        partition, key = live.name
        snapshot = self.engine.snapshot(live.id)
        wire_key = (key,) if isinstance(key, bytes) else key
        return StoredStream(partition, wire_key, live.frames, live.seq, live.last_ns, live.spans, snapshot)

    def _restored(self, store: Store) -> Iterator[Live]:
        for id, s in enumerate(store.streams()):
            live = Live(id, (s.partition, s.key), s.frames, s.seq, s.last_ns, s.spans)
            what = f"{store.path}: stream {s.key!r} of '{s.partition}'"
            if id >= self.stepper.slots:
                raise CheckpointError(
                    f"{what}: more than {self.stepper.slots} streams are stored; raise [model] max_streams"
                )
            try:
                self.engine.restore(id, s.snapshot)
            except SnapshotError as error:
                raise CheckpointError(f"{what}: {error}") from error
            if self.engine.frames(id) != s.frames:
                raise CheckpointError(f"{what}: its row has seen {self.engine.frames(id)} frames, expected {s.frames}")
            yield live


def _placed(record: Record, refusal: UndertowError) -> UndertowError:
    """The same error, saying which record it is of."""
    return refusal if str(refusal).startswith(record.source) else type(refusal)(f"{record.source}: {refusal}")


def slots(max_streams: int) -> int:
    """Slots of the engine: twice as many as streams may be open, because a replay may meet partitions in another order."""
    return 2 * max_streams
