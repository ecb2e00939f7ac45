"""Rows for a model with other states: each stream steps its last frames again, from the initial state, and gives nothing out.

Of each stream the input is read backwards for where its last frames begin, then all of them forward, once. What the row
said of the stream beside its state (its number, its times) holds for the new row, which stands for the same offset; so the
replay that follows is that of any other restore. Whoever is killed meanwhile has written nothing, and does it again.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from msgspec.structs import replace

from ..batch import Batch
from ..store import StoredPartition
from ..streams import Kept
from .input_reader import InputReader
from .intake import Intake, partition_name
from .rows import Row

log = logging.getLogger("undertow.kafka")
WINDOW = 20_000  # offsets that are read at a time on the way back
NEVER = 2**62  # an offset that no record has
Alone = Callable[[Callable[[], Any]], Awaitable[Any]]


@dataclass(slots=True)
class _Stretch:
    """Of a stream: records from `begin` to before `end` are stepped. missing: frames that it still wants from before."""

    begin: int
    end: int
    missing: int


class Rewarming:
    """fresh: makes an empty batch of the model. frames: of each stream. alone: runs work in a thread, nothing else beside it."""

    def __init__(
        self, reader: Callable[[], Any], intake: Intake, fresh: Callable[[], Batch], frames: int, alone: Alone
    ):
        self._reader, self._intake, self._fresh, self._frames, self._alone = reader, intake, fresh, frames, alone

    async def rows(self, tp: TopicPartition, cold: Mapping[bytes, Row]) -> list[tuple[bytes, Row]]:
        """For each row of the other model one of this. Raises ConnectorError."""
        began = time.monotonic()
        stretches = {key: _Stretch(row.offset, row.offset, self._wanted(row)) for key, row in cold.items()}
        async with InputReader(self._reader) as reader:
            first, _ = await reader.bounds(tp)
            await self._back(reader, tp, stretches, first)
            batch = await self._alone(self._fresh)
            await self._forward(reader, tp, stretches, batch, first)
        warmed = await self._alone(lambda: [(key, self._row(batch, tp, key, row)) for key, row in cold.items()])
        short = sum(s.missing > 0 for s in stretches.values())
        log.warning("rewarmed", extra={
            "partition": partition_name(tp), "streams": len(warmed), "frames_each": self._frames, "with_fewer": short,
            "seconds": round(time.monotonic() - began, 3),
        })  # fmt: skip
        return warmed

    def _wanted(self, row: Row) -> int:
        return min(self._frames, row.kept.frames if row.kept else 0)

    async def _back(
        self, reader: InputReader, tp: TopicPartition, stretches: dict[bytes, _Stretch], first: int
    ) -> None:
        """Finds where each stretch begins: as few whole records as hold the frames, and none from before the stream's end."""
        wanting = {key: s for key, s in stretches.items() if s.missing > 0}
        end = max((s.end for s in wanting.values()), default=first)
        while wanting and end > first:
            begin = max(first, end - WINDOW)
            found: list[ConsumerRecord] = []
            async for records in reader.between(tp, begin, end):
                found += [r for r in records if (s := wanting.get(r.key or b"")) and r.offset < s.end]
            if found:
                await self._alone(lambda found=found: self._lengthen(tp, found, wanting))
            end = begin

    def _lengthen(self, tp: TopicPartition, records: list[ConsumerRecord], wanting: dict[bytes, _Stretch]) -> None:
        columns = self._intake.columns({tp: records})
        for i in range(len(records) - 1, -1, -1):
            key = records[i].key or b""
            stretch = wanting.get(key)
            if stretch is None:
                continue
            if columns.ends[i]:  # the life before
                stretch.missing = 0
            elif i not in columns.bad:
                stretch.begin, stretch.missing = records[i].offset, stretch.missing - int(columns.counts[i])
            if stretch.missing <= 0:
                del wanting[key]

    async def _forward(
        self, reader: InputReader, tp: TopicPartition, stretches: Mapping[bytes, _Stretch], batch: Batch, first: int
    ) -> None:
        name = partition_name(tp)
        batch.positions.stored[name] = StoredPartition(name, NEVER)  # so that nothing is given out
        begin = min((s.begin for s in stretches.values()), default=first)
        end = max((s.end for s in stretches.values()), default=first)
        async for records in reader.between(tp, max(begin, first), end):
            mine = [r for r in records if (s := stretches.get(r.key or b"")) and s.begin <= r.offset < s.end]
            if mine:
                await self._alone(lambda mine=mine: batch.answers(self._intake.columns({tp: mine})))

    @staticmethod
    def _row(batch: Batch, tp: TopicPartition, key: bytes, old: Row) -> Row:
        engine, streams, name = batch.engine, batch.ledger.streams, (partition_name(tp), key)
        place, warm = streams.index.get(name), Kept(0)
        if place < 0:
            place = streams.open(name)
            engine.stream(place)  # which opens it
        else:
            warm = streams.kept(place)
        kept = old.kept or Kept(0)
        kept = replace(
            kept, frames=warm.frames, spans=warm.spans, last_frame=warm.last_frame, quarantined=warm.quarantined
        )
        state, collected = engine.read_rows([place])[0].tobytes(), engine.collected(place)
        return Row(old.offset, engine.layout, kept, state, collected)
