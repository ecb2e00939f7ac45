"""Text files as lines: where each begins, without its end; never more of one in memory than the limit."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import BinaryIO

from ..engine.errors import ConnectorError
from .input_files import InputFile, State

BOM = b"\xef\xbb\xbf"
KEPT_BYTES = 1024  # of a line that is too long


@dataclass(frozen=True, slots=True)
class Line:
    """text: without `\\n` or `\\r\\n`; of a line that is too long its first bytes, and `problem` says so."""

    offset: int
    next_offset: int
    text: bytes
    problem: str | None = None


def bare_line(raw: bytes, first: bool) -> bytes:
    """Without its end, and without the byte order mark of a file's first line."""
    text = raw.removesuffix(b"\n").removesuffix(b"\r")
    return text.removeprefix(BOM) if first else text


def too_long(length: int, limit: int) -> str:
    return f"the line has {length} bytes, at most {limit} are allowed; split the chunk or raise max_line_bytes"


def read_lines(file: InputFile, before: State, start: int, limit: int) -> Generator[Line, None, None]:
    """The lines from byte `start` on that are not blank. Raises ConnectorError where no line begins there."""
    with file.open() as handle:
        _seek(handle, file, start, before[0])
        offset = start
        while raw := handle.readline(limit + 5):
            length, text, problem = len(raw), bare_line(raw, offset == 0), None
            if len(text) > limit:
                while not raw.endswith(b"\n") and (raw := handle.readline(64 * 1024)):
                    length += len(raw)
                text, problem = text[:KEPT_BYTES], too_long(length, limit)
            file.still(before)
            if problem or text.strip():
                yield Line(offset, offset + length, text, problem)
            offset += length
        file.still(before)
        if offset != before[0]:
            raise ConnectorError(f"{file.path}: ended at byte {offset}, expected {before[0]}; was it changed?")


def _seek(handle: BinaryIO, file: InputFile, start: int, size: int) -> None:
    if not start:
        return
    handle.seek(start - 1)
    if handle.read(1) != b"\n" and start != size:
        raise ConnectorError(
            f"{file.path}: no line begins at byte {start}, where it was read before; was it changed since? "
            "Put the old file back, or begin with a new store"
        )
