"""What came out, seen from outside: how far the output topic is committed at which moment, and what is in it.

No side is asked for its own figures. A topic's committed end is what a read_committed consumer may read to; in transactions
it also counts their markers, so records are counted by reading the topic afterwards.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError
from broker import Broker
from feeding import Load
from lstm_model import HIDDEN, Reference

LOOK_S = 0.02
TOLERANCE = 1e-4

Ends = dict[TopicPartition, int]


@dataclass
class Committed:
    """The committed ends of a topic, each time that they were seen to have moved; times are time.monotonic."""

    times: list[float] = field(default_factory=list)
    ends: list[Ends] = field(default_factory=list)

    def saw(self, ends: Ends) -> None:
        if not self.ends or ends != self.ends[-1]:
            self.times.append(time.monotonic())
            self.ends.append(ends)


@dataclass
class Output:
    """The records of a topic: their offsets by partition, and of the watched streams the values in order."""

    offsets: Mapping[TopicPartition, np.ndarray]
    values: Mapping[bytes, list[bytes]]
    bytes_per_record: float

    def __len__(self) -> int:
        return sum(len(o) for o in self.offsets.values())

    def count(self, ends: Ends) -> int:
        """Records below these ends."""
        return sum(int(np.searchsorted(self.offsets[tp], end)) for tp, end in ends.items())


@dataclass(frozen=True)
class Rate:
    """records: that were committed in `seconds`, from the first commit that was seen to the last."""

    records: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.records / self.seconds if self.seconds else float("nan")


def partitions_of(topic: str, count: int) -> list[TopicPartition]:
    return [TopicPartition(topic, p) for p in range(count)]


async def follow(
    broker: Broker, topic: str, partitions: int, done: Callable[[], Awaitable[bool]], limit_s: float, start_s: float
) -> Committed:
    """Watches until `done`, or for `limit_s` after the first commit. Raises SystemExit where none comes in `start_s`."""
    tps, seen = partitions_of(topic, partitions), Committed()
    reader = AIOKafkaConsumer(
        bootstrap_servers=broker.address, isolation_level="read_committed", enable_auto_commit=False
    )
    await reader.start()
    begin = time.monotonic()
    try:
        look = 0
        while True:
            seen.saw(dict(await reader.end_offsets(tps)))
            now = time.monotonic()
            if len(seen.times) < 2 and now - begin > start_s:
                raise SystemExit(f"nothing was committed to {topic} in {start_s:.0f} s")
            if len(seen.times) > 1 and now - seen.times[1] > limit_s:
                return seen
            look += 1
            if look % 10 == 0 and await done():
                await asyncio.sleep(0.3)
                seen.saw(dict(await reader.end_offsets(tps)))
                return seen
            await asyncio.sleep(LOOK_S)
    finally:
        await reader.stop()


async def group_is_at(broker: Broker, group: str, topic: str, wanted: Mapping[int, int]) -> bool:
    """Whether the group has committed all of the input."""
    try:
        found = await broker.admin.list_consumer_group_offsets(group)
    except (
        GroupCoordinatorNotAvailableError,
        NotCoordinatorForGroupError,
    ):  # the first group makes the broker make the topic of offsets
        return False
    at = {tp.partition: o.offset for tp, o in found.items() if tp.topic == topic}
    return all(at.get(p, 0) >= end for p, end in wanted.items())


async def ends_of(broker: Broker, topic: str, partitions: int) -> dict[int, int]:
    reader = AIOKafkaConsumer(bootstrap_servers=broker.address, enable_auto_commit=False)
    await reader.start()
    try:
        return {tp.partition: end for tp, end in (await reader.end_offsets(partitions_of(topic, partitions))).items()}
    finally:
        await reader.stop()


async def read_output(broker: Broker, ends: Ends, watched: set[bytes]) -> Output:
    """All records below the ends."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=broker.address,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
        fetch_max_bytes=64 << 20,
    )
    await reader.start()
    offsets: dict[TopicPartition, list[int]] = {tp: [] for tp in ends}
    values: dict[bytes, list[bytes]] = {key: [] for key in watched}
    total = 0
    try:
        reader.assign(list(ends))
        await reader.seek_to_beginning(*ends)
        behind = {tp for tp, end in ends.items() if end}
        while behind:
            for tp, records in (await reader.getmany(timeout_ms=200)).items():
                for r in records:
                    if r.offset < ends[tp]:
                        offsets[tp].append(r.offset)
                        total += len(r.value)
                        if r.key in values:
                            values[r.key].append(r.value)
            behind = {tp for tp in behind if await reader.position(tp) < ends[tp]}
    finally:
        await reader.stop()
    count = sum(map(len, offsets.values()))
    return Output({tp: np.array(o, np.int64) for tp, o in offsets.items()}, values, total / max(count, 1))


def rate(seen: Committed, output: Output) -> Rate:
    """From the first commit with records to the last: what the side needed to start, and its first commit, are left out."""
    counts = [output.count(ends) for ends in seen.ends]
    first = next((i for i, n in enumerate(counts) if n), None)
    if first is None:
        return Rate(0, 0.0)
    last = max(i for i, n in enumerate(counts) if n > (counts[i - 1] if i else 0))
    return Rate(counts[last] - counts[first], seen.times[last] - seen.times[first])


def transactions(seen: Committed, output: Output) -> int:
    """How many were committed to the partition that had most of them, between the first look with a commit and the last.

    Each leaves one marker in each partition that it wrote to, so what a partition has besides records are those.
    """
    first, last = seen.ends[min(1, len(seen.ends) - 1)], seen.ends[-1]
    return max(
        last[tp] - first[tp] - int(np.searchsorted(o, last[tp]) - np.searchsorted(o, first[tp]))
        for tp, o in output.offsets.items()
    )


def check_answers(output: Output, load: Load, reference: Reference) -> int:
    """How many answers of the watched streams were compared. Raises SystemExit where one is missing, repeated or wrong."""
    compared = 0
    for key, values in output.values.items():
        stream = load.stream(key)
        got = np.frombuffer(b"".join(values), "<f4").reshape(len(values), HIDDEN)
        want = reference.answers(load.frames(stream, len(values)))
        if not np.allclose(got, want, atol=TOLERANCE):
            wrong = [i for i in range(len(got)) if not np.allclose(got[i], want[i], atol=TOLERANCE)]
            raise SystemExit(f"stream {key.decode()}: {len(got)} answers, of which the first wrong is {wrong[:1]}")
        compared += len(values)
    return compared
