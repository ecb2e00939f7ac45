"""The records of the Kafka benchmarks: which stream has which frames, and putting them into a topic."""

import asyncio
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from lstm_model import FRAME

POOL = 4096  # different frames
FEED_BATCH = 256 * 1024
TICK_S = 0.005


@dataclass(frozen=True)
class Load:
    """Records in their order: the streams in turn, so that record i is frame i // keys of stream i % keys.

    A stream's partition is the one that Kafka's own default partitioner gives it.
    """

    keys: int
    partitions: int

    @cached_property
    def pool(self) -> np.ndarray:
        return np.random.default_rng(11).standard_normal((POOL, FRAME)).astype("<f4")

    @cached_property
    def payloads(self) -> list[bytes]:
        return [frame.tobytes() for frame in self.pool]

    @cached_property
    def names(self) -> list[bytes]:
        return [b"stream-%06d" % k for k in range(self.keys)]

    @cached_property
    def partition_of(self) -> list[int]:
        return [(murmur2(name) & 0x7FFFFFFF) % self.partitions for name in self.names]

    def place(self, stream: int, step: int) -> int:
        """Which frame of the pool."""
        return (stream * 7919 + step * 104729) % POOL

    def frames(self, stream: int, count: int) -> np.ndarray:
        """The first `count` frames of a stream."""
        return self.pool[[self.place(stream, t) for t in range(count)]]

    def stream(self, name: bytes) -> int:
        return int(name[-6:])

    def record(self, i: int) -> tuple[int, bytes, bytes]:
        """Partition, key, payload of record i."""
        step, stream = divmod(i, self.keys)
        return self.partition_of[stream], self.names[stream], self.payloads[self.place(stream, step)]


class Feeder:
    """Puts records into a topic in prepared batches, in their order within each partition."""

    def __init__(self, address: str, topic: str, load: Load):
        self.topic, self.load = topic, load
        self.producer = AIOKafkaProducer(bootstrap_servers=address, max_batch_size=FEED_BATCH, acks=1)

    async def __aenter__(self) -> "Feeder":
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()

    async def put(self, first: int, stop: int) -> None:
        """Records first .. stop - 1, all of them acknowledged when it returns."""
        sent = [await self._send(p, batch) for p, batch in self._batches(first, stop)]
        await asyncio.gather(*sent)

    async def put_paced(self, first: int, per_s: float, seconds: float, begin: float) -> int:
        """Puts record first + n as soon as it is due, n / per_s after `begin` (time.monotonic); how many there were.

        Open loop: what is due is sent whether or not anything was answered, and what comes late because this process did is
        still timed from when it was due.
        """
        total, done = int(per_s * seconds), 0
        pending: set[asyncio.Future] = set()
        while done < total:
            due = min(total, int((time.monotonic() - begin) * per_s) + 1)
            if due <= done:
                await asyncio.sleep(TICK_S)
                continue
            for partition, batch in self._batches(first + done, first + due):
                pending.add(await self._send(partition, batch))
            done = due
            pending = {f for f in pending if not f.done()}
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*pending)
        return total

    async def _send(self, partition: int, batch) -> asyncio.Future:
        return await self.producer.send_batch(batch, self.topic, partition=partition)

    def _batches(self, first: int, stop: int):
        """(partition, batch) as they fill up, then the rest of them."""
        open_: dict[int, object] = {}
        record = self.load.record
        for i in range(first, stop):
            partition, key, value = record(i)
            batch = open_.get(partition)
            if batch is None:
                batch = open_[partition] = self.producer.create_batch()
            if batch.append(timestamp=None, key=key, value=value) is None:
                yield partition, batch
                batch = open_[partition] = self.producer.create_batch()
                batch.append(timestamp=None, key=key, value=value)
        for partition, batch in open_.items():
            batch.close()
            yield partition, batch
