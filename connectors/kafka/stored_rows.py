"""The rows of changelog topics, for whoever looks at them while the pipeline runs or not, and changes them while it does not.

Looking creates nothing, joins no group, and waits for transactions no longer than they take to be ended: what is committed is seen. A change takes the partition
over as a worker does (see `offsets`): it shuts out the last owner, claims, reads, and writes the row together with the
offset, which releases the claim. The claim is a plain offset commit of no member, which the coordinator takes only of a
group without members; a worker that starts after it shuts the change out. So a change is seen whole by every later
worker, or it is refused.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from msgspec.structs import replace

from ...engine import Engine, Key
from ...engine.errors import CheckpointError, ConfigError, ConnectorError
from ..config import PlacedPipeline
from ..output_lines import stream_text
from ..stored import StoredPlace, StoredRow, StoredStreams, Wanted, kept_of
from ..streams import Kept
from . import clients
from .changelog import ChangelogReader, Records
from .cluster import TRANSACTION_S, Cluster, change_batches
from .coordinators import shut_out
from .failures import told
from .intake import partition_name
from .offsets import Claim, Committed, committed
from .output_records import key_bytes, partitioner
from .rows import MARKER, Marker, Row, seal, stream_key, unseal
from .state import Changes
from .writer import Writer, WriterFailed

STUCK_S = 60.0
SETTLE_S = 2.0  # that transactions which are being ended are waited for


@dataclass(slots=True)
class _Log:
    """A changelog partition as it was read, up to `end`. rows: of live streams; marker: None where there is none."""

    marker: Marker | None = None
    end: int = 0
    rows: dict[bytes, StoredRow] = field(default_factory=dict)


class ChangelogStates:
    """Those of a pipeline from Kafka. engine: of its model."""

    def __init__(self, placed: PlacedPipeline, engine: Engine):
        self.engine = engine
        self.cluster = Cluster(placed.pipeline, placed.folder, uuid.uuid4().hex[:12], engine.row_bytes)

    def read(self, wanted: Wanted, snapshots: bool = False) -> StoredStreams:
        return clients.run(self._read(wanted, snapshots))

    def delete(self, row: StoredRow) -> None:
        def gone(log: _Log, offset: int) -> Row:
            if row.key not in log.rows:
                raise CheckpointError(f"stream {row.key!r}: nothing is stored of it any more in {row.partition}")
            return Row(offset, self.engine.layout)

        clients.run(self._change(self._tp(row.partition), key_bytes(row.key), gone))

    def put(self, key: Key, snapshot: bytes, partition: str | None, replace: bool) -> StoredRow:
        name = key_bytes(key)
        self.engine.restore(name, snapshot)
        state, collected = self.engine.read_rows([name])[0].tobytes(), self.engine.collected(name)
        kept = kept_of(self.engine.spec, self.engine.frames(name))
        self.engine.drop(name)

        def new(log: _Log, offset: int) -> Row:
            if name in log.rows and not replace:
                raise CheckpointError(
                    f"stream {name!r} is stored already, after {log.rows[name].kept.frames} frames; to put the snapshot in its place, say --replace"
                )
            return Row(offset, self.engine.layout, kept, state, collected)

        where, offset = clients.run(self._change(self._tp(partition), name, new))
        return StoredRow(partition_name(where), name, offset, kept, len(state), True, snapshot)

    def _tp(self, partition: str | None) -> TopicPartition | None:
        if partition is None:
            return None
        topic, _, number = partition.rpartition("/")
        if not topic or not number.isdigit():
            raise ConfigError(f"--partition {partition!r}: expected a topic and a number, as in 'frames/0'")
        return TopicPartition(topic, int(number))

    # ---------------------------------------------------------------------------------------------- looking

    async def _read(self, wanted: Wanted, snapshots: bool) -> StoredStreams:
        try:
            await self.cluster.connect()
            partitions, changelogs = await self.cluster.look()
            found = await self._committed(partitions)
            logs = {self._log(tp): tp for tp in partitions if self.cluster.changelog(tp.topic) in changelogs}
            held = {tp: _Log() for tp in partitions}
            reader = ChangelogReader(self.cluster.reader)
            try:
                async for records in settled(reader, logs):
                    for log_tp, some in records.items():
                        self._take(held[logs[log_tp]], logs[log_tp], some, wanted, snapshots)
            finally:
                await reader.close()
        finally:
            await self.cluster.close()
        rows = [row for log in held.values() for row in log.rows.values()]
        places = {partition_name(tp): _place(tp, found[tp], log.marker) for tp, log in held.items()}
        rows.sort(key=lambda row: (row.partition, stream_text(row.key)))
        return StoredStreams(places, rows, self.engine.fingerprint)

    async def _committed(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Committed]:
        client, group = self.cluster.client, self.cluster.group_id
        with suppress(TimeoutError):
            return await asyncio.wait_for(committed(client, group, partitions, stable=True), SETTLE_S)
        return await committed(client, group, partitions, stable=False)

    def _take(self, log: _Log, tp: TopicPartition, records: Records, wanted: Wanted, snapshots: bool) -> None:
        name, where = partition_name(tp), f"changelog {partition_name(self._log(tp))}"
        for key, value in dict(records).items():
            if key == MARKER:
                log.marker = None if value is None else unseal(value, Marker, f"{where}: the marker")
                continue
            stream = key[1:]
            log.rows.pop(stream, None)
            if value is not None and wanted(name, stream):
                row = unseal(value, Row, f"{where}: stream {stream!r}")
                if row.state is not None:
                    log.rows[stream] = self._stored(name, stream, row, snapshots)

    def _stored(self, partition: str, key: bytes, row: Row, snapshots: bool) -> StoredRow:
        fits, state = row.layout == self.engine.layout, row.state or b""
        blob = self._snapshot(key, row) if snapshots and fits else None
        size = len(state) + sum(map(len, row.collected))
        return StoredRow(partition, key, row.offset, row.kept or Kept(0), size, fits, blob)

    def _snapshot(self, key: bytes, row: Row) -> bytes:
        self.engine.write_rows([key], np.frombuffer(row.state or b"", np.uint8)[None])
        try:
            if row.collected:
                self.engine.put_collected(key, row.collected)
            return self.engine.snapshot(key)
        finally:
            self.engine.drop(key)

    def _log(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(self.cluster.changelog(tp.topic), tp.partition)

    # ---------------------------------------------------------------------------------------------- changing

    async def _change(
        self, tp: TopicPartition | None, key: bytes, row: Callable[[_Log, int], Row]
    ) -> tuple[TopicPartition, int]:
        """Writes the row that `row` makes of what is there and the committed offset; where, and that offset."""
        cluster = self.cluster
        writer = Writer(cluster.producer, cluster.pipeline.name, cluster.worker)
        consumer = clients.committer(cluster.settings, cluster.group_id)
        try:
            await cluster.open()
            tp = await self._known(tp, key)
            await cluster.no_members()
            await cluster.with_changelogs([tp.topic])
            with told(cluster.where):
                await writer.start()
            await clients.start(consumer, cluster.settings)
            consumer.assign([tp])
            return tp, await self._write(tp, key, row, writer, consumer)
        except WriterFailed as error:
            raise ConnectorError(
                f"group '{cluster.group_id}': a worker has taken {tp and partition_name(tp)} meanwhile, nothing was written ({error}); end the workers first"
            ) from error
        finally:
            await clients.stop(consumer)
            await writer.abandon()
            await cluster.close()

    async def _write(
        self, tp: TopicPartition, key: bytes, row: Callable[[_Log, int], Row], writer: Writer, consumer: Any
    ) -> int:
        found = (await committed(self.cluster.client, self.cluster.group_id, [tp], stable=False))[tp]
        if found.claim and found.claim.owner:
            await shut_out(self.cluster.client, found.claim.owner, TRANSACTION_S)
        found = (await committed(self.cluster.client, self.cluster.group_id, [tp], stable=True))[tp]
        offset, claim = (await self.cluster.begins(consumer, {tp: found.offset}))[tp], found.claimed_by(writer.id)
        await self._commit(consumer, tp, OffsetAndMetadata(offset, claim.text()))
        try:
            log = await self._whole(tp, key)
            claim.check(
                log.marker and log.marker.next_offset,
                f"changelog {partition_name(self._log(tp))}",
                partition_name(tp),
                self.cluster.group_id,
            )
            changed: Changes = [(stream_key(key), seal(row(log, offset)))]
        except BaseException:
            await self._commit(consumer, tp, OffsetAndMetadata(offset, replace(claim, owner=None).text()))
            raise
        if log.marker is None:
            engine = self.engine
            changed.append((MARKER, seal(Marker(offset, None, [], engine.fingerprint, engine.layout, offset))))
        topic = self.cluster.changelog(tp.topic)
        await writer.send(topic, {tp.partition: change_batches(writer.producer.create_batch, changed, topic)})
        await writer.ready({tp: OffsetAndMetadata(offset, Claim(marker=True).text())}, self.cluster.group_id)
        await writer.commit()
        await self._seen(tp, log.end)
        return offset

    async def _commit(self, consumer: Any, tp: TopicPartition, offset: OffsetAndMetadata) -> None:
        try:
            await consumer.commit({tp: offset})
        except KafkaError as error:
            raise ConnectorError(
                f"group '{self.cluster.group_id}': the claim of {partition_name(tp)} was refused ({type(error).__name__}), a worker has joined; "
                "end the workers first"
            ) from error

    async def _whole(self, tp: TopicPartition, key: bytes) -> _Log:
        """The marker, and the stream's row, once nobody else can write."""
        log, reader = _Log(), ChangelogReader(self.cluster.reader)
        try:
            async for records, _ in reader.to_the_end({self._log(tp): None}):
                for some in records.values():
                    self._take(log, tp, some, lambda _, stream: stream == key, snapshots=False)
            log.end = reader.positions[self._log(tp)]
        finally:
            await reader.close()
        return log

    async def _seen(self, tp: TopicPartition, begin: int) -> None:
        """What was written from `begin` on can be read by whoever looks now: a commit is told before its markers are written."""
        reader = ChangelogReader(self.cluster.reader)
        try:
            async for _ in reader.to_the_end({self._log(tp): begin}):
                pass
        finally:
            await reader.close()

    async def _known(self, tp: TopicPartition | None, key: bytes) -> TopicPartition:
        """The partition; where none is named, that which Kafka's own clients choose for the key. Raises ConfigError."""
        partitions, _ = await self.cluster.look()
        topics = sorted({p.topic for p in partitions})
        if tp is None and len(topics) > 1:
            raise ConfigError(
                f"the pipeline reads {len(topics)} topics ({', '.join(topics)}); say with --partition where the stream is"
            )
        if tp is None:
            tp = TopicPartition(topics[0], partitioner(len(partitions))(key))
        if tp not in partitions:
            raise ConfigError(
                f"--partition {partition_name(tp)}: the pipeline reads {', '.join(map(partition_name, partitions))}"
            )
        return tp


async def settled(
    reader: ChangelogReader, logs: dict[TopicPartition, Any]
) -> AsyncIterator[dict[TopicPartition, Records]]:
    """All that is there now; of transactions that stay open, what comes before them."""
    if not logs:
        return
    await reader.follow(dict.fromkeys(logs))
    ends, heard = await reader.ends(logs), time.monotonic()
    while any(reader.positions[tp] < end for tp, end in ends.items()):
        lags, quiet_s = reader.lags(), time.monotonic() - heard
        if quiet_s > SETTLE_S and len(lags) == len(logs) and not any(lags.values()):
            return
        if quiet_s > STUCK_S:
            raise ConnectorError(
                f"changelog: nothing came for {STUCK_S:g} s, still to be read: {lags}; are the brokers up?"
            )
        if records := await reader.poll():
            heard = time.monotonic()
            yield records


def _place(tp: TopicPartition, found: Committed, marker: Marker | None) -> StoredPlace:
    if marker is None:
        return StoredPlace(partition_name(tp), found.offset, None, None, None)
    return StoredPlace(partition_name(tp), found.offset, marker.replay_from, marker.watermark_ns, marker.fingerprint)
