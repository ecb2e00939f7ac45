"""A source and a sink inside the program: `type = "memory"`, for embedding and for tests."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..engine import Key
from .records import Answer, Record


class MemorySource:
    """Gives the records of an iterable, in order.

    A list can be given again from any offset. A generator is pulled in a thread as records are needed, so it may block and
    nothing piles up; it has to begin where the last commit left off, or earlier.
    """

    rewindable = True

    def __init__(self, records: Iterable[Record]):
        self._records, self._exhausted = records, False
        self._offsets: Mapping[str, int] = {}
        self._rest: Iterator[Record] = iter(())

    @classmethod
    def of(cls, streams: Mapping[Key, Any], chunk: int = 50) -> "MemorySource":
        """Whole streams `(T, *frame)` by key, in turn a chunk of each; a partition a stream, offsets count frames."""
        return cls(list(_interleaved([list(_chunks(key, frames, chunk)) for key, frames in streams.items()])))

    async def open(self, offsets: Mapping[str, int]) -> None:
        self._offsets, self._rest, self._exhausted = dict(offsets), iter(self._records), False

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        return await asyncio.to_thread(self._pull, max_records, time.monotonic() + timeout_s)

    def _pull(self, max_records: int, deadline: float) -> list[Record]:
        pulled: list[Record] = []
        while len(pulled) < max_records and not self._exhausted and (not pulled or time.monotonic() < deadline):
            following = list(islice(self._rest, 1))
            self._exhausted = not following
            pulled += (r for r in following if r.offset >= self._offsets.get(r.partition, r.offset))
        return pulled

    @property
    def exhausted(self) -> bool:
        return self._exhausted

    async def close(self) -> None:
        pass


class MemorySink:
    """Keeps every answer, in order, in `answers`."""

    truncatable = True

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        if lengths is not None:
            del self.answers[lengths.get("memory", 0) :]

    async def write(self, answers: Iterable[Answer]) -> None:
        self.answers += answers

    async def flush(self) -> Mapping[str, int]:
        return {"memory": len(self.answers)}

    async def close(self) -> None:
        pass

    def outputs(self, key: Key) -> dict[str, np.ndarray]:
        """All outputs of the streams of this key, end to end, by name."""
        mine = [a.values for a in self.answers if a.key == key]
        return {name: np.concatenate([v[name] for v in mine]) for name in (mine[0] if mine else ())}


def _chunks(key: Key, frames: Any, chunk: int) -> Iterator[Record]:
    arrays = frames if isinstance(frames, Mapping) else {"": frames}
    count = len(next(iter(arrays.values())))
    for begin in range(0, max(count, 1), chunk):
        end = min(begin + chunk, count)
        cut = {name: a[begin:end] for name, a in arrays.items()}
        yield Record(str(key), begin, end, key, cut if isinstance(frames, Mapping) else cut[""], end=end == count)


def _interleaved(lists: list[list[Record]]) -> Iterator[Record]:
    for i in range(max(map(len, lists), default=0)):
        yield from (records[i] for records in lists if i < len(records))
