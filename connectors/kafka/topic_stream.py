"""One stream's records of an input topic, for a second look: read outside of the group, and nothing is written."""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiokafka import ConsumerRecord, TopicPartition

from ...engine.errors import CheckpointError
from ..config import PlacedPipeline
from ..one_stream import OneStream, Request, Stretch, narrowed
from .changelog import ChangelogReader
from .cluster import Cluster, named_partition, place_of
from .config import KafkaSinkConfig
from .input_reader import InputReader
from .intake import Intake, partition_name
from .offsets import committed
from .output_records import SOURCE, STEP, partitioner
from .rows import MARKER, Marker, stream_key, unseal
from .state import State

Written = dict[tuple[str, int], list[bytes]]


class TopicStream:
    """watched: other streams' times take part."""

    def __init__(self, placed: PlacedPipeline, request: Request, intake: Intake, watched: bool):
        self.request, self.intake, self.watched = request, intake, watched
        self.cluster = Cluster(placed.pipeline, placed.folder, uuid.uuid4().hex[:12], intake.engine.row_bytes)
        self.sink = placed.pipeline.sink

    async def step(self, streams: list[OneStream], compare: bool) -> tuple[Stretch, Written]:
        """Gives each its records; what was read, and what the output topic has of that. Raises ConnectorError, CheckpointError."""
        try:
            await self.cluster.connect()
            partitions, changelogs = await self.cluster.look()
            named = self.request.partition
            tp = place_of(partitions, named_partition(named) if named else None, self.request.key)
            async with InputReader(self.cluster.input_reader) as reader:
                begin = await self._begin(tp, streams, changelogs)
                first, last = await reader.bounds(tp)
                end = await self._end(tp, last, compare)
                stretch = Stretch(partition_name(tp), max(begin, first), end, begin < first)
                for stream in streams:
                    stream.begin_at(partition_name(tp), stretch.begin)
                async for records in reader.between(tp, stretch.begin, stretch.end):
                    self._give(tp, records, streams)
            return stretch, await self._written(stretch) if compare else {}
        finally:
            await self.cluster.close()

    def _give(self, tp: TopicPartition, records: list[ConsumerRecord], streams: list[OneStream]) -> None:
        if not self.watched:
            records = [r for r in records if (r.key or b"") == self.request.key]
        columns = self.intake.columns({tp: records})
        mine = np.fromiter(((r.key or b"") == self.request.key for r in records), np.bool_, len(records))
        only, own = narrowed(columns, mine, self.watched)
        for stream in streams:
            stream.take(only, own)

    async def _begin(self, tp: TopicPartition, streams: list[OneStream], changelogs: set[str]) -> int:
        name, begin = partition_name(tp), self.request.begin
        if self.request.snapshot is not None:
            for stream in streams:
                stream.begin_with(name, self.request.key, self.request.snapshot)
        if begin == "start":
            return 0
        if begin != "changelog":
            return int(begin)
        log_tp = self.cluster.log_of(tp)
        where = f"changelog {partition_name(log_tp)}"
        held = await self._stored(log_tp) if log_tp.topic in changelogs else {}
        if MARKER not in held or stream_key(self.request.key) not in held:
            raise CheckpointError(
                f"{where}: nothing is stored of stream {self.request.key!r}; step it --from start, or an offset"
            )
        marker = unseal(held[MARKER], Marker, f"{where}: the marker")
        for stream in streams:
            state = State(stream.batch)
            state.follow(name)
            state.apply(name, list(held.items()), where)
            state.start(name, marker.next_offset, 0.0, where)
        return marker.replay_from

    async def _stored(self, log_tp: TopicPartition) -> dict[bytes, bytes]:
        """The stream's row and the marker, sealed."""
        reader, found = ChangelogReader(self.cluster.reader), dict[bytes, bytes | None]()
        wanted = {MARKER, stream_key(self.request.key)}
        try:
            async for records in reader.what_is_there([log_tp]):
                found |= {key: value for some in records.values() for key, value in some if key in wanted}
        finally:
            await reader.close()
        return {key: value for key, value in found.items() if value is not None}

    async def _end(self, tp: TopicPartition, last: int, compare: bool) -> int:
        """Where records are that were answered, for a comparison with the answers; else the topic's end; or before that, as asked for."""
        if compare:
            at = (await committed(self.cluster.client, self.cluster.group_id, [tp], stable=False))[tp].offset
            last = min(last, at or 0)
        return last if self.request.end is None else min(last, self.request.end)

    async def _written(self, stretch: Stretch) -> Written:
        """What the output topic holds of the stream, by source and step, of the records that were read."""
        assert isinstance(self.sink, KafkaSinkConfig), "a comparison is with a topic"
        topic, found = self.sink.topic, Written()
        async with InputReader(self.cluster.reader) as reader:
            number = partitioner(await self.cluster.count(topic))(self.request.key)
            out = TopicPartition(topic, number)
            async for records in reader.between(out, *await reader.bounds(out)):
                for record in records:
                    if record.key == self.request.key:
                        self._note(found, stretch, record)
        return found

    @staticmethod
    def _note(found: Written, stretch: Stretch, record: ConsumerRecord) -> None:
        headers: Mapping[str, Any] = dict(record.headers)
        source, step = headers.get(SOURCE), headers.get(STEP)
        if source is None or step is None:
            return
        partition, _, offset = source.decode().rpartition("/")
        if partition == stretch.partition and stretch.begin <= int(offset) < stretch.end:
            found.setdefault((source.decode(), int(step)), []).append(record.value or b"")
