"""The rows of changelog topics, for whoever looks at them while the pipeline runs or not, and changes them while it does not.

Looking creates nothing, joins no group, and waits for transactions no longer than they take to be ended: what is committed is seen. A change takes the partition
over as a worker does (see `offsets`): it shuts out the last owner, claims, reads, and writes the row together with the
offset, which releases the claim. The claim is a plain offset commit of no member, which the coordinator takes only of a
group without members; a worker that starts after it shuts the change out. So a change is seen whole by every later
worker, or it is refused.
"""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from msgspec.structs import replace

from ...engine import Engine, Key
from ...engine.errors import CheckpointError, ConnectorError
from ..config import PlacedPipeline
from ..output_lines import stream_text
from ..stored import StoredPlace, StoredRow, StoredStreams, Wanted, kept_of
from ..streams import Kept
from . import clients
from .changelog import SETTLE_S, ChangelogReader, Records
from .cluster import TRANSACTION_S, Cluster, change_batches, named_partition, place_of
from .coordinators import shut_out
from .failures import told
from .intake import partition_name
from .offsets import Claim, Committed, Membership, claim, committed
from .output_records import key_bytes
from .rows import MARKER, Marker, Row, seal, stream_key, unseal
from .state import Changes
from .writer import Writer, WriterFailed


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

        clients.run(self._change(named_partition(row.partition), key_bytes(row.key), gone))

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

        where, offset = clients.run(self._change(named_partition(partition) if partition else None, name, new))
        return StoredRow(partition_name(where), name, offset, kept, len(state), True, snapshot)

    # ---------------------------------------------------------------------------------------------- looking

    async def _read(self, wanted: Wanted, snapshots: bool) -> StoredStreams:
        try:
            await self.cluster.connect()
            partitions, changelogs = await self.cluster.look()
            found = await self._committed(partitions)
            logs = {self.cluster.log_of(tp): tp for tp in partitions if self.cluster.changelog(tp.topic) in changelogs}
            held = {tp: _Log() for tp in partitions}
            reader = ChangelogReader(self.cluster.reader)
            try:
                async for records in reader.what_is_there(logs):
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
        name, where = partition_name(tp), f"changelog {partition_name(self.cluster.log_of(tp))}"
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

    # ---------------------------------------------------------------------------------------------- changing

    async def _change(
        self, tp: TopicPartition | None, key: bytes, row: Callable[[_Log, int], Row]
    ) -> tuple[TopicPartition, int]:
        """Writes the row that `row` makes of what is there and the committed offset; where, and that offset."""
        cluster = self.cluster
        writer = Writer(cluster.producer, cluster.pipeline.name, cluster.worker)
        reader = cluster.reader()
        try:
            await cluster.open()
            tp = place_of((await cluster.look())[0], tp, key)
            await cluster.no_members()
            await cluster.with_changelogs([tp.topic])
            with told(cluster.where):
                await writer.start()
            await clients.start(reader, cluster.settings)
            return tp, await self._write(tp, key, row, writer, reader)
        except WriterFailed as error:
            raise ConnectorError(
                f"group '{cluster.group_id}': a worker has taken {tp and partition_name(tp)} meanwhile, nothing was written ({error}); end the workers first"
            ) from error
        finally:
            await clients.stop(reader)
            await writer.abandon()
            await cluster.close()

    async def _write(
        self, tp: TopicPartition, key: bytes, row: Callable[[_Log, int], Row], writer: Writer, reader: AIOKafkaConsumer
    ) -> int:
        found = (await committed(self.cluster.client, self.cluster.group_id, [tp], stable=False))[tp]
        if found.standing.owner:
            await shut_out(self.cluster.client, found.standing.owner, TRANSACTION_S)
        found = (await committed(self.cluster.client, self.cluster.group_id, [tp], stable=True))[tp]
        offset, own = (await self.cluster.begins(reader, {tp: found.offset}))[tp], found.claimed_by(writer.id)
        await self._claim(tp, OffsetAndMetadata(offset, own.text()))
        try:
            log = await self._whole(tp, key)
            own.check(
                log.marker and log.marker.next_offset,
                f"changelog {partition_name(self.cluster.log_of(tp))}",
                partition_name(tp),
                self.cluster.group_id,
            )
            changed: Changes = [(stream_key(key), seal(row(log, offset)))]
        except BaseException:
            await self._claim(tp, OffsetAndMetadata(offset, replace(own, owner=None).text()))
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

    async def _claim(self, tp: TopicPartition, offset: OffsetAndMetadata) -> None:
        """As nobody of the group, which the coordinator takes only while it has no members."""
        group = self.cluster.group_id
        if refused := await claim(self.cluster.client, Membership(group, -1, ""), {tp: offset}):
            raise ConnectorError(
                f"group '{group}': the claim of {partition_name(tp)} was refused ({refused}), a worker has joined; end the workers first"
            )

    async def _whole(self, tp: TopicPartition, key: bytes) -> _Log:
        """The marker, and the stream's row, once nobody else can write."""
        log, reader = _Log(), ChangelogReader(self.cluster.reader)
        try:
            async for records, _ in reader.to_the_end({self.cluster.log_of(tp): None}):
                for some in records.values():
                    self._take(log, tp, some, lambda _, stream: stream == key, snapshots=False)
            log.end = reader.positions[self.cluster.log_of(tp)]
        finally:
            await reader.close()
        return log

    async def _seen(self, tp: TopicPartition, begin: int) -> None:
        """What was written from `begin` on can be read by whoever looks now: a commit is told before its markers are written."""
        reader = ChangelogReader(self.cluster.reader)
        try:
            async for _ in reader.to_the_end({self.cluster.log_of(tp): begin}):
                pass
        finally:
            await reader.close()


def _place(tp: TopicPartition, found: Committed, marker: Marker | None) -> StoredPlace:
    if marker is None:
        return StoredPlace(partition_name(tp), found.offset, None, None, None)
    return StoredPlace(partition_name(tp), found.offset, marker.replay_from, marker.watermark_ns, marker.fingerprint)
