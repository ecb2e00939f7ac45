"""Answers as lines of text: a line for each output, `stream`, `step`, `time` and `source` before the values by name."""

import base64
import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from ..engine import Key
from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError, ConnectorError
from .payloads import plain
from .records import Answer
from .times import format_time

HEAD = ("stream", "step", "time", "source")


class Steps:
    """When the outputs of an answer are: they are K frames apart for every M of them (subsampling)."""

    def __init__(self, spec: StepSpec):
        self.frames, self.outputs = spec.frames_per_step, spec.outputs_per_step

    def times(self, answer: Answer, count: int) -> list[str | None]:
        """ISO 8601 in UTC; None where the source has no time, or none but the first frame's."""
        at, gap = answer.event_time_ns, answer.frame_ns * self.frames
        if at is None:
            return [None] * count
        if not gap:
            return [format_time(at), *[None] * (count - 1)]
        return [format_time(at + i * gap // self.outputs) for i in range(count)]


def rows(answer: Answer) -> int:
    return len(next(iter(answer.values.values()), ()))


def stream_name(key: Key) -> str | int | dict[str, str]:
    """As JSON: text, a number, or, of bytes that are not UTF-8, `{"base64": ..}`."""
    if not isinstance(key, bytes):
        return key if isinstance(key, str) else int(key)
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(key).decode()}


def stream_text(key: Key) -> str:
    """As a cell or a file's name: bytes that are not UTF-8 are `base64:..`."""
    name = stream_name(key)
    return f"base64:{name['base64']}" if isinstance(name, dict) else str(name)


def key_bytes_of(text: str) -> bytes:
    """The key that is shown so, of a stream whose key is bytes. Raises ConfigError."""
    if not text.startswith("base64:"):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix("base64:"), validate=True)
    except ValueError as error:
        raise ConfigError(f"stream {text!r}: what follows base64: is none ({error})") from error


def json_lines(answer: Answer, steps: Steps) -> bytes:
    """Numbers that JSON has not are "NaN", "Infinity" and "-Infinity". Raises ConnectorError."""
    _check_names(answer)
    count, stream = rows(answer), stream_name(answer.key)
    columns = {name: plain(array) for name, array in answer.values.items()}
    lines = []
    for i, at in enumerate(steps.times(answer, count)):
        line: dict[str, Any] = {"stream": stream, "step": answer.step + i, "time": at, "source": answer.source}
        if at is None:
            del line["time"]
        lines.append(msgspec.json.encode(line | {name: values[i] for name, values in columns.items()}))
    return b"".join(line + b"\n" for line in lines)


def csv_header(answer: Answer) -> bytes:
    """A column for each element of an output: `y`, `y[0]`, `y[0,1]`; lists, of words say, are JSON in a column."""
    _check_names(answer)
    names = [cell for name, array in answer.values.items() for cell in _cells(name, np.asarray(array).shape[1:])]
    return _csv([[*HEAD, *names]])


def csv_rows(answer: Answer, steps: Steps) -> bytes:
    count, stream = rows(answer), stream_text(answer.key)
    flat = [_flat(np.asarray(array).reshape(count, -1)) for array in answer.values.values()]
    times = steps.times(answer, count)
    return _csv(
        [
            [stream, answer.step + i, times[i], answer.source, *(x for part in flat for x in part[i])]
            for i in range(count)
        ]
    )


def _flat(array: np.ndarray) -> list[list[Any]]:
    """The cells of each row."""
    if array.dtype != object:
        return array.tolist()
    return [[msgspec.json.encode(cell).decode() for cell in row] for row in array]


def _cells(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    if not shape:
        yield name
        return
    yield from (f"{name}[{','.join(map(str, place))}]" for place in np.ndindex(*shape))


def _csv(cells: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(cells)
    return out.getvalue().encode()


def _check_names(answer: Answer) -> None:
    both = sorted(set(HEAD) & set(answer.values))
    if both:
        raise ConnectorError(
            f"[sink] output '{both[0]}' has the name of a field that every line has ({', '.join(HEAD)}); "
            "export the model with another output name, or choose a decoder that names its own"
        )
