"""Reads stretches of input partitions outside of the group: what is read again, and by whom, is no business of its members."""

from collections.abc import AsyncIterator, Callable
from types import TracebackType

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ...engine.errors import ConnectorError

POLL_MS, POLL_RECORDS, STUCK_S = 200, 8192, 60.0


class InputReader:
    """make: a consumer without a group. To be used by `async with`."""

    def __init__(self, make: Callable[[], AIOKafkaConsumer]):
        self._make = make

    async def __aenter__(self) -> "InputReader":
        self.consumer = self._make()
        await self.consumer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.consumer.stop()

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset that there is, and the one behind the last record that may be read."""
        first, end = await self.consumer.beginning_offsets([tp]), await self.consumer.end_offsets([tp])
        return first[tp], end[tp]

    async def between(self, tp: TopicPartition, begin: int, end: int) -> AsyncIterator[list[ConsumerRecord]]:
        """The partition's records from offset `begin` to before `end`, in order, some at a time. Raises ConnectorError."""
        self.consumer.assign([tp])
        self.consumer.seek(tp, begin)
        idle = 0
        while (at := await self.consumer.position(tp)) < end:
            polled = await self.consumer.getmany(tp, timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            found = [r for records in polled.values() for r in records if r.offset < end]
            if found:
                yield found
            idle = 0 if await self.consumer.position(tp) > at else idle + 1
            if idle * POLL_MS > STUCK_S * 1000:
                raise ConnectorError(
                    f"[source] {tp.topic}/{tp.partition}: nothing to read from offset {at} on, expected records up to {end}; "
                    "is a transaction open there, or the broker down?"
                )
