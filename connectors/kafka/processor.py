"""The processor for Kafka: poll, decode, step, send, commit; partitions come and go while it runs.

One transaction holds the outputs, the changed rows, and the offsets behind the records that they come from; it is
committed every `commit_interval_s`. Whatever fails in it makes the process forget all state and take its partitions over
from itself, as any other process would. `offsets` says why nobody else can write for a partition meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from ...engine.errors import ConnectorError
from ..batch import Batch
from ..columns import Answers
from ..config import Delivery
from ..summary import Summary
from .changelog import ChangelogReader
from .intake import partition_name
from .offsets import Claim, Committed, committed
from .state import Changes, State
from .writer import Writer, WriterFailed

log = logging.getLogger("undertow.kafka")
Polled = Mapping[TopicPartition, Sequence[ConsumerRecord]]
POLL_S = 0.2  # the longest wait for records, and so for a signal to be heeded
RELEASE_S = 10.0  # how long a partition's owner that is alive is waited for


@dataclass(slots=True)
class Part:
    """A partition that this process was assigned. committed: the group's offset that was found; running: it is restored."""

    tp: TopicPartition
    claimed: bool = False
    running: bool = False
    committed: int = 0
    replay_to: int = 0
    began: float = 0.0
    read: int = 0


class KafkaProcessor:
    """Runs one pipeline whose records come from Kafka, once.

    outputs: where answers go. live: ids of the workers that are alive, as the assignor was told. phases: called at each
    step of the work, for tests that end the process there.
    """

    def __init__(
        self,
        parts: "KafkaParts",
        delivery: Delivery,
        told: Callable[[Callable[[], Summary]], None] | None = None,
        phases: Callable[[str], None] = lambda phase: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.p, self.delivery, self.told, self.phases, self.clock = parts, delivery, told, phases, clock
        self.batch: Batch = parts.batch
        self.state = State(parts.batch, parts.on_change)
        self.writer = Writer(parts.make_producer, parts.name, parts.worker)
        self.consumer: AIOKafkaConsumer = parts.make_consumer()
        self.reader = ChangelogReader(parts.make_reader)
        self.held: dict[TopicPartition, Part] = {}
        self.stopped_by: str | None = None
        self.commits = self.checkpoints = 0
        self._assigned: set[TopicPartition] | None = None  # where an assignment waits to be taken up
        self._restoring: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[Polled] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()  # the engine and what is kept of streams
        self._moved: set[TopicPartition] = set()
        self._failed: str | None = None

    def stop(self, reason: str) -> None:
        """Lets the run finish what it has polled, write a checkpoint, hand its partitions over and end."""
        self.stopped_by = self.stopped_by or reason

    async def run(self) -> Summary:
        """Until `stop` is called, or the ends that it found at the start where it is to stop there. Raises UndertowError."""
        try:
            await self._open()
            while self.stopped_by is None and self.batch.failure is None and not await self._at_the_end():
                await self._turn()
            await self._hand_over()
        finally:
            await self._close()
        if self.batch.failure is not None:
            raise self.batch.failure
        return self.summary()

    # ---------------------------------------------------------------------------------------------- one turn

    async def _turn(self) -> None:
        try:
            await self._take_up()
            polled = await self._poll()
            if polled:
                self.phases("polled")
                answers = await self._step(polled)
                self.phases("stepped")
                await self._send(answers)
                self.phases("sent")
            await self._commit_if_due()
        except WriterFailed as error:
            await self._begin_again(str(error))

    async def _poll(self) -> Polled:
        """Records of partitions that run, from where each goes on."""
        if self._polling is None:
            self._polling = asyncio.create_task(self._fetch())
        wait = min(
            POLL_S,
            max(0.0, self._committed_at + self.delivery.commit_interval_s - self.clock()) if self._moved else POLL_S,
        )
        await asyncio.wait({self._polling}, timeout=wait)
        if not self._polling.done():
            return {}
        polled, self._polling = self._polling.result(), None
        found = {tp: self._following(tp, records) for tp, records in polled.items()}
        return {tp: records for tp, records in found.items() if records}

    async def _fetch(self) -> Polled:
        try:
            return await self.consumer.getmany(timeout_ms=int(POLL_S * 1000), max_records=self.p.max_records)
        except NoOffsetForPartitionError:  # a new partition that nobody has sought in yet
            return {}
        except OffsetOutOfRangeError as error:
            places = ", ".join(f"{partition_name(tp)} at {at}" for tp, at in error.args[0].items())
            raise ConnectorError(
                f"[source] {places}: no such record any more; the topic's retention deleted input that was not processed, or "
                "the topic was made anew. Set the group's offset to one that there is (kafka-consumer-groups.sh --reset-offsets) to go on without it"
            ) from error
        except KafkaError as error:
            raise ConnectorError(f"[source] records cannot be fetched: {type(error).__name__}: {error}") from error

    def _following(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """Those that were not taken yet; none of a partition that does not run here."""
        part = self.held.get(tp)
        if part is None or not part.running:
            return []
        begin = self.batch.positions.next[partition_name(tp)]
        return records if records[0].offset >= begin else [r for r in records if r.offset >= begin]

    async def _step(self, polled: Polled) -> list[Any]:
        async with self._busy:
            answers = await asyncio.to_thread(lambda: self.batch.answers(self.p.intake.columns(polled)))
        for tp in polled:
            self._moved.add(tp)
            self._replayed(self.held[tp])
        return answers

    def _replayed(self, part: Part) -> None:
        name = partition_name(part.tp)
        if part.replay_to and self.batch.positions.next[name] >= part.replay_to:
            part.replay_to = 0
            self.state.caught_up(name)
            log.info("replayed", extra={"partition": name, "seconds": round(self.clock() - part.began, 3)})

    async def _send(self, answers: Sequence[Answers]) -> None:
        await self._committed()
        for given in answers:
            if len(given):
                await self.p.outputs.send(self.writer, given)
        if self.p.dead is not None:
            await self.p.dead.send(self.writer)

    # ---------------------------------------------------------------------------------------------- commits

    async def _commit_if_due(self) -> None:
        now = self.clock()
        if self._moved and now - self._committed_at >= self.delivery.commit_interval_s and self._committing is None:
            await self._commit()
        elif self._committing is not None and self._committing.done():
            await self._committed()
        if self.told is not None:
            self.told(self.summary)

    async def _commit(self, leaving: frozenset[TopicPartition] = frozenset()) -> None:
        """Begins a commit of everything that was taken; of partitions that are left, with all their rows and without a claim."""
        await self._committed()
        moved = [tp for tp in self.held if self.held[tp].claimed and (tp in self._moved or tp in leaving)]
        self._moved.clear()
        now = self.clock()
        share = min(1.0, (now - self._committed_at) / self.delivery.checkpoint_interval_s)
        async with self._busy:
            changes = await asyncio.to_thread(self._changes, moved, share, leaving)
        self._committed_at = now
        offsets = {tp: self._offset(self.held[tp], tp in leaving) for tp in moved}
        if offsets:
            self._committing = asyncio.create_task(self._write(changes, offsets))

    def _changes(
        self, moved: Sequence[TopicPartition], share: float, leaving: frozenset[TopicPartition]
    ) -> dict[TopicPartition, Changes]:
        return {
            tp: self.state.changes(partition_name(tp), share, tp in leaving) for tp in moved if self.held[tp].running
        }

    def _offset(self, part: Part, leaves: bool) -> OffsetAndMetadata:
        owner = None if leaves else self.writer.id
        offset = self.batch.positions.next[partition_name(part.tp)] if part.running else part.committed
        part.committed = max(part.committed, offset)
        return OffsetAndMetadata(part.committed, Claim(owner=owner, marker=part.running).text())

    async def _write(
        self, changes: Mapping[TopicPartition, Changes], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        began = self.clock()
        await self.p.outputs.flush()
        for tp, told in changes.items():
            if told:
                await self.writer.send(
                    self.p.changelog(tp.topic), {tp.partition: self.p.change_batches(self.writer.producer, told)}
                )
        await self.writer.ready(offsets, self.p.group_id)
        self.phases("committing")
        await self.writer.commit()
        self.phases("committed")
        self.commits += 1
        log.debug(
            "committed", extra={"seconds": round(self.clock() - began, 4), "rows": sum(map(len, changes.values()))}
        )

    async def _committed(self) -> None:
        """The commit that was begun is done. Raises WriterFailed."""
        if self._committing is not None:
            task, self._committing = self._committing, None
            await task

    # ---------------------------------------------------------------------------------------------- partitions

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """A new generation begins. Partitions that stay go on where they are; new ones wait until they are restored."""
        for tp in partitions:
            part = self.held.get(tp)
            if part is not None and part.running:
                self.consumer.seek(tp, self.batch.positions.next[partition_name(tp)])
            else:
                self.consumer.pause(tp)
                self.consumer.seek(tp, 0)
        self._assigned = set(partitions)
        log.info("assigned", extra={"partitions": sorted(map(partition_name, partitions))})

    async def _take_up(self) -> None:
        """Lets go of the partitions that are gone, and begins to restore those that are new."""
        if self._restoring is not None and self._restoring.done():
            task, self._restoring = self._restoring, None
            await task
        if self._assigned is None:
            return
        assigned, self._assigned = self._assigned, None
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None
        lost = frozenset(self.held) - assigned
        for tp in frozenset(tp for tp, part in self.held.items() if not part.running) - lost:
            self._forget(tp, keep_claim=True)
        if lost:
            await self._leave(lost)
        new = [tp for tp in assigned if tp not in self.held or not self.held[tp].running]
        if new:
            self._restoring = asyncio.create_task(self._restore(new))

    def _forget(self, tp: TopicPartition, keep_claim: bool = False) -> None:
        self.state.drop(partition_name(tp))
        self._moved.discard(tp)
        if not keep_claim:
            self.held.pop(tp, None)

    async def _leave(self, lost: frozenset[TopicPartition]) -> None:
        """Writes all rows of these partitions and releases their claims, in one transaction with all else that is due."""
        await self._commit(lost)
        await self._committed()
        for tp in lost:
            self._forget(tp)
        log.info("released", extra={"partitions": sorted(map(partition_name, lost))})

    async def _restore(self, new: Sequence[TopicPartition]) -> None:
        """Claims the partitions, reads their changelogs to the end, and lets them run from where their replays begin."""
        began = self.clock()
        found = await self._claim(new)
        if not found:
            return
        self.phases("claimed")
        for tp in found:
            self.held[tp] = Part(tp, True, False, found[tp], 0, began)
            self.state.follow(partition_name(tp))
        logs = {TopicPartition(self.p.changelog(tp.topic), tp.partition): tp for tp in found}
        rows = 0
        async for records, _ in self.reader.to_the_end(dict.fromkeys(logs)):
            for source, part in records.items():
                rows += len(part)
                async with self._busy:
                    await asyncio.to_thread(
                        self.state.apply, partition_name(logs[source]), part, f"changelog {partition_name(source)}"
                    )
            self.phases("restoring")
        for source, tp in logs.items():
            await self._run_from_here(self.held[tp], f"changelog {partition_name(source)}")
        log.info("restored", extra={
            "partitions": sorted(map(partition_name, found)), "rows": rows, "streams": len(self.batch.ledger.streams),
            "seconds": round(self.clock() - began, 3),
        })  # fmt: skip

    async def _run_from_here(self, part: Part, where: str) -> None:
        tp, name = part.tp, partition_name(part.tp)
        async with self._busy:
            begin = self.state.start(name, part.committed, where)
        first = (await self.consumer.beginning_offsets([tp]))[tp]
        if begin < first:
            raise ConnectorError(
                f"[source] {name}: records from {begin} on have to be read again and the topic has none below {first}; its retention is "
                "shorter than the time since its last checkpoint. What they did to the streams is lost: delete the changelog topic and set the "
                f"group's offset to {first} to begin all streams anew there"
            )
        part.replay_to, part.running = (part.committed if part.committed > begin else 0), True
        self.consumer.seek(tp, begin)
        self.consumer.resume(tp)

    async def _claim(self, new: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Shuts out who had the partitions and claims them; the offsets from which each goes on. None of those that are not ours any more."""
        found = await self._released(new)
        owners = {c.claim.owner for c in found.values() if c.claim and c.claim.owner} - {self.writer.id}
        for owner in owners:
            await self.writer.shut_out(owner)
            log.warning("shut out", extra={"owner": owner})
        found = await committed(self.p.client, self.p.group_id, new)
        await self._check_changelogs(found)
        offsets = await self.p.starts(self.consumer, {tp: c.offset for tp, c in found.items()})
        mine = {
            tp: OffsetAndMetadata(
                offsets[tp], Claim(owner=self.writer.id, marker=bool(c.claim and c.claim.marker)).text()
            )
            for tp, c in found.items()
        }
        try:
            await self.consumer.commit(mine)
        except (KafkaError, AssertionError) as error:  # another generation has begun: its assignment will come
            log.info("claim refused", extra={"reason": str(error)})
            return {}
        return offsets

    async def _released(self, new: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The committed offsets, once owners that are alive in this generation have let go, or had time enough."""
        deadline = self.clock() + RELEASE_S
        while True:
            found = await committed(self.p.client, self.p.group_id, new)
            owners = {c.claim.owner for c in found.values() if c.claim and c.claim.owner}
            alive = [o for o in owners for w in self.p.live() if w != self.p.worker and f"-{w}-" in o]
            if not alive or self.clock() >= deadline:
                return found
            await asyncio.sleep(0.02)

    async def _check_changelogs(self, found: Mapping[TopicPartition, Committed]) -> None:
        """Raises ConnectorError where a changelog does not match its input, or has lost what it held."""
        await self.p.check_changelogs({tp.topic for tp in found})
        written = [tp for tp, c in found.items() if c.claim and c.claim.marker]
        logs = {TopicPartition(self.p.changelog(tp.topic), tp.partition): tp for tp in written}
        ends = await self.consumer.end_offsets(list(logs)) if logs else {}
        empty = [tp for source, tp in logs.items() if not ends[source]]
        if empty:
            raise ConnectorError(
                f"{partition_name(empty[0])}: its changelog {self.p.changelog(empty[0].topic)} is empty, and the group's offset says that "
                "there was state; was it deleted? Bring it back, or set the group's offset anew (kafka-consumer-groups.sh --reset-offsets) to begin all streams anew"
            )

    # ---------------------------------------------------------------------------------------------- beginning and end

    async def _open(self) -> None:
        self._began = self._committed_at = self.clock()
        await self.p.client.bootstrap()
        await self.p.check()
        await self.p.outputs.start()
        await self.writer.start()
        await self.consumer.start()
        self.p.subscribe(self.consumer, _Listener(self))

    async def _begin_again(self, why: str) -> None:
        """Forgets all state and takes the assigned partitions over anew, from what was committed."""
        log.warning("begins again", extra={"reason": why})
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.wait({self._committing})
            self._committing = None
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None
        held = set(self.held)
        async with self._busy:
            for tp in held:
                self._forget(tp)
        if self.p.dead is not None:
            self.p.dead.clear()
        await self.writer.abandon()
        await self.writer.start()
        self.consumer.pause(*(held & self.consumer.assignment()))
        if self._assigned is None:
            self._assigned = held & self.consumer.assignment()

    async def _hand_over(self) -> None:
        """Writes every row, commits, and releases all claims, so that a successor has nothing to replay."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None
        try:
            await self._leave(frozenset(self.held))
        except WriterFailed as error:
            log.warning("not handed over", extra={"reason": str(error)})

    async def _at_the_end(self) -> bool:
        return False

    async def _close(self) -> None:
        for task in (self._polling, self._restoring, self._committing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self.reader.close()
        await self.consumer.stop()
        await self.writer.abandon()
        await self.p.outputs.close()
        await self.p.client.close()

    def summary(self) -> Summary:
        return self.batch.summary(
            self.clock() - self._began,
            self.commits,
            self.checkpoints,
            self.clock() - self._committed_at,
            self.stopped_by,
        )


class _Listener(ConsumerRebalanceListener):
    """Nothing is done when partitions are revoked: they are this process's until it releases its claim."""

    def __init__(self, processor: KafkaProcessor):
        self._processor = processor

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        pass

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._processor.assigned(assigned)
