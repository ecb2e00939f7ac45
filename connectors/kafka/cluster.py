"""The cluster as one pipeline uses it: clients with its settings, its topics, and what is known of them."""

import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.producer.message_accumulator import BatchBuilder

from ...engine.errors import ConfigError, ConnectorError
from ..config import Pipeline
from ..times import parse_time_ns
from . import clients
from .assignor import StickyAssignor
from .config import KafkaSinkConfig, KafkaSourceConfig
from .failures import told
from .intake import partition_name
from .output_records import partitioner
from .security import kafka_settings
from .state import Changes
from .topics import (
    changelog_topic,
    check_input,
    ensure_changelog,
    find_changelog,
    largest_message,
    matching_topics,
    partition_counts,
)

ROW_OVERHEAD_BYTES = 4096  # of a changelog row beside its state: key, times of waiting frames, seal
TRANSACTION_S = 60.0


class Cluster:
    """Made without connecting. worker: unique to this process. Raises ConfigError."""

    def __init__(self, pipeline: Pipeline, base: Path, worker: str, row_bytes: int):
        assert isinstance(pipeline.source, KafkaSourceConfig)
        self.pipeline, self.source, self.worker = pipeline, pipeline.source, worker
        self.group_id = self.source.group_id or pipeline.name
        self.settings = kafka_settings(self.source, base)
        self.where = f"Kafka at {self.source.bootstrap_servers}"
        self.assignor = StickyAssignor(worker, pipeline.store.standbys)
        self._row_bytes = row_bytes + ROW_OVERHEAD_BYTES
        self._partitions: dict[str, int] = {}
        self._message_bytes: dict[str, int] = {}
        self._client: AIOKafkaClient | None = None

    # ---------------------------------------------------------------------------------------------- clients

    @property
    def client(self) -> AIOKafkaClient:
        assert self._client is not None, "used before open"
        return self._client

    def consumer(self) -> AIOKafkaConsumer:
        return clients.consumer(self.source, self.settings, self.group_id, [self.assignor])

    def reader(self) -> AIOKafkaConsumer:
        return clients.reader(self.source, self.settings)

    def input_reader(self) -> AIOKafkaConsumer:
        """Reads of the input what the pipeline reads of it."""
        return clients.reader(self.source, self.settings, self.source.read)

    def producer(self, transactional_id: str | None) -> AIOKafkaProducer:
        """Whose batches every topic takes that this pipeline writes to."""
        sink, most = self.pipeline.sink, sum(self._partitions.values())
        wanted, compression = (
            (sink.max_batch_bytes, sink.compression) if isinstance(sink, KafkaSinkConfig) else (2**20, "none")
        )
        size = clients.batch_bytes(wanted, min(self._message_bytes.values(), default=2**20), most)
        return clients.producer(self.settings, compression, max(size, self._row_bytes), transactional_id, TRANSACTION_S)

    # ---------------------------------------------------------------------------------------------- topics

    async def open(self) -> None:
        """Connects, looks whether input and output topics are there and fit, and makes changelogs. Raises ConnectorError."""
        async with self.admin() as admin:
            await self.check_written(admin)
            topics = await self.inputs(admin)
            if self.source.topics:
                await self._changelogs(admin, topics)
        await self.connect()

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Raises ConnectorError."""
        admin = clients.admin(self.settings)
        await clients.start(admin, self.settings)
        try:
            yield admin
        finally:
            await clients.stop(admin)

    async def connect(self) -> None:
        """Makes `client`. Raises ConnectorError."""
        self._client = AIOKafkaClient(**self.settings)
        with told(self.where):
            await self._client.bootstrap()

    async def check_written(self, admin: AIOKafkaAdminClient) -> None:
        """Looks whether the topics that are written to are there. Raises ConnectorError."""
        written = self.written()
        await self._know(admin, written)
        for topic in written:
            self._message_bytes[topic] = await largest_message(admin, self.where, topic)

    async def inputs(self, admin: AIOKafkaAdminClient) -> list[str]:
        """The input topics that there are now. Raises ConnectorError where one that is named is not there, or none matches."""
        if self.source.topics:
            await self._know(admin, self.source.topics)
            return list(self.source.topics)
        pattern = self.source.topic_pattern or ""
        return await matching_topics(admin, self.where, pattern, self.pipeline.name, self.written())

    async def look(self) -> tuple[list[TopicPartition], set[str]]:
        """All partitions of the input, and which changelogs of it there are; makes nothing. Raises ConnectorError."""
        async with self.admin() as admin:
            topics = await self.inputs(admin)
            counts = await partition_counts(admin, self.where, topics)
            with told(f"{self.where}: topics"):
                present = set(await admin.list_topics())
        partitions = [TopicPartition(topic, p) for topic in topics for p in range(counts[topic])]
        return partitions, {self.changelog(topic) for topic in topics} & present

    async def count(self, topic: str) -> int:
        """How many partitions a topic has. Raises ConnectorError."""
        async with self.admin() as admin:
            return (await partition_counts(admin, self.where, [topic]))[topic]

    async def no_members(self) -> None:
        """Raises ConnectorError where somebody runs the pipeline."""
        async with self.admin() as admin:
            with told(f"{self.where}: group '{self.group_id}'"):
                answers: list[Any] = await admin.describe_consumer_groups([self.group_id])
        members = sum(len(group[5]) for answer in answers for group in answer.groups)
        if members:
            raise ConnectorError(
                f"{self.where}: group '{self.group_id}' has {members} members: the pipeline runs, and would not see the change; end it first "
                f"(one that was killed, or has a group_instance_id, leaves after its session timeout, {self.source.session_timeout_s:g} s)"
            )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def written(self) -> list[str]:
        """Topics that outputs and dead letters go to."""
        sink, dead = self.pipeline.sink, self.pipeline.dead_letters
        return [
            *([sink.topic] if isinstance(sink, KafkaSinkConfig) else []),
            *([dead.topic] if dead and dead.topic else []),
        ]

    def partitions(self, topic: str) -> int:
        return self._partitions[topic]

    def message_bytes(self, topic: str) -> int | None:
        """The most that the topic takes of a record, where that can be known before compression."""
        sink = self.pipeline.sink
        return self._message_bytes[topic] if isinstance(sink, KafkaSinkConfig) and sink.compression == "none" else None

    def changelog(self, topic: str) -> str:
        return changelog_topic(self.pipeline.name, topic)

    def log_of(self, tp: TopicPartition) -> TopicPartition:
        """The changelog partition of an input partition."""
        return TopicPartition(self.changelog(tp.topic), tp.partition)

    async def with_changelogs(self, topics: Iterable[str]) -> None:
        """Makes or checks the changelogs of input topics that are new to this process. Raises ConnectorError."""
        new = [topic for topic in topics if self.changelog(topic) not in self._partitions]
        if new:
            async with self.admin() as admin:
                await self._changelogs(admin, new)

    async def has_changelog(self, admin: AIOKafkaAdminClient, topic: str) -> bool:
        """Checks an input topic, and its changelog where there is one; whether there is. Raises ConnectorError."""
        await self.check_input(admin, [topic])
        return await find_changelog(admin, self.where, self.changelog(topic), self._partitions[topic], self._row_bytes)

    async def check_input(self, admin: AIOKafkaAdminClient, topics: Collection[str]) -> None:
        """Raises ConnectorError where topics are not there, or might be gone when they have to be read again."""
        await self._know(admin, topics)
        await check_input(admin, self.where, list(topics), self.pipeline.delivery.checkpoint_interval_s)

    async def _changelogs(self, admin: AIOKafkaAdminClient, topics: Collection[str]) -> None:
        await self.check_input(admin, topics)
        replicas = self.pipeline.store.replication_factor
        for topic in topics:
            name, partitions = self.changelog(topic), self._partitions[topic]
            await ensure_changelog(admin, self.where, name, partitions, replicas, self._row_bytes)
            self._partitions[name] = partitions
            self._message_bytes[name] = await largest_message(admin, self.where, name)

    async def _know(self, admin: AIOKafkaAdminClient, topics: Iterable[str]) -> None:
        self._partitions |= await partition_counts(admin, self.where, list(topics))

    # ---------------------------------------------------------------------------------------------- the group

    def subscribe(self, consumer: AIOKafkaConsumer, listener: Any) -> None:
        if self.source.topics:
            consumer.subscribe(list(self.source.topics), listener=listener)
        else:  # whole names, and none that this pipeline writes itself
            own = "|".join(re.escape(t) for t in self.written())
            not_own = f"(?!__)(?!{re.escape(self.pipeline.name)}-.*-changelog$)" + (f"(?!(?:{own})$)" if own else "")
            consumer.subscribe(pattern=f"^{not_own}(?:{self.source.topic_pattern})$", listener=listener)

    def alive(self, transactional_id: str) -> bool:
        """The id is of another worker that takes part in this generation."""
        return any(f"-{worker}-" in transactional_id for worker in self.assignor.live if worker != self.worker)

    async def begins(
        self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int | None]
    ) -> dict[TopicPartition, int]:
        """The offset of each partition, where the group has none the one that `start` says. Raises ConnectorError."""
        new = [tp for tp, offset in offsets.items() if offset is None]
        with told(f"{self.where}: [source] start"):
            found = await self._starts(consumer, new) if new else {}
        return {tp: found[tp] if offset is None else offset for tp, offset in offsets.items()}

    async def _starts(self, consumer: AIOKafkaConsumer, new: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.source.start == "earliest":
            return await consumer.beginning_offsets(new)
        ends = await consumer.end_offsets(new)
        if self.source.start == "latest":
            return ends
        at_ms = parse_time_ns(self.source.start) // 1_000_000
        found = await consumer.offsets_for_times(dict.fromkeys(new, at_ms))
        return {tp: ends[tp] if place is None else place.offset for tp, place in found.items()}


def place_of(partitions: list[TopicPartition], wanted: TopicPartition | None, key: bytes) -> TopicPartition:
    """The one that is wanted, of all partitions of the input; of None that which Kafka's own clients choose for the key. Raises ConfigError."""
    topics = sorted({tp.topic for tp in partitions})
    if wanted is None and len(topics) > 1:
        raise ConfigError(
            f"the pipeline reads {len(topics)} topics ({', '.join(topics)}); say with --partition where the stream is"
        )
    if wanted is None:
        return TopicPartition(topics[0], partitioner(len(partitions))(key))
    if wanted not in partitions:
        raise ConfigError(
            f"--partition {partition_name(wanted)}: the pipeline reads {', '.join(map(partition_name, partitions))}"
        )
    return wanted


def named_partition(name: str) -> TopicPartition:
    """Of `topic/0`. Raises ConfigError."""
    topic, _, number = name.rpartition("/")
    if not topic or not number.isdigit():
        raise ConfigError(f"--partition {name!r}: expected a topic and a number, as in 'frames/0'")
    return TopicPartition(topic, int(number))


def change_batches(create_batch: Any, changes: Changes, topic: str) -> list[BatchBuilder]:
    """Changelog records as prepared batches. Raises ConnectorError where one is larger than a batch may be."""
    batches: list[BatchBuilder] = []
    for key, value in changes:
        if not batches or batches[-1].append(timestamp=None, key=key, value=value) is None:
            batches.append(create_batch())
            if batches[-1].append(timestamp=None, key=key, value=value) is None:
                raise ConnectorError(
                    f"changelog '{topic}': the row of stream {key[1:]!r} has {len(value or b'')} bytes, more than a batch holds; "
                    "raise the topic's max.message.bytes"
                )
    return batches


def check_guarantee(pipeline: Pipeline) -> None:
    """Raises ConfigError where outputs cannot be in one transaction with the offsets."""
    sink, source = pipeline.sink, pipeline.source
    if pipeline.delivery.guarantee == "at-least-once":
        return
    assert isinstance(source, KafkaSourceConfig)
    if not isinstance(sink, KafkaSinkConfig):
        raise ConfigError(
            f'[delivery] guarantee = "exactly-once" from Kafka is possible to Kafka alone, [sink] type is {sink.__struct_config__.tag!r}; '
            'set guarantee = "at-least-once"'
        )
    if sink.bootstrap_servers != source.bootstrap_servers:
        raise ConfigError(
            f'[delivery] guarantee = "exactly-once": a transaction is of one cluster, and [sink] bootstrap_servers is {sink.bootstrap_servers!r}, '
            f'[source] {source.bootstrap_servers!r}; write them alike if they are one, else set guarantee = "at-least-once"'
        )
