"""A consumer of the answers that notes when it got each, and which record each answers."""

import asyncio
import time
from array import array
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from feeding import Load


class Receiver:
    """`async with Receiver(..) as got`: reads in the background, read_committed, from the topic's beginning.

    The n-th answer of a stream answers its n-th record, so a receipt says which record it is about as long as nothing is
    lost or repeated; `values` of the watched streams say whether that holds. With `keeping` on, `kept` collects of every
    answer the record and the value.
    """

    def __init__(self, address: str, topic: str, load: Load, watched: set[bytes]):
        self.load, self.watched = load, watched
        self.tps = [TopicPartition(topic, p) for p in range(load.partitions)]
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=address, isolation_level="read_committed", enable_auto_commit=False
        )
        self.seen: dict[bytes, int] = defaultdict(int)
        self.values: dict[bytes, list[bytes]] = defaultdict(list)
        self.records, self.times, self.partitions = array("q"), array("d"), array("q")
        self.keeping, self.kept = False, list[tuple[int, bytes]]()
        self.reading: asyncio.Task | None = None

    async def __aenter__(self) -> "Receiver":
        await self.consumer.start()
        self.consumer.assign(self.tps)
        await self.consumer.seek_to_beginning(*self.tps)
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.reading is not None
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await self.consumer.stop()

    def __len__(self) -> int:
        return len(self.records)

    async def until(self, count: int, limit_s: float, check: Callable[[], None], enough: bool = False) -> None:
        """Until so many answers are here, or for limit_s: then raises SystemExit, unless what came is enough.

        check: called meanwhile, to raise where nothing more can come.
        """
        deadline = time.monotonic() + limit_s
        while len(self) < count:
            check()
            if self.reading.done():
                self.reading.result()
            if time.monotonic() > deadline:
                if enough:
                    return
                raise SystemExit(f"{len(self):,} of {count:,} answers came in {limit_s:.0f} s")
            await asyncio.sleep(0.05)

    def receipts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each answer, as they came: its record, when (time.monotonic), and the partition."""
        return np.array(self.records), np.array(self.times), np.array(self.partitions)

    async def _read(self) -> None:
        keys, stream_of, seen = self.load.keys, self.load.stream, self.seen
        while True:
            found = await self.consumer.getmany(timeout_ms=1000)
            now = time.monotonic()
            for tp, records in found.items():
                for r in records:
                    step = seen[r.key]
                    seen[r.key] = step + 1
                    self.records.append(record := step * keys + stream_of(r.key))
                    self.times.append(now)
                    self.partitions.append(tp.partition)
                    if r.key in self.watched:
                        self.values[r.key].append(r.value)
                    if self.keeping:
                        self.kept.append((record, r.value))
