"""Topics as the tests make, read and damage them, and what a group has of them: its offsets and its members."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

READ_S, ASK_S = 30, 30
T = TypeVar("T")


async def asked(bootstrap: str, question: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """The answer of the admin client; asked again for ASK_S while a broker that it takes is away."""
    deadline = time.monotonic() + ASK_S
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=4000)
        try:
            await admin.start()
            return await question(admin)
        except (KafkaError, TimeoutError) as error:
            if not getattr(error, "retriable", True) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        finally:
            await admin.close()


async def create_topic(bootstrap: str, name: str, partitions: int = 1, **config: str) -> None:
    """Creates it with the broker's replication; config: as min_cleanable_dirty_ratio="0.01", with dots for underscores."""

    async def create(admin: AIOKafkaAdminClient) -> None:
        # aiokafka takes -1, the broker's own replication, only beside an assignment that is given
        topic = NewTopic(name, partitions, -1, replica_assignments={}, topic_configs=_dotted(config))
        errors = (await admin.create_topics([topic])).topic_errors
        bad = [e for e in errors if e[1] not in (0, TopicAlreadyExistsError.errno)]  # a question asked again
        if bad:
            raise RuntimeError(f"topic {name!r} was not created: {bad}")
        while not await _led(admin, name, partitions):
            await asyncio.sleep(0.02)

    await asked(bootstrap, create)


async def _led(admin: AIOKafkaAdminClient, name: str, partitions: int) -> bool:
    """Whether each partition has a leader, so that clients find it."""
    (topic,) = await admin.describe_topics([name])
    return len(topic["partitions"]) == partitions and all(p["leader"] >= 0 for p in topic["partitions"])


def _dotted(config: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in config.items()}


async def alter_topic(bootstrap: str, name: str, **config: str) -> None:
    """Sets the topic's settings to these."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name, _dotted(config))
    await asked(bootstrap, lambda admin: admin.alter_configs([resource]))


async def delete_records(bootstrap: str, before: dict[TopicPartition, int]) -> None:
    """What retention does: records below these offsets are gone."""
    records = {tp: RecordsToDelete(before_offset=offset) for tp, offset in before.items()}
    await asked(bootstrap, lambda admin: admin.delete_records(records))


async def write(bootstrap: str, record: ConsumerRecord, value: bytes | None, commit: bool | None = None) -> None:
    """Adds a record of the same key, without headers, at its partition's end; commit: in a transaction that is committed or aborted."""
    options = {} if commit is None else {"transactional_id": f"other-{record.topic}"}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    await producer.start()
    try:
        if commit is not None:
            await producer.begin_transaction()
        await producer.send_and_wait(record.topic, value, record.key, record.partition)
        if commit is not None:
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def read_topic(bootstrap: str, *topics: str, committed: bool = True) -> list[ConsumerRecord]:
    """Every record there is now, each partition's in order. committed: without those of aborted transactions.

    Raises TimeoutError where a transaction that stays open hides the end.
    """
    partitions = await partitions_of(bootstrap, *topics)
    ends = await end_offsets(bootstrap, partitions)
    consumer = reader(bootstrap, committed)
    await consumer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        return await _until(consumer, ends)
    finally:
        await consumer.stop()


def reader(bootstrap: str, committed: bool = True) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed" if committed else "read_uncommitted",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )


async def partitions_of(bootstrap: str, *topics: str) -> list[TopicPartition]:
    found = await asked(bootstrap, lambda admin: admin.describe_topics(list(topics)))
    return [TopicPartition(t["topic"], p) for t in found for p in range(len(t["partitions"]))]


async def end_offsets(bootstrap: str, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The end of each log whatever its transactions: what a read_committed reader reaches once none is open."""
    consumer = reader(bootstrap, committed=False)
    await consumer.start()
    try:
        return await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()


async def _until(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> list[ConsumerRecord]:
    found, deadline = [], time.monotonic() + READ_S
    while behind := {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}:
        for records in (await consumer.getmany(*behind, timeout_ms=100)).values():
            found += records
        if time.monotonic() > deadline:
            raise TimeoutError(f"not read to the end within {READ_S} s (a transaction is still open?): {behind}")
    return found


async def committed(bootstrap: str, group: str, topic: str) -> dict[TopicPartition, tuple[int, str]]:
    """The group's offsets of the topic's partitions and the text beside each, of those that have one."""
    found = await asked(bootstrap, lambda admin: admin.list_consumer_group_offsets(group))
    return {tp: (o.offset, o.metadata) for tp, o in found.items() if tp.topic == topic and o.offset >= 0}


async def members(bootstrap: str, group: str) -> list[int]:
    """How many partitions each member of the group has; nothing while the group is being rearranged."""
    (answer,) = await asked(bootstrap, lambda admin: admin.describe_consumer_groups([group]))
    ((_, _, state, _, _, found, *_),) = answer.groups
    if state != "Stable":
        return []
    assignments = [ConsumerProtocolMemberAssignment.decode(member[-1]) for member in found]
    return [sum(len(partitions) for _, partitions in one.assignment) for one in assignments]
