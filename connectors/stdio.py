"""Standard input and output as JSON Lines.

Offsets of standard input count the lines that are not blank. It cannot be rewound: a run that resumes at line N numbers the next line N and
skips nothing, so whoever feeds it goes on where it was. Standard output cannot be cut, so nothing is exactly-once there.
"""

import asyncio
import os
import select
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError, ConnectorError
from .files_config import StdinConfig, StdoutConfig
from .json_lines import Fields, JsonLines
from .lines import BOM, KEPT_BYTES, Line, bare_line, too_long
from .output_lines import Steps, json_lines
from .records import Answer, Record
from .times import FrameClock

STDIN = "stdin"
READ_BYTES = 256 * 1024


class StdinSource:
    """Lines as they come, never waiting longer than it is told to. fd: what to read, standard input by default."""

    rewindable = False

    def __init__(self, config: StdinConfig, base: Path, spec: StepSpec, fd: int = 0):
        if config.stream and config.key_column:
            raise ConfigError(
                "[source] stream, key_column: all lines are of one stream, or each says which; take one out"
            )
        key_field = None if config.stream else config.key_column or "key"
        fields = Fields(
            key_field, config.value_field, config.time_column, config.end_field, config.seq_field,
            config.extra_fields == "ignore",
        )  # fmt: skip
        rate_hz = config.sample_rate_hz or spec.sample_rate_hz
        frame_ns = FrameClock(rate_hz, 0).frame_ns if rate_hz else 0
        self._lines = JsonLines(fields, spec, config.time_unit, frame_ns)
        self._config, self._fd = config, fd
        self._cutter = LineCutter(config.max_line_bytes)
        self._ended = self._told = False

    async def open(self, offsets: Mapping[str, int]) -> None:
        self._cutter.number = offsets.get(STDIN, 0)

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        lines = self._cutter.take(max_records)
        if not lines and not self._ended:
            await asyncio.to_thread(self._read, timeout_s)
            lines = self._cutter.take(max_records)
        if not lines and self._ended and not self._told:
            self._told = True
            return [self._end()] if self._config.end_at_eof else []
        return [self._lines.record(STDIN, line, self._config.stream or "") for line in lines]

    @property
    def exhausted(self) -> bool:
        return self._told

    async def close(self) -> None:
        """Standard input stays open: it is the process's."""

    def _read(self, timeout_s: float) -> None:
        """What is there within the time. Reading what `poll` has called ready does not block."""
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)
        if not ready.poll(timeout_s * 1000):
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except OSError as error:
            raise ConnectorError(f"standard input cannot be read ({error.strerror})") from error
        self._ended = not data
        self._cutter.feed(data)

    def _end(self) -> Record:
        number = self._cutter.number
        return Record(STDIN, number, number + 1, "", None, end_partition=True)


class LineCutter:
    """Bytes in, lines out; no more of a line in memory than the limit. `number`: of the next line."""

    def __init__(self, limit: int):
        self.limit, self.number, self._first = limit, 0, True
        self._whole: list[Line] = []
        self._rest, self._skipped = b"", 0

    def feed(self, data: bytes) -> None:
        """Nothing: the input's end, which ends its last line too."""
        *whole, rest = (self._rest + data).split(b"\n")
        for text in whole:
            self._add(text)
        self._rest = rest
        if not data and (rest or self._skipped):
            self._add(rest)
            self._rest = b""
        elif len(rest) > self.limit + len(BOM) + 1:
            self._rest = rest[:KEPT_BYTES]
            self._skipped += len(rest) - len(self._rest)

    def take(self, count: int) -> list[Line]:
        taken, self._whole = self._whole[:count], self._whole[count:]
        return taken

    def _add(self, raw: bytes) -> None:
        text = bare_line(raw, self._first)
        length, self._skipped, self._first = len(raw) + self._skipped, 0, False
        if not text.strip():
            return
        problem = too_long(length, self.limit) if length - len(raw) + len(text) > self.limit else None
        self._whole.append(Line(self.number, self.number + 1, text[:KEPT_BYTES] if problem else text, problem))
        self.number += 1


class StdoutSink:
    """A line for each output, flushed at each commit. Write errors and a reader that has gone are ConnectorErrors."""

    truncatable = False

    def __init__(self, config: StdoutConfig, base: Path, spec: StepSpec, fd: int = 1):
        self._steps, self._fd = Steps(spec), fd

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        """Nothing is cut: what a run before wrote has been read by someone."""

    async def write(self, answers: Iterable[Answer]) -> None:
        data = b"".join(json_lines(answer, self._steps) for answer in answers)
        if data:
            await asyncio.to_thread(self._write, data)

    async def flush(self) -> Mapping[str, int]:
        """Everything was written already; there is no length to go back to."""
        return {}

    async def close(self) -> None:
        """Standard output stays open: it is the process's."""

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise ConnectorError(
                f"standard output cannot be written ({error.strerror}); has its reader gone?"
            ) from error
