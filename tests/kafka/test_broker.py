"""What the tests stand on: the broker of the session or the mock cluster in its place."""

import asyncio
import os
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced

from .feeder import Fed, fed, feed, keys
from .topics import committed, create_topic, end_offsets, partitions_of, read_topic, reader
from .verifier import expected


def test_records_go_round(kafka: str) -> None:
    """What a producer wrote comes back whole, headers and all, on a real broker and on the mock cluster."""

    async def body() -> None:
        topic = f"round-{uuid4().hex}"
        producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
        await producer.start()
        try:
            await topic_there(kafka, topic)
            sent = [await producer.send_and_wait(topic, b"v", b"k", headers=[("undertow-seq", b"1")]) for _ in range(3)]
        finally:
            await producer.stop()
        consumer = reader(kafka)
        await consumer.start()
        try:
            consumer.assign([sent[0].topic_partition])
            records = [await consumer.getone() for _ in sent]
        finally:
            await consumer.stop()
        assert [(r.offset, r.key, r.value, r.headers) for r in records] == [
            (s.offset, b"k", b"v", (("undertow-seq", b"1"),)) for s in sent
        ]

    asyncio.run(body())


def test_group_keeps_offsets(kafka: str) -> None:
    """A group's committed offset is there for the next member, on a real broker and on the mock cluster."""

    async def body() -> None:
        topic = f"group-{uuid4().hex}"
        await topic_there(kafka, topic)
        options = {"bootstrap_servers": kafka, "group_id": topic, "enable_auto_commit": False}
        first, place = AIOKafkaConsumer(topic, **options), TopicPartition(topic, 0)
        await first.start()
        try:
            assert place in first.assignment()
            await first.commit({place: 7})
        finally:
            await first.stop()
        second = AIOKafkaConsumer(topic, **options)
        await second.start()
        try:
            assert await second.committed(place) == 7
        finally:
            await second.stop()

    asyncio.run(body())


async def topic_there(servers: str, topic: str) -> None:
    """Creates it; the mock cluster, which cannot, makes it when it is asked for."""
    if os.environ.get("KAFKA_HOME") or os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        await create_topic(servers, topic)
        return
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers)
    await consumer.start()
    await consumer.stop()


def test_feeder_and_reader(needs_broker: None, kafka: str) -> None:
    """The feeder's records are in the topic each once, streams in order; reading ends also behind an aborted transaction."""

    async def body() -> None:
        topic = f"fed-{uuid4().hex}"
        await create_topic(kafka, topic, partitions=3)
        records = list(fed(keys(7), 500, chunks=(1, 4), end_chance=0.05))
        assert await feed(kafka, topic, records) == 500
        assert await aborted(kafka, topic) == "fenced"
        found = await read_topic(kafka, topic)
        assert len(await read_topic(kafka, topic, committed=False)) == 503
        for key in keys(7):
            assert [(r.value, dict(r.headers)) for r in found if r.key == key] == [
                (f.value, headers(f)) for f in records if f.key == key
            ]
        assert sum(map(len, expected(found).values())) >= sum(f.count for f in records)
        assert await committed(kafka, topic, topic) == {}
        assert sum((await end_offsets(kafka, await partitions_of(kafka, topic))).values()) >= 506

    asyncio.run(body())


def headers(record: Fed) -> dict[str, bytes]:
    numbered = {"undertow-seq": b"%d" % record.seq} if record.count else {}
    return numbered | ({"undertow-end": b"1"} if record.end else {})


async def aborted(servers: str, topic: str) -> str:
    """Leaves three records of a transaction that the next producer of its id ends; and what the first one hears of it."""
    first, second = (AIOKafkaProducer(bootstrap_servers=servers, transactional_id=topic) for _ in range(2))
    await first.start()
    await first.begin_transaction()
    for partition in range(3):
        await first.send_and_wait(topic, b"never", b"pump-1", partition=partition)
    await second.start()
    await second.stop()
    try:
        await first.commit_transaction()
    except ProducerFenced:
        return "fenced"
    finally:
        await first.stop()
    return "committed"
