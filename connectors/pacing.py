"""The order in which the records of many files are given, and when: in turn and at once, or by event time."""

import heapq
from collections import deque
from collections.abc import Generator
from typing import Any

from ..engine.errors import ConnectorError
from .records import Record, Unreadable

Records = Generator[Record, None, Any]
NEVER = -(2**63)


class InTurn:
    """A record of each file, round and round."""

    def __init__(self) -> None:
        self._files: deque[Records] = deque()

    def __len__(self) -> int:
        return len(self._files)

    def add(self, records: Records) -> None:
        self._files.append(records)

    def due_ns(self) -> int | None:
        """Everything is due."""
        return None

    def pop(self) -> Record | None:
        """The next record; None where a file came to its end instead."""
        records = self._files.popleft()
        record = next(records, None)
        if record is not None:
            self._files.append(records)
        return record

    def close(self) -> None:
        while self._files:
            self._files.pop().close()


class ByEventTime:
    """The earliest record of all files first; one without a time comes right after the one before it in its file."""

    def __init__(self) -> None:
        self._heads: list[tuple[int, int, Record, Records]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, records: Records) -> None:
        self._added += 1
        self._push(records, NEVER, self._added)

    def due_ns(self) -> int | None:
        """The event time of the next record; None where neither it nor one before it in its file has one."""
        return self._heads[0][0] if self._heads and self._heads[0][0] > NEVER else None

    def pop(self) -> Record | None:
        due, order, record, records = heapq.heappop(self._heads)
        self._push(records, due, order)
        return record

    def close(self) -> None:
        while self._heads:
            self._heads.pop()[-1].close()

    def _push(self, records: Records, due: int, order: int) -> None:
        record = next(records, None)
        if record is not None:
            if due == NEVER and record.event_time_ns is None and not isinstance(record.value, Unreadable | None):
                raise ConnectorError(f'{record.source}: has no time, and [source] rate goes by it; say rate = "fast"')
            due = due if record.event_time_ns is None else max(due, record.event_time_ns)
            heapq.heappush(self._heads, (due, order, record, records))


class Pace:
    """How long until an event time is due, `speed` times as fast as it was; the first one asked for is due at once."""

    def __init__(self, speed: float):
        self.speed = speed
        self._event_ns, self._wall_ns = None, 0

    def wait_s(self, event_ns: int | None, now_ns: int) -> float:
        if event_ns is None:
            return 0.0
        if self._event_ns is None:
            self._event_ns, self._wall_ns = event_ns, now_ns
        return (event_ns - self._event_ns) / self.speed / 1e9 - (now_ns - self._wall_ns) / 1e9
