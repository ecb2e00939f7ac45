"""Files as a source: many are read as concurrent streams, each from its own offset, and the same records come each time.

A partition is a file, named by its path relative to the source's folder. Its offsets are the byte where a line begins
(csv, jsonl) or the number of a frame (npy, wav). When all of it was given, one more record without a value says so,
from the file's length to one past it: it ends the stream, where the file is one, else every stream that the file feeds
(`Record.end_partition`). So a file whose offset is one past its length is done, an empty one too.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError, ConnectorError
from .array_formats import NpyFormat, WavFormat
from .files_config import FileFormat, FilesSourceConfig
from .input_files import InputFile, find_files
from .pacing import ByEventTime, InTurn, Pace
from .records import Record
from .text_formats import CsvFormat, JsonlFormat
from .times import FrameClock, start_time_ns

_OF_SOME: dict[str, set[FileFormat]] = {
    "chunk": {"npy", "wav"},
    "key_column": {"csv", "jsonl"},
    "columns": {"csv"},
    "delimiter": {"csv"},
    "time_column": {"csv", "jsonl"},
    "time_unit": {"csv", "jsonl"},
    "value_field": {"jsonl"},
    "end_field": {"jsonl"},
    "seq_field": {"jsonl"},
    "extra_fields": {"jsonl"},
    "start_time": {"csv", "npy", "wav"},
    "remainder": {"wav"},
    "max_line_bytes": {"csv", "jsonl"},
}
_FORMATS = {"csv": CsvFormat, "jsonl": JsonlFormat, "npy": NpyFormat, "wav": WavFormat}


class Format(Protocol):
    """keyed: a file holds several streams. timed: there are event times to keep pace with."""

    keyed: bool
    timed: bool

    def length(self, file: InputFile) -> int:
        """The offset of the file's end."""
        ...

    def records(self, file: InputFile, start: int) -> Generator[Record, None, int]:
        """Those from an offset on; returns the offset of the end that it came to."""
        ...


class FilesSource:
    """Raises ConfigError, ConnectorError. clock_ns, sleep: what a pace is kept by."""

    rewindable = True

    def __init__(
        self,
        config: FilesSourceConfig,
        base: Path,
        spec: StepSpec,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        name, self.files = find_files(config, base)
        self._format = make_format(name, config, spec)
        if config.rate != "fast" and not self._format.timed:
            raise ConfigError(
                f'[source] rate: {config.rate!r} needs event times; give time_column or sample_rate_hz, or rate = "fast"'
            )
        self._concurrency, self._clock_ns, self._sleep = config.concurrency, clock_ns, sleep
        self._order = InTurn() if config.rate == "fast" else ByEventTime()
        self._pace = Pace(1.0 if isinstance(config.rate, str) else config.rate)
        self._waiting: deque[tuple[InputFile, int]] = deque()
        self._lock = threading.Lock()  # a poll that was cancelled reads on in its thread

    def check(self) -> None:
        """Reads the beginning of every file. Raises ConnectorError where one does not fit the model or the options."""
        for file in self.files:
            records = self._format.records(file, 0)
            next(records, None)
            records.close()

    async def open(self, offsets: Mapping[str, int]) -> None:
        await asyncio.to_thread(self._plan, offsets)

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        records: list[Record] = []
        left_s = timeout_s
        while not records and not self.exhausted:
            records, wait_s = await asyncio.to_thread(self._gather, max_records)
            if wait_s <= 0 or records:
                continue
            if left_s <= 0:
                break
            await self._sleep(min(wait_s, left_s))
            left_s -= wait_s
        return records

    @property
    def exhausted(self) -> bool:
        return not self._waiting and not len(self._order)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._order.close()

    def _plan(self, offsets: Mapping[str, int]) -> None:
        """Which files are still to be read, from where."""
        gone = sorted(offsets.keys() - {f.name for f in self.files})
        if gone:
            raise ConnectorError(
                f"[source] path: '{gone[0]}' was read up to {offsets[gone[0]]} and is not there any more "
                f"({len(gone)} in all); put it back, or begin with a new store"
            )
        for file in self.files:
            start = offsets.get(file.name, 0)
            length = self._format.length(file) if start else 0
            if start > length + 1:
                raise ConnectorError(
                    f"{file.path}: was read up to {start}, now it ends at {length}; put the old file back, or begin with a new store"
                )
            if not start or start <= length:
                self._waiting.append((file, start))

    def _gather(self, max_records: int) -> tuple[list[Record], float]:
        """Records that are due; and where there is none, how many seconds until one is."""
        with self._lock:
            return self._due(max_records)

    def _due(self, max_records: int) -> tuple[list[Record], float]:
        records: list[Record] = []
        self._fill()
        while len(self._order) and len(records) < max_records:
            wait_s = self._pace.wait_s(self._order.due_ns(), self._clock_ns())
            if wait_s > 0:
                return records, wait_s
            record = self._order.pop()
            if record is not None:
                records.append(record)
            self._fill()
        return records, 0.0

    def _fill(self) -> None:
        while self._waiting and len(self._order) < self._concurrency:
            self._order.add(self._records(*self._waiting.popleft()))

    def _records(self, file: InputFile, start: int) -> Generator[Record, None, None]:
        end = yield from self._format.records(file, start)
        keyed = self._format.keyed
        key = "" if keyed else file.key
        yield Record(file.name, end, end + 1, key, None, end=not keyed, end_partition=keyed)


def make_format(name: FileFormat, config: FilesSourceConfig, spec: StepSpec) -> Format:
    """Raises ConfigError where an option says nothing of this format."""
    for option, formats in _OF_SOME.items():
        if getattr(config, option) is not None and name not in formats:
            raise ConfigError(
                f"[source] {option}: is for {' | '.join(sorted(formats))}, the files are {name}; take it out"
            )
    if config.columns and len(set(config.columns)) < len(config.columns):
        raise ConfigError(f"[source] columns: {list(config.columns)} names a column twice")
    rate_hz, start_ns = config.sample_rate_hz or spec.sample_rate_hz, start_time_ns(config)
    if config.start_time and not rate_hz and name != "wav":
        raise ConfigError("[source] start_time: needs sample_rate_hz, the model does not say it")
    if config.start_time and config.time_column:
        raise ConfigError("[source] start_time: the times are those of time_column; take one of them out")
    return _FORMATS[name](config, spec, FrameClock(rate_hz, start_ns) if rate_hz else None)
