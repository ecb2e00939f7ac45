"""The bare loop: aiokafka consumes, and produces an answer-sized payload for each record; there is no inference.

`sends` awaits producer.send for each record, `batches` fills prepared batches; with --transactions the answers and the input's
offsets are committed in one transaction each --commit-s, without them the offsets are committed by themselves once all
that was sent is acknowledged. Answers go to the partition that their record came from, so nobody hashes keys.
"""

import argparse
import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

PREPARED_BYTES = 256 * 1024


async def run(a: argparse.Namespace) -> None:
    consumer = AIOKafkaConsumer(
        a.input,
        bootstrap_servers=a.address,
        group_id=a.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    how = {"transactional_id": a.group} if a.transactions else {"acks": "all"}
    size = {"max_batch_size": PREPARED_BYTES} if a.how == "batches" else {}
    producer = AIOKafkaProducer(bootstrap_servers=a.address, **how, **size)
    await producer.start()
    await consumer.start()
    loop = Loop(a, consumer, producer)
    await (loop.in_transactions() if a.transactions else loop.plainly())


class Loop:
    def __init__(self, a: argparse.Namespace, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer):
        self.output, self.group, self.commit_s = a.output, a.group, a.commit_s
        self.consumer, self.producer = consumer, producer
        self.payload = bytes(a.answer_bytes)
        self.answer = self.sends if a.how == "sends" else self.batches

    async def in_transactions(self) -> None:
        while True:
            found = await self.consumer.getmany(timeout_ms=100)
            if not found:
                continue
            async with self.producer.transaction():
                offsets, due = await self.answer(found), time.monotonic() + self.commit_s
                while (left := due - time.monotonic()) > 0:
                    offsets |= await self.answer(await self.consumer.getmany(timeout_ms=max(1, int(left * 1000))))
                await self.producer.send_offsets_to_transaction(offsets, self.group)

    async def plainly(self) -> None:
        offsets, due = {}, time.monotonic() + self.commit_s
        while True:
            offsets |= await self.answer(await self.consumer.getmany(timeout_ms=int(self.commit_s * 1000)))
            if offsets and time.monotonic() >= due:
                await self.producer.flush()
                await self.consumer.commit(offsets)
                offsets, due = {}, time.monotonic() + self.commit_s

    async def sends(self, found) -> dict[TopicPartition, int]:
        send, output, payload = self.producer.send, self.output, self.payload
        for tp, records in found.items():
            for r in records:
                await send(output, payload, key=r.key, partition=tp.partition)
        return {tp: records[-1].offset + 1 for tp, records in found.items()}

    async def batches(self, found) -> dict[TopicPartition, int]:
        payload = self.payload
        for tp, records in found.items():
            batch = self.producer.create_batch()
            for r in records:
                if batch.append(timestamp=None, key=r.key, value=payload) is None:
                    await self.producer.send_batch(batch, self.output, partition=tp.partition)
                    batch = self.producer.create_batch()
                    batch.append(timestamp=None, key=r.key, value=payload)
            batch.close()
            await self.producer.send_batch(batch, self.output, partition=tp.partition)
        return {tp: records[-1].offset + 1 for tp, records in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=("sends", "batches"))
    for name in ("--address", "--input", "--output", "--group"):
        parser.add_argument(name, required=True)
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--commit-s", type=float, required=True)
    parser.add_argument("--transactions", action="store_true")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
