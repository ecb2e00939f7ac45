"""The input of the tests: numbered integer frames of many streams, interleaved, the same in every run."""

import asyncio
import random
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from .oracle import frame


@dataclass(frozen=True, slots=True)
class Fed:
    """Frames `first` to `first + count` of the stream `key`; seq: number of the first in its life; end: the life ends here."""

    key: bytes
    first: int
    count: int
    seq: int
    end: bool = False
    time_ms: int | None = None

    @property
    def value(self) -> bytes | None:
        """Raw little-endian int64; None of a record that only ends its stream."""
        return b"".join(struct.pack("<q", frame(self.key, self.first + i)) for i in range(self.count)) or None


def keys(count: int) -> list[bytes]:
    """Names of streams, one of them no text."""
    return [b"\xff\x00\xfe", *(b"pump-%d" % i for i in range(1, count))]


def fed(
    names: Sequence[bytes],
    records: int,
    seed: int = 0,
    chunks: Sequence[int] = (1,),
    end_chance: float = 0.0,
) -> Iterator[Fed]:
    """`records` records of these streams in an order of chance; now and then a stream ends, half the time by a record of its own."""
    choose = random.Random(seed)
    frames, begun = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for _ in range(records):
        key = choose.choice(names)
        end = frames[key] > begun[key] and choose.random() < end_chance
        count = 0 if end and choose.random() < 0.5 else choose.choice(chunks)
        yield Fed(key, frames[key], count, frames[key] - begun[key], end)
        frames[key] += count
        if end:
            begun[key] = frames[key]


async def feed(
    bootstrap: str, topic: str, records: Iterable[Fed], rate: float | None = None, numbered: bool = True
) -> int:
    """Sends them, each stream's in order and each once, at `rate` a second or as fast as they go; gives how many.

    The partition is the key's by Kafka's own rule. numbered: with `undertow-seq`.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=2)
    await producer.start()
    sent, begin = 0, time.monotonic()
    try:
        for record in records:
            headers = [("undertow-seq", b"%d" % record.seq)] if numbered and record.count else []
            headers += [("undertow-end", b"1")] if record.end else []
            await producer.send(topic, record.value, record.key, timestamp_ms=record.time_ms, headers=headers)
            sent += 1
            if rate is not None and (ahead := begin + sent / rate - time.monotonic()) > 0.005:
                await asyncio.sleep(ahead)
    finally:
        await producer.stop()
    return sent
