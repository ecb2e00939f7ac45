"""The processor: poll, decode, step, decode the answers, write, commit.

Why a replay is exact. Everything that decides an output is a function of the records: the engine is deterministic, a
stream's frames are stepped in its partition's order, expiry runs on the partition's event time, gaps on its numbers (see
`ledger`), and neither the wall clock nor the size of a poll takes part. So whoever restores the rows of a checkpoint and
steps the records from its offsets on arrives at the same state and the same answers. Records below the committed
offsets are stepped and not given out again; the sink is cut to the committed lengths, which were written in the same
transaction; whatever is above is given out now. (The compiled backend gives the same bits; ONNX Runtime the same within 1e-5.)
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from .batch import Batch
from .columns import Answers
from .config import Delivery
from .dead_letters import DeadLetters
from .records import Record, Sink, Source
from .store import Store
from .summary import Summary

MAX_RECORDS, POLL_BYTES = 4096, 64 * 2**20  # records of a poll, and what their frames may come to at 64 frames each
POLL_S = 0.2  # the longest wait for records, and so for a signal to be heeded
_DEAD = "dead-letters"


class Processor:
    """Runs one pipeline from its parts, once. told: called after each batch with what gives the figures. clock: seconds."""

    def __init__(
        self,
        batch: Batch,
        source: Source,
        sink: Sink,
        store: Store,
        delivery: Delivery,
        told: Callable[[Callable[[], Summary]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.batch, self.source, self.sink, self.store, self.delivery = batch, source, sink, store, delivery
        self.told, self.clock = told, clock
        assert not batch.dead or isinstance(batch.dead, DeadLetters), "a dead-letter topic is for records of Kafka"
        self.dead = batch.dead
        self.stopped_by: str | None = None
        self.commits = self.checkpoints = 0
        frame_bytes = sum(int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in batch.engine.spec.inputs)
        self.max_records = max(1, min(MAX_RECORDS, POLL_BYTES // (64 * max(frame_bytes, 1))))

    def stop(self, reason: str) -> None:
        """Lets the run finish what it has polled, write a checkpoint and end."""
        self.stopped_by = self.stopped_by or reason

    async def run(self) -> Summary:
        """Until the source is exhausted or `stop` is called. Raises UndertowError; a bad record's after a checkpoint."""
        try:
            await self._open()
            await self._loop()
            await self._commit(checkpoint=True)
        finally:
            await self._close()
        if self.batch.failure is not None:
            raise self.batch.failure
        return self.summary()

    async def _loop(self) -> None:
        """One after the other: a poll beside the step would only take the GIL from it (p99 of a batch 0.6 ms, else 10 ms)."""
        while self.batch.failure is None and (records := await self._poll()) is not None:
            for answers in await asyncio.to_thread(self._step, records):
                await self.sink.write(answers)
            await self._commit_if_due()

    def _step(self, records: Sequence[Record]) -> list[Answers]:
        return self.batch.answers(self.batch.columns(records)) if records else []

    async def _open(self) -> None:
        lengths = await asyncio.to_thread(self.batch.restore, self.store)
        cut = self.delivery.guarantee == "exactly-once"
        if self.dead is not None:
            self.dead.open(lengths.get(_DEAD), cut)
        sink = {part.removeprefix("sink/"): n for part, n in lengths.items() if part != _DEAD}
        await self.sink.open(sink if cut else None)
        if not lengths:  # from now on what is in the sink is this store's
            await self._flush(checkpoint=False)
        await self.source.open(self.batch.positions.begin)
        self._began = self._committed_at = self._checkpoint_at = self.clock()

    async def _poll(self) -> Sequence[Record] | None:
        """Records, or None once there will be no more."""
        if self.source.exhausted or self.stopped_by is not None:
            return None
        return await self.source.poll(self.max_records, min(POLL_S, self.delivery.commit_interval_s))

    async def _commit_if_due(self) -> None:
        """Without a source that can go back, nothing may be committed that is not in a checkpoint too."""
        now = self.clock()
        checkpoint = now - self._checkpoint_at >= self.delivery.checkpoint_interval_s
        if checkpoint or now - self._committed_at >= self.delivery.commit_interval_s:
            await self._commit(checkpoint or not self.source.rewindable)
        if self.told is not None:
            self.told(self.summary)

    async def _commit(self, checkpoint: bool) -> None:
        """Makes the answers durable, then says in one transaction how far they and their records go."""
        positions = self.batch.positions
        if positions.moved or (checkpoint and positions.unsaved):
            await self._flush(checkpoint)
        self._committed_at = self.clock()
        self._checkpoint_at = self._committed_at if checkpoint else self._checkpoint_at

    async def _flush(self, checkpoint: bool) -> None:
        lengths = {f"sink/{part}": n for part, n in (await self.sink.flush()).items()}
        await asyncio.to_thread(self._write, lengths, checkpoint)

    def _write(self, lengths: dict[str, int], checkpoint: bool) -> None:
        if self.dead is not None:
            lengths[_DEAD] = self.dead.flush()
        self.batch.commit(lengths, checkpoint, self.store)
        self.commits += 1
        self.checkpoints += checkpoint

    async def _close(self) -> None:
        if self.dead is not None:
            self.dead.close()
        await self.source.close()
        await self.sink.close()

    def summary(self) -> Summary:
        now = self.clock()
        return self.batch.summary(
            now - self._began, self.commits, self.checkpoints, now - self._committed_at, self.stopped_by
        )
