"""CSV as records: a row is a frame; the header says which columns. A row is one line: a quoted field that goes on over the
end of a line makes that line, and what follows of it, rows that cannot be read."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError, ConnectorError
from .files_config import FilesSourceConfig, TimeUnit
from .lines import Line
from .times import parse_time_ns

_SAFE = {d: float(np.finfo(d).max) / 2 for d in ("float16", "float32", "float64")}  # surely finite after rounding
_BOOLS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row of `width` fields the frame, the stream and the time are; key, time: -1 where the file has none."""

    width: int
    frame: tuple[int, ...]
    key: int
    time: int


@dataclass(frozen=True, slots=True)
class Row:
    arrays: dict[str, np.ndarray]
    key: str | None
    time_ns: int | None


class CsvRows:
    """Reads rows of files that may each have their columns in another order."""

    def __init__(self, config: FilesSourceConfig, spec: StepSpec):
        self.config, self.inputs = config, spec.inputs
        self.sizes = [int(np.prod(t.shape)) for t in spec.inputs]
        self.delimiter = config.delimiter or ","
        self.unit: TimeUnit = config.time_unit or "s"

    def columns(self, path: Any, header: Line, first: Line | None) -> Columns:
        """first: the file's first row, which tells the columns of numbers where `columns` does not. Raises ConnectorError."""
        try:
            names = self.split(header)
        except CodecError as error:
            raise ConnectorError(f"{path}: header: {error}") from error
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise ConnectorError(f"{path}: header: column '{twice[0]}' is there twice")
        config = self.config
        for option in (config.key_column, config.time_column, *(config.columns or ())):
            if option is not None and option not in names:
                raise ConnectorError(f"{path}: header: has no column '{option}'; it has {names}")
        key, time = (names.index(n) if n is not None else -1 for n in (config.key_column, config.time_column))
        chosen = config.columns or self._numbers(names, first, {config.key_column, config.time_column})
        if chosen is not None and len(chosen) != sum(self.sizes):
            shapes = [f"{t.name} {t.shape}" for t in self.inputs]
            raise ConnectorError(
                f"{path}: {len(chosen)} columns {list(chosen)}, the model's frame has {sum(self.sizes)} values "
                f"({', '.join(shapes)}); choose them with columns = [..]"
            )
        return Columns(len(names), tuple(names.index(n) for n in chosen or ()), key, time)

    def _numbers(self, names: list[str], first: Line | None, but: set[str | None]) -> list[str] | None:
        """The columns of numbers; None where there is no row to tell."""
        if first is None:
            return None
        try:
            fields = self.split(first)
        except CodecError:
            fields = []
        if len(fields) != len(names):
            return [n for n in names if n not in but]
        return [n for n, text in zip(names, fields, strict=True) if n not in but and _is_number(text)]

    def row(self, line: Line, columns: Columns) -> Row:
        """Raises CodecError."""
        fields = self.split(line)
        if len(fields) != columns.width:
            raise CodecError(f"the row has {len(fields)} fields, the header has {columns.width}")
        time_ns = parse_time_ns(fields[columns.time], self.unit) if columns.time >= 0 else None
        arrays, start = {}, 0
        for tensor, size in zip(self.inputs, self.sizes, strict=True):
            texts = [fields[i] for i in columns.frame[start : start + size]]
            arrays[tensor.name], start = _numbers(texts, tensor).reshape(1, *tensor.shape), start + size
        return Row(arrays, fields[columns.key] if columns.key >= 0 else None, time_ns)

    def split(self, line: Line) -> list[str]:
        """The fields of a line. Raises CodecError."""
        if line.problem:
            raise CodecError(line.problem)
        try:
            text = line.text.decode()
            if '"' not in text:
                return text.split(self.delimiter)
            return next(csv.reader([text], delimiter=self.delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise CodecError(f"not UTF-8 at byte {error.start} of the line") from error
        except csv.Error as error:
            raise CodecError(f"{error}; a row is one line, a quoted field may not go on over its end") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _numbers(texts: Sequence[str], tensor: TensorSpec) -> np.ndarray:
    """Finite numbers that the dtype holds. Raises CodecError."""
    kind = np.dtype(tensor.dtype).kind
    for text in texts:
        if not (text.strip().lower() in _BOOLS if kind == "b" else _is_number(text)):
            raise CodecError(f"{text!r:.80} is not a {'bool' if kind == 'b' else 'number'} (input '{tensor.name}')")
    try:
        if kind == "b":
            return np.array([_BOOLS[t.strip().lower()] for t in texts], bool)
        if kind in "iu":
            return np.array([int(t) for t in texts], tensor.dtype)
    except (ValueError, OverflowError) as error:
        raise CodecError(f"input '{tensor.name}': not {tensor.dtype}: {error}") from error
    values, safe = [float(t) for t in texts], _SAFE[tensor.dtype]
    if all(-safe < v < safe for v in values):
        return np.array(values, tensor.dtype)
    with np.errstate(over="ignore"):
        array = np.array(values, np.float64).astype(tensor.dtype)
    if not np.isfinite(array).all():
        bad = texts[int(np.argmin(np.isfinite(array)))]
        raise CodecError(f"input '{tensor.name}': {bad!r:.80} is not a finite {tensor.dtype}")
    return array
