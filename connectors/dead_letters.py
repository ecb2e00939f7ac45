"""Records that could not be stepped, with the reason: a file of JSON Lines that is committed together with the sink."""

import base64
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from ..engine.errors import ConnectorError, UndertowError
from .columns import Columns
from .output_lines import stream_name
from .records import Unreadable


class DeadLetters:
    """A line a record: reason, stream, partition, offset, and the payload as text or base64."""

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO | None = None

    def open(self, length: int | None, cut: bool) -> None:
        """Goes on behind `length`; what lies past it is cut off, or, without `cut`, only a line that was not finished.

        Raises ConnectorError where the file is shorter than what was committed, or would be cut and is not ours (None).
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = file = self.path.open("ab")
            size = file.tell()
            if length is None and cut and size:
                raise ConnectorError(
                    f"{self.path}: has {size} bytes, and the store knows of no run that wrote them; "
                    "move the file away, or name another [dead_letters] path"
                )
            length = length or 0
            if size < length:
                raise ConnectorError(
                    f"{self.path}: has {size} bytes, {length} were committed; put the file back, or begin anew with another [store] path"
                )
            file.truncate(length if cut else length + self._finished(length))
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            raise self._refused(error) from error

    def _finished(self, length: int) -> int:
        """Bytes past `length` up to the end of the last finished line."""
        with self.path.open("rb") as file:
            file.seek(length)
            return file.read().rfind(b"\n") + 1

    def write(self, columns: Columns, i: int, reason: UndertowError) -> None:
        """A line for the i-th record."""
        line: dict[str, Any] = {"reason": str(reason), "error": type(reason).__name__}
        line |= {"stream": stream_name(columns.keys[i]), "partition": columns.partitions[columns.partition[i]]}
        line |= {"offset": int(columns.offsets[i])} | _payload(columns.payloads[i])
        try:
            self._opened.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            raise self._refused(error) from error

    def flush(self) -> int:
        """Makes everything durable; how long the file is."""
        try:
            self._opened.flush()
            os.fsync(self._opened.fileno())
            return self._opened.tell()
        except OSError as error:
            raise self._refused(error) from error

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None, "write before open"
        return self._file

    def _refused(self, error: OSError) -> ConnectorError:
        return ConnectorError(f"{self.path}: dead letters cannot be written ({error.strerror})")

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk refuses was told by `write` or `flush`
                self._file.close()


def _payload(value: Any) -> dict[str, Any]:
    """Text where it is UTF-8, else base64; arrays as .npy (.npz of several inputs) in base64."""
    if isinstance(value, Unreadable):
        value = value.payload
    if value is None:
        return {"payload": None}
    if isinstance(value, bytes | bytearray | memoryview):
        return _text(bytes(value))
    file = io.BytesIO()
    if isinstance(value, Mapping):
        np.savez(file, allow_pickle=False, **{str(name): np.asarray(array) for name, array in value.items()})
    else:
        np.save(file, np.asarray(value), allow_pickle=False)
    kind = "npz" if isinstance(value, Mapping) else "npy"
    return {f"payload_{kind}_base64": base64.b64encode(file.getvalue()).decode()}


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"payload": data.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(data).decode()}
