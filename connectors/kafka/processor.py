"""The processor for Kafka: poll, decode, step, send, commit; partitions come and go while it runs.

One transaction holds the outputs, the changed rows, and the offsets behind the records that they come from; it is
committed every `commit_interval_s`. Whatever fails in it makes the process forget all state and take its partitions over
from itself, as any other process would. `offsets` says why nobody else can write for a partition meanwhile.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from msgspec.structs import replace

from ...engine.errors import ConnectorError
from ..batch import Batch
from ..columns import NO_TIME, Columns
from ..health import Health
from ..metrics import Metrics
from ..observing import EVERY_S, Observed
from ..summary import Summary
from . import clients
from .changelog import ChangelogReader, Records
from .cluster import TRANSACTION_S, Cluster, change_batches
from .coordinators import shut_out
from .dead_topic import DeadLetterTopic
from .failures import connector_error
from .failures import told as failing
from .intake import Intake, partition_name
from .offsets import Claim, Committed, Membership, claim, committed
from .outputs import Outputs
from .rewarming import Rewarming
from .standbys import Standbys
from .state import Changes, State
from .writer import Writer, WriterFailed

log = logging.getLogger("undertow.kafka")
T = TypeVar("T")
Polled = Mapping[TopicPartition, Sequence[ConsumerRecord]]
POLL_S = 0.2  # the longest wait for records, and so for a signal to be heeded
RETRY_S = 0.5
RELEASE_S = 10.0  # how long a partition's owner that is alive is waited for


@dataclass(slots=True)
class Part:
    """A partition that this process has claimed: it alone may write for it.

    running: it is restored. committed: the group's offset. replay_to: where answers begin that were not given out, until that is reached. end: where to stop.
    began: when it was assigned. after_poll: what this poll or one before it brings was fetched before the partition was sought in.
    """

    tp: TopicPartition
    claim: Claim
    committed: int
    running: bool = False
    replay_to: int = 0
    began: float = 0.0
    end: int = 0
    after_poll: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a generation of the group assigned to this process."""

    partitions: frozenset[TopicPartition]
    member: Membership


@dataclass(frozen=True, slots=True)
class KafkaParts:
    """What a processor is made of. fresh: makes another batch of the model, for streams that it warms."""

    cluster: Cluster
    batch: Batch
    fresh: Callable[[], Batch]
    intake: Intake
    outputs: Outputs
    dead: DeadLetterTopic | None


class KafkaProcessor:
    """Runs one pipeline whose records come from Kafka, once.

    told: called after each turn with what gives the figures. phases: called with the name of each step of the work, for
    tests that end the process there. clock: seconds.
    """

    def __init__(
        self,
        parts: KafkaParts,
        metrics: Metrics,
        health: Health,
        told: Callable[[Callable[[], Summary]], None] | None = None,
        phases: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.parts, self.cluster, self.batch, self.clock = parts, parts.cluster, parts.batch, clock
        self.metrics, self.health = metrics, health
        self.told, self.phase = told, phases or (lambda name: None)
        pipeline = self.cluster.pipeline
        self.delivery, self.source = pipeline.delivery, self.cluster.source
        self.state = State(parts.batch, pipeline.model.on_change)
        self.writer = Writer(self.cluster.producer, pipeline.name, self.cluster.worker)
        self.reader = ChangelogReader(self.cluster.reader)
        self.standbys = Standbys(self.cluster, self.state, metrics, self._apply, self._alone)
        frames = pipeline.model.rewarm_frames or 0
        self.rewarming = Rewarming(self.cluster.input_reader, parts.intake, parts.fresh, frames, self._alone)
        self._consumer: AIOKafkaConsumer | None = None
        self.held: dict[TopicPartition, Part] = {}
        self.stopped_by: str | None = None
        self.commits = 0
        self._assignment, self._taken_up = Assignment(frozenset(), Membership(self.cluster.group_id, -1, "")), True
        self._restoring: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[Polled] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()  # the engine and what is kept of streams
        self._moved: set[TopicPartition] = set()
        self._began = self._commit_at = clock()
        self._polls = 0
        self._wake = asyncio.Event()  # there is something else to do than to wait for records
        self._times: list[np.ndarray] = []  # event times of the records that are not committed
        self._observed, self._observe_at = Observed(metrics, health), 0.0

    def stop(self, reason: str) -> None:
        """Lets the run finish what it has polled, write every row, hand its partitions over and end."""
        self.stopped_by = self.stopped_by or reason

    async def run(self) -> Summary:
        """Until `stop` is called, or the input ends where it is to stop there. Raises UndertowError."""
        try:
            await self._open()
            while self.stopped_by is None and self.batch.failure is None and not await self._at_the_end():
                await self._turn()
            live = self.batch.ledger.live
            await self._hand_over()
        finally:
            await self._close()
        if self.batch.failure is not None:
            raise self.batch.failure
        return dataclasses.replace(self.summary(), streams_live=live)  # which go on elsewhere

    @property
    def consumer(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used before open"
        return self._consumer

    # ---------------------------------------------------------------------------------------------- one turn

    async def _turn(self) -> None:
        """Answers wait for the commit before them; so a commit goes on while the next records are stepped."""
        try:
            await self._take_up()
            polled = await self._poll()
            if polled:
                self.phase("polled")
                prepared = await self._step(polled)
                self.phase("stepped")
                await self._settled()
                await self.parts.outputs.send(prepared, self.writer)
                if self.parts.dead is not None:
                    await self.parts.dead.send(self.writer)
                self.phase("sent")
            await self._commit_if_due()
        except WriterFailed as error:
            await self._begin_again(str(error))
        self._tell()

    async def _poll(self) -> Polled:
        """Records of partitions that run, from where each goes on."""
        if self._polling is None:
            self._polls += 1
            self._polling = asyncio.create_task(self._fetch())
        due_s = self._commit_at + self.delivery.commit_interval_s - self.clock()
        waking = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait(
            {self._polling, waking},
            timeout=max(0.0, min(POLL_S, due_s)) if self._moved else POLL_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waking.cancel()
        self._wake.clear()
        if not self._polling.done():
            return {}
        polled, self._polling = self._polling.result(), None
        found = {tp: self._following(tp, records) for tp, records in polled.items()}
        return {tp: records for tp, records in found.items() if records}

    async def _fetch(self) -> Polled:
        try:
            return await self.consumer.getmany(
                timeout_ms=round(POLL_S * 1000), max_records=self.source.max_poll_records
            )
        except NoOffsetForPartitionError:  # a new partition that nobody has sought in yet
            return {}
        except OffsetOutOfRangeError as error:
            places = ", ".join(f"{partition_name(tp)} at {at}" for tp, at in error.args[0].items())
            raise ConnectorError(
                f"[source] {places}: there is no such record any more; retention deleted input that was not processed, or the topic was made "
                "anew. To go on without it, set the group's offset to one that there is (kafka-consumer-groups.sh --reset-offsets)"
            ) from error
        except KafkaError as error:
            if not error.retriable:
                raise connector_error(error, f"{self.cluster.where}: [source] records cannot be fetched") from error
            log.warning("fetch failed", extra={"reason": str(error)})
            await asyncio.sleep(POLL_S)
            return {}

    def _following(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """Those that were not taken yet; none of a partition that does not run here."""
        part = self.held.get(tp)
        if part is None or not part.running or not records:
            return []
        begin = self.batch.positions.next[partition_name(tp)]
        if part.after_poll >= self._polls:
            self.consumer.seek(tp, begin)
            return []
        return records if records[0].offset >= begin else [r for r in records if r.offset >= begin]

    async def _step(self, polled: Polled) -> list[Any]:
        def work() -> tuple[list[Any], Columns]:
            columns = self.parts.intake.columns(polled)
            answers = self.batch.answers(columns)
            return [self.parts.outputs.prepared(given, self.writer) for given in answers if len(given)], columns

        prepared, columns = await self._alone(work)
        self.metrics.stepped(self.batch.stepper.seconds[-1] if self.batch.stepper.seconds else 0.0, len(columns))
        self._times.append(columns.times_ns)
        for tp in polled:
            self._moved.add(tp)
            self._check_replay(self.held[tp])
        return prepared

    def _check_replay(self, part: Part) -> None:
        name = partition_name(part.tp)
        if part.replay_to and self.batch.positions.next[name] >= part.replay_to:
            part.replay_to = 0
            self.state.caught_up(name)
            log.info("replayed", extra={"partition": name, "seconds": round(self.clock() - part.began, 3)})

    async def _alone(self, work: Callable[[], T]) -> T:
        """Runs it in a thread, to its end also where the caller is cancelled: nothing else may touch streams meanwhile."""
        async with self._busy:
            task = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait({task})
                raise

    # ---------------------------------------------------------------------------------------------- commits

    async def _commit_if_due(self) -> None:
        if self._committing is not None and self._committing.done():
            await self._settled()
        due = self.clock() - self._commit_at >= self.delivery.commit_interval_s
        if due and self._committing is None and self._to_commit(frozenset()):
            await self._commit()

    def _to_commit(self, leaving: frozenset[TopicPartition]) -> list[TopicPartition]:
        """The partitions that have records to commit, rows that are due, or a claim to release."""
        now, interval_s = self.clock(), self.delivery.checkpoint_interval_s
        return [
            tp
            for tp, part in self.held.items()
            if tp in leaving
            or tp in self._moved
            or (part.running and self.state.due(partition_name(tp), now, interval_s))
        ]

    async def _commit(self, leaving: frozenset[TopicPartition] = frozenset()) -> None:
        """Begins a commit of everything that was taken; of partitions that are left, with all their rows and without a claim."""
        await self._settled()
        parts, now, times = self._to_commit(leaving), self.clock(), self._times
        self._times = []
        self._moved.clear()
        self._commit_at = now
        interval_s = self.delivery.checkpoint_interval_s
        names = {tp: partition_name(tp) for tp in parts if self.held[tp].running}
        changes = await self._alone(
            lambda: {tp: self.state.changes(name, now, interval_s, tp in leaving) for tp, name in names.items()}
        )
        offsets = {tp: self._offset(self.held[tp], tp in leaving) for tp in parts}
        if offsets:
            self._committing = asyncio.create_task(self._write(changes, offsets, times))

    def _offset(self, part: Part, leaves: bool) -> OffsetAndMetadata:
        if part.running:
            part.committed = max(part.committed, self.batch.positions.next[partition_name(part.tp)])
            part.claim = Claim(owner=part.claim.owner, marker=True)
        claim = replace(part.claim, owner=None) if leaves else part.claim
        return OffsetAndMetadata(part.committed, claim.text())

    async def _write(
        self,
        changes: Mapping[TopicPartition, Changes],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        times: Sequence[np.ndarray],
    ) -> None:
        began = self.clock()
        await self.parts.outputs.flush()
        for tp, told in changes.items():
            if told:
                topic = self.cluster.changelog(tp.topic)
                batches = change_batches(self.writer.producer.create_batch, told, topic)
                await self.writer.send(topic, {tp.partition: batches})
        await self.writer.ready(offsets, self.cluster.group_id)
        self.phase("committing")
        await self.writer.commit()
        self.phase("committed")
        self.commits += 1
        rows, seconds = sum(map(len, changes.values())), self.clock() - began
        known = [t[t != NO_TIME] for t in times]
        latency_s = (time.time_ns() - np.concatenate(known)) / 1e9 if known else None
        self.metrics.committed(seconds, rows, latency_s)
        log.debug("committed", extra={"seconds": round(seconds, 4), "rows": rows})

    async def _settled(self) -> None:
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
        coordinator: Any = self.consumer._coordinator  # the public client tells no generation
        member = Membership(self.cluster.group_id, coordinator.generation, coordinator.member_id)
        self._assignment, self._taken_up = Assignment(frozenset(partitions), member), False
        self._wake.set()
        self.metrics.assigned((tp.topic, tp.partition) for tp in partitions)
        self.health.state("restoring" if self._waiting() else "running")
        log.info("assigned", extra={"partitions": sorted(map(partition_name, partitions))})

    def _waiting(self) -> list[str]:
        """The assigned partitions that do not run yet."""
        parts = self._assignment.partitions
        return sorted(partition_name(tp) for tp in parts if tp not in self.held or not self.held[tp].running)

    async def _take_up(self) -> None:
        """Lets go of the partitions that are gone, and begins to restore those that are new."""
        if self._taken_up:
            await self._restored()
            return
        assignment, self._taken_up = self._assignment, True
        assigned = assignment.partitions
        await self._end_restoring()
        lost = frozenset(self.held) - assigned
        if lost:
            await self._leave(lost)
        new = [tp for tp in sorted(assigned) if tp not in self.held or not self.held[tp].running]
        warm = await self.standbys.leave(new)
        async with self._busy:
            self.state.drop({partition_name(tp) for tp in new if tp not in warm})
        if new:
            self._restoring = asyncio.create_task(self._restore(new, warm, assignment.member))
            self._restoring.add_done_callback(lambda _: self._wake.set())
        self.standbys.follow({TopicPartition(*place) for place in self.cluster.assignor.standbys} - assigned)

    async def _restored(self) -> None:
        """Raises what went wrong in restoring, once that is over; WriterFailed where trying again may help."""
        if self._restoring is not None and self._restoring.done():
            task, self._restoring = self._restoring, None
            try:
                await task
            except KafkaError as error:
                raise WriterFailed(f"restoring: {type(error).__name__}: {error}") from error

    async def _end_restoring(self) -> None:
        if self._restoring is not None:
            task, self._restoring = self._restoring, None
            task.cancel()
            await asyncio.wait({task})

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self.state.drop({partition_name(tp) for tp in partitions})
        self._moved.difference_update(partitions)
        for tp in partitions:
            self.held.pop(tp, None)

    async def _leave(self, lost: frozenset[TopicPartition]) -> None:
        """Writes all rows of these partitions and releases their claims, in one transaction with all else that is due."""
        await self._commit(lost)
        await self._settled()
        async with self._busy:
            self._forget(lost)
        log.info("released", extra={"partitions": sorted(map(partition_name, lost))})

    async def _apply(self, tp: TopicPartition, log_tp: TopicPartition, records: Records) -> None:
        where = f"changelog {partition_name(log_tp)}"
        await self._alone(lambda: self.state.apply(partition_name(tp), records, where))
        self.metrics.restored(len(records))

    async def _restore(
        self, new: Sequence[TopicPartition], warm: Mapping[TopicPartition, int], member: Membership
    ) -> None:
        """Claims the partitions, reads their changelogs to the end, and lets them run from where their replays begin.

        warm: those whose changelogs were read up to there already.
        """
        began = self.clock()
        offsets = await self._claim(new, member)
        if not offsets:
            return
        self.phase("claimed")
        logs = {self.cluster.log_of(tp): tp for tp in offsets}
        for tp in offsets:
            if tp not in warm:
                self.state.follow(partition_name(tp))
        rows = 0
        async for records, ends in self.reader.to_the_end({log_tp: warm.get(tp) for log_tp, tp in logs.items()}):
            for log_tp, some in records.items():
                rows += len(some)
                await self._apply(logs[log_tp], log_tp, some)
            for log_tp, tp in logs.items():
                self.metrics.restoring((tp.topic, tp.partition), self.reader.positions[log_tp], ends[log_tp])
            self.phase("restoring")
        read_s = self.clock() - began
        for tp in offsets:
            await self._warm_again(tp)
            await self._run_from_here(self.held[tp], f"changelog {partition_name(self.cluster.log_of(tp))}")
        log.info("restored", extra={
            "partitions": sorted(map(partition_name, offsets)), "rows": rows, "streams": self.batch.ledger.live,
            "seconds": round(read_s, 3), "warm": len(warm),
        })  # fmt: skip

    async def _warm_again(self, tp: TopicPartition) -> None:
        """Makes rows of this model in place of those of one with other states, where there are any."""
        name, cold = partition_name(tp), self.state.cold(partition_name(tp))
        if cold:
            rows = await self.rewarming.rows(tp, cold)
            await self._alone(
                lambda: self.state.warmed(name, rows, f"changelog {partition_name(self.cluster.log_of(tp))}")
            )

    async def _run_from_here(self, part: Part, where: str) -> None:
        tp, name = part.tp, partition_name(part.tp)
        marker = self.state.held[name].marker
        part.claim.check(marker and marker.next_offset, where, name, self.cluster.group_id)
        async with self._busy:
            begin = self.state.start(name, part.committed, self.clock(), where)
        first = (await self.consumer.beginning_offsets([tp]))[tp]
        if begin < first:
            raise ConnectorError(
                f"[source] {name}: records from {begin} on have to be read again and there are none below {first}; retention deleted them before "
                "their streams were stored. To begin all streams of the topic anew, delete its changelog topic and set the group's offset "
                f"to {first} or above (kafka-consumer-groups.sh --reset-offsets)"
            )
        if self.source.stop_at_end:
            part.end = (await self.consumer.end_offsets([tp]))[tp]
        part.replay_to, part.running = (part.committed if part.committed > begin else 0), True
        if not part.replay_to:
            self.state.caught_up(name)
        drained = self._polling is not None and self._polling.done()  # else that poll has taken nothing yet
        part.after_poll = self._polls if drained else self._polls - 1
        self.consumer.seek(tp, begin)
        self.consumer.resume(tp)

    async def _claim(self, new: Sequence[TopicPartition], member: Membership) -> dict[TopicPartition, int]:
        """Shuts out who had the partitions and claims them as the member that they were assigned to; where each goes on.

        Nothing where the group has another generation by now.
        """
        client, group = self.cluster.client, self.cluster.group_id
        for owner in self._owners(await self._released(new)) - {self.writer.id}:
            await shut_out(client, owner, TRANSACTION_S)
            log.info("fenced", extra={"owner": owner})
        found = await committed(client, group, new, stable=True)
        await self.cluster.with_changelogs({tp.topic for tp in new})
        offsets = await self.cluster.begins(self.consumer, {tp: c.offset for tp, c in found.items()})
        claims = {tp: c.claimed_by(self.writer.id) for tp, c in found.items()}
        refused = await claim(client, member, {tp: OffsetAndMetadata(offsets[tp], claims[tp].text()) for tp in new})
        if refused:  # another generation has begun, and its assignment will come
            log.info("claim refused", extra={"reason": refused})
            return {}
        for tp in new:
            self.held[tp] = Part(tp, claims[tp], offsets[tp], began=self.clock())
        return offsets

    async def _released(self, new: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The committed offsets, once owners that are alive in this generation have let go, or had time enough."""
        deadline = self.clock() + RELEASE_S
        while True:
            found = await committed(self.cluster.client, self.cluster.group_id, new, stable=False)
            if self.clock() >= deadline or not any(map(self.cluster.alive, self._owners(found))):
                return found
            await asyncio.sleep(0.02)

    @staticmethod
    def _owners(found: Mapping[TopicPartition, Committed]) -> set[str]:
        return {c.standing.owner for c in found.values() if c.standing.owner}

    # ---------------------------------------------------------------------------------------------- beginning and end

    async def _open(self) -> None:
        await self.cluster.open()
        await self.parts.outputs.open()
        with failing(self.cluster.where):
            await self.writer.start()
        self._consumer = self.cluster.consumer()
        await clients.start(self.consumer, self.cluster.settings)
        await self.reader.open()
        self.cluster.subscribe(self.consumer, _Listener(self))
        self._began = self._commit_at = self.clock()

    async def _begin_again(self, why: str) -> None:
        """Forgets all state and takes the assigned partitions over anew, from what was committed."""
        log.warning("begins again", extra={"reason": why})
        self.metrics.aborted()
        if "ProducerFenced" in why:
            self.metrics.fenced()
        if self._committing is not None:
            task, self._committing = self._committing, None
            task.cancel()
            await asyncio.wait({task})
        await self._end_restoring()
        assigned = self.consumer.assignment()
        self.consumer.pause(*assigned)
        async with self._busy:
            self._forget(list(self.held))
        if self.parts.dead is not None:
            self.parts.dead.clear()
        await self.writer.abandon()
        while self.stopped_by is None:
            try:
                await self.writer.start()
                break
            except KafkaError as error:
                log.warning("no transactions", extra={"reason": f"{type(error).__name__}: {error}"})
                await self.writer.abandon()
                await asyncio.sleep(RETRY_S)
        self._taken_up = False

    async def _hand_over(self) -> None:
        """Writes every row, commits, and releases all claims, so that a successor has nothing to replay."""
        await self._end_restoring()
        try:
            async with asyncio.timeout(self.delivery.stop_timeout_s):
                await self._leave(frozenset(self.held))
        except (WriterFailed, TimeoutError) as error:
            log.warning("not handed over", extra={"reason": f"{type(error).__name__}: {error}"})

    async def _at_the_end(self) -> bool:
        """All input that there was is committed, where the run is to stop there."""
        if not self.source.stop_at_end or not self._taken_up or self._restoring is not None or not self.held:
            return False
        for tp, part in self.held.items():
            if not part.running or tp not in self.consumer.assignment() or await self.consumer.position(tp) < part.end:
                return False
        return not self._polling_has_records()

    def _polling_has_records(self) -> bool:
        return self._polling is not None and self._polling.done() and bool(self._polling.result())

    async def _close(self) -> None:
        for task in (self._polling, self._restoring, self._committing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self.reader.close()
        await self.standbys.close()
        if self._consumer is not None:
            await clients.stop(self._consumer)
        await self.writer.abandon()
        await self.parts.outputs.close()
        await self.cluster.close()

    def _tell(self) -> None:
        """Figures for whoever looks, now and then."""
        if self.told is not None:
            self.told(self.summary)
        now = self.clock()
        if now < self._observe_at:
            return
        self._observe_at = now + EVERY_S
        self._observed.take(self.summary())
        waiting = self._waiting()
        self.health.state(
            "restoring" if waiting or not self.consumer.assignment() else "running",
            {"waiting for": waiting} if waiting else None,
        )
        self.metrics.state(self.batch.ledger.live, self.state.unwritten_since())
        self.metrics.lag(self._lags())

    def _lags(self) -> dict[tuple[str, int], int]:
        """Records of each partition that are not taken yet."""
        assigned = self.consumer.assignment()
        ends = {tp: self.consumer.highwater(tp) for tp, part in self.held.items() if part.running and tp in assigned}
        taken = self.batch.positions.next
        return {
            (tp.topic, tp.partition): max(0, end - taken[partition_name(tp)])
            for tp, end in ends.items()
            if end is not None
        }

    def summary(self) -> Summary:
        now, lags = self.clock(), self._lags() if self._consumer is not None else {}
        lag = sum(lags.values()) if lags else None
        return self.batch.summary(
            now - self._began, self.commits, self.state.sweeps, now - self._commit_at, self.stopped_by, lag
        )


class _Listener(ConsumerRebalanceListener):
    """Nothing is done when partitions are revoked: they are this process's until it releases its claim."""

    def __init__(self, processor: KafkaProcessor):
        self._processor = processor

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        pass

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._processor.assigned(assigned)
