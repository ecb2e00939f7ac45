"""Reads changelog topics: to their ends, or on and on."""

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition

from ...engine.errors import ConnectorError

Records = list[tuple[bytes, bytes | None]]
POLL_MS, POLL_RECORDS = 100, 20_000
STUCK_S = 60.0
SETTLE_S = 2.0  # that transactions which are being ended are waited for


class ChangelogReader:
    """Committed records of changelog partitions, each from where it was left. make: a consumer without a group that reads what is committed."""

    def __init__(self, make: Any):
        self._make, self._consumer = make, None
        self.positions: dict[TopicPartition, int] = {}

    async def open(self) -> Any:
        """The consumer, which connects where it has not yet."""
        if self._consumer is None:
            self._consumer = self._make()
            await self._consumer.start()
        return self._consumer

    async def follow(self, begin: Mapping[TopicPartition, int | None]) -> None:
        """Reads these partitions and no others from now on; from these offsets, None: from the first that there is."""
        consumer = await self.open()
        consumer.assign(list(begin))
        first = await consumer.beginning_offsets(list(begin)) if begin else {}
        self.positions = {tp: max(first[tp], at or 0) for tp, at in begin.items()}
        for tp, at in self.positions.items():
            consumer.seek(tp, at)

    def lags(self) -> dict[TopicPartition, int]:
        """How many offsets each partition is behind what is committed in it; of those that were asked for once."""
        assert self._consumer is not None, "lags before follow"
        ends = {tp: self._consumer.last_stable_offset(tp) for tp in self.positions}
        return {tp: max(0, end - self.positions[tp]) for tp, end in ends.items() if end is not None and end >= 0}

    async def poll(self) -> dict[TopicPartition, Records]:
        """What came, in order; `positions` says up to where, also where only records of aborted transactions lay between."""
        assert self._consumer is not None, "poll before follow"
        polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        for tp in self.positions:
            self.positions[tp] = await self._consumer.position(tp)
        return {tp: [(r.key, r.value) for r in records] for tp, records in polled.items()}

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the partitions end now, records of open transactions included."""
        assert self._consumer is not None, "ends before follow"
        return await self._consumer.end_offsets(list(partitions))

    async def to_the_end(
        self, begin: Mapping[TopicPartition, int | None]
    ) -> AsyncIterator[tuple[dict[TopicPartition, Records], dict[TopicPartition, int]]]:
        """Follows the partitions up to where they end when it is called; what came, and where they end.

        Whoever could still write to them must have been shut out before: then nothing between is open any more.
        """
        await self.follow(begin)
        ends, idle = await self.ends(begin), 0
        while any(self.positions[tp] < end for tp, end in ends.items()):
            records = await self.poll()
            yield records, ends
            idle = 0 if records else idle + 1
            if idle * POLL_MS > STUCK_S * 1000:
                behind = {
                    f"{tp.topic}/{tp.partition}": (self.positions[tp], end)
                    for tp, end in ends.items()
                    if self.positions[tp] < end
                }
                raise ConnectorError(
                    f"changelog: stuck before its end (position, end): {behind}; is another program's transaction open there?"
                )
        yield {}, ends

    async def what_is_there(
        self, partitions: Collection[TopicPartition]
    ) -> AsyncIterator[dict[TopicPartition, Records]]:
        """All that the partitions hold when it is called; of transactions that stay open, what comes before them. Raises ConnectorError."""
        if not partitions:
            return
        await self.follow(dict.fromkeys(partitions))
        ends, heard = await self.ends(partitions), time.monotonic()
        while any(self.positions[tp] < end for tp, end in ends.items()):
            lags, quiet_s = self.lags(), time.monotonic() - heard
            if quiet_s > SETTLE_S and len(lags) == len(partitions) and not any(lags.values()):
                return
            if quiet_s > STUCK_S:
                raise ConnectorError(
                    f"changelog: nothing came for {STUCK_S:g} s, still to be read: {lags}; are the brokers up?"
                )
            if records := await self.poll():
                heard = time.monotonic()
                yield records

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None
