"""What every payload codec has in common: what it gives, what it is told, and how the frames of many payloads are put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError, ConfigError
from .columns import NO_SEQ, NO_TIME, Columns
from .records import Answer


@dataclass(frozen=True, slots=True)
class Frames:
    """arrays: `(T, *frame)` by input name, of the model's dtypes. single: the payload was one frame, not a chunk.

    end, seq, time_ns: what the payload's own fields say, as in `Record`, where its codec has such fields.
    """

    arrays: dict[str, np.ndarray]
    single: bool
    end: bool = False
    seq: int | None = None
    time_ns: int | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


@dataclass(slots=True)
class Decoded:
    """N payloads. frames: of each input, in the model's order, all rows of all payloads end to end, `(rows, *frame)`,
    contiguous, writable, of the model's dtype. counts: how many of those rows each payload has, int64 (N,), 0 of None and of
    bad ones. single: the payload was one frame, bool (N,). errors: why a payload is bad, by its place.

    ends: the payload says that its stream ends, also where its frames are bad, bool (N,). seqs, times_ns: as in `Columns`.
    Each is None where the codec has no such field.
    """

    frames: list[np.ndarray]
    counts: np.ndarray
    single: np.ndarray
    errors: dict[int, CodecError]
    ends: np.ndarray | None = None
    seqs: np.ndarray | None = None
    times_ns: np.ndarray | None = None

    def tell(self, columns: Columns) -> None:
        """Writes what the payloads say into the columns of their records; what they do not say stays."""
        if self.ends is not None:
            columns.ends |= self.ends
        if self.seqs is not None:
            np.copyto(columns.seqs, self.seqs, where=self.seqs != NO_SEQ)
        if self.times_ns is not None:
            np.copyto(columns.times_ns, self.times_ns, where=self.times_ns != NO_TIME)


@dataclass(frozen=True, slots=True)
class Use:
    """What a codec is for. folder: where relative paths begin. topic: that is read or written. writes: a sink's, else a source's."""

    folder: Path = Path()
    topic: str | None = None
    writes: bool = False


class Codec(Protocol):
    def decode(self, payload: bytes) -> Frames:
        """Raises CodecError: got, expected."""
        ...

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        """What `decode` gives of each, end to end; None has no frames. A bad payload does not harm the others.

        Raises ConnectorError where something else than a payload fails.
        """
        ...

    def encode(self, answer: Answer) -> bytes:
        """The answer's values as a chunk: of several values an object by name. Raises CodecError."""
        ...

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        """What `encode` gives of each answer. values: by name the rows of all answers end to end; counts: rows of each.

        Raises CodecError where one cannot be encoded; `encode` says which.
        """
        ...


def library(name: str, codec: str) -> ModuleType:
    """What a codec needs that is not installed with everything else. Raises ConfigError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"codec '{codec}' needs {name} ({error}): pip install 'undertow[{codec}]'") from error


def encode_one(codec: Codec, answer: Answer) -> bytes:
    rows = len(next(iter(answer.values.values())))
    return codec.encode_many(answer.values, np.array([rows]))[0]


def each(parts: Mapping[int, Any], decode: Callable[[Any], Frames], errors: dict[int, CodecError]) -> dict[int, Frames]:
    """What can be decoded, by its place; why the rest cannot goes into `errors`."""
    found: dict[int, Frames] = {}
    for place, part in parts.items():
        try:
            found[place] = decode(part)
        except CodecError as error:
            errors[place] = error
    return found


def gathered(
    inputs: Sequence[TensorSpec],
    size: int,
    places: np.ndarray,
    rows: list[np.ndarray],
    others: Mapping[int, Frames],
    errors: dict[int, CodecError],
) -> Decoded:
    """places: of payloads that are one frame each, ascending, and by input their rows; others: what else was decoded."""
    counts, single = np.zeros(size, np.int64), np.zeros(size, bool)
    counts[places], single[places] = 1, True
    for place, frames in others.items():
        counts[place], single[place] = len(frames), frames.single
    if not others:
        return Decoded(rows, counts, single, errors)
    starts = np.cumsum(counts) - counts
    found = []
    for tensor, row in zip(inputs, rows, strict=True):
        out = np.empty((int(counts.sum()), *tensor.shape), tensor.dtype)
        out[starts[places]] = row
        for place, frames in others.items():
            out[starts[place] : starts[place] + counts[place]] = frames.arrays[tensor.name]
        found.append(out)
    return Decoded(found, counts, single, errors)


def no_rows(inputs: Sequence[TensorSpec]) -> list[np.ndarray]:
    return [np.empty((0, *t.shape), t.dtype) for t in inputs]


def only_input(spec: StepSpec) -> TensorSpec | None:
    """The model's input, where it has one."""
    return next(iter(spec.inputs)) if len(spec.inputs) == 1 else None


def kind_of(array: np.ndarray) -> str:
    """What an output's values are, in an error's words."""
    return "lists" if array.dtype == object else str(array.dtype)


def plain(array: np.ndarray) -> Any:
    """Nested lists; as JSON has no such numbers, "NaN", "Infinity" and "-Infinity" (protobuf's JSON mapping)."""
    array = np.asarray(array)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    words = {np.inf: "Infinity", -np.inf: "-Infinity"}
    cells = [x if np.isfinite(x) else words.get(x, "NaN") for x in array.ravel().tolist()]
    boxed = np.empty(array.size, object)
    boxed[:] = cells
    return boxed.reshape(array.shape).tolist()
