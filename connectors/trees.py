"""Nested lists of numbers in JSON, MessagePack or Python's own values: strictly typed, and no deeper than the model's frame."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache, partial
from typing import Any

import msgspec
import numpy as np

from ..engine.artifact import TensorSpec
from ..engine.errors import CodecError

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Tree:
    """One of the notations. A part is bytes, or of Python's own values such a value.

    depth(part, limit): how many lists open at its very beginning, at most `limit`. reader(type): what makes that type of a part.
    members(part): an object's, each a part. null(part): it stands for nothing. moment(part): text of a time, or a datetime.
    """

    name: str
    depth: Callable[[Any, int], int]
    reader: Callable[[Any], Callable[[Any], Any]]
    members: Callable[[Any], dict[str, Any]]
    null: Callable[[Any], bool]
    moment: Callable[[Any], str | datetime]

    def array(self, part: Any, tensor: TensorSpec) -> tuple[np.ndarray, bool]:
        """`(T, *frame)` and whether the part is a single frame. Raises CodecError."""
        rank = len(tensor.shape)
        values, depth = self._values(part, tensor)
        if values == [] and rank:
            return np.zeros((0, *tensor.shape), tensor.dtype), False
        single = depth == rank
        array = _typed(values, tensor)
        if array.shape[0 if single else 1 :] != tensor.shape:
            shape = f"{array.shape} (a frame)" if single else f"{array.shape} (a chunk)"
            raise CodecError(
                f"input '{tensor.name}': the payload has shape {shape}, expected a frame {tensor.shape} or a list of those"
            )
        return (array[None] if single else array), single

    def _values(self, part: Any, tensor: TensorSpec) -> tuple[Any, int]:
        rank = len(tensor.shape)
        depth = self.depth(part, rank + 2)
        if not rank <= depth <= rank + 1 and not (depth == 1 and rank):
            raise CodecError(
                f"input '{tensor.name}': the payload has lists {_or_more(depth, rank)} deep, "
                f"expected a frame of shape {tensor.shape} ({rank} deep) or a list of those"
            )
        try:
            return self.numbers(tensor.dtype, depth)(part), depth
        except UNREADABLE as error:
            raise CodecError(f"input '{tensor.name}': not the {self.name} of numbers: {error}") from error

    def numbers(self, dtype: str, depth: int) -> Callable[[Any], Any]:
        """Reads lists so deep of the numbers of a dtype."""
        return _numbers(self.reader, np.dtype(dtype).kind, depth)

    def fields(self, part: Any) -> dict[str, Any]:
        """An object's members, each a part. Raises CodecError."""
        try:
            return self.members(part)
        except UNREADABLE as error:
            raise CodecError(f"not a {self.name} object: {error}") from error

    def value(self, part: Any, kind: Any, what: str) -> Any:
        """Raises CodecError."""
        try:
            return self.reader(kind)(part)
        except UNREADABLE as error:
            raise CodecError(f"{what}: {error}") from error


def frames_at_once(rows: list[Any], tensor: TensorSpec) -> tuple[np.ndarray, np.ndarray] | None:
    """Frames `(N, *frame)` of N nested lists, and which of them are finite, bool (N,). None where they are no even array."""
    try:
        array, _ = _array(rows, tensor)
    except (ValueError, OverflowError):
        return None
    if array.shape != (len(rows), *tensor.shape):
        return None
    return array, np.asarray(np.isfinite(array).all(axis=tuple(range(1, array.ndim))))


def _or_more(depth: int, rank: int) -> str:
    return f"{depth} or more" if depth == rank + 2 else str(depth)


@lru_cache
def _numbers(reader: Callable[[Any], Callable[[Any], Any]], kind: str, depth: int) -> Callable[[Any], Any]:
    nested: Any = {"f": float, "i": int, "u": int, "b": bool}[kind]
    for _ in range(depth):
        nested = list[nested]
    return reader(nested)


def _typed(values: Any, tensor: TensorSpec) -> np.ndarray:
    """Finite numbers that the dtype holds."""
    try:
        array, wide = _array(values, tensor)
    except (ValueError, OverflowError) as error:
        raise CodecError(f"input '{tensor.name}': not an even array of {tensor.dtype} ({error})") from error
    if not np.isfinite(array).all():
        bad = wide[~np.isfinite(array)].flat[0]
        raise CodecError(f"input '{tensor.name}': {bad} is not a finite {tensor.dtype}")
    return array


def _array(values: Any, tensor: TensorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Of the tensor's dtype, and, of floats, as they were read."""
    if np.dtype(tensor.dtype).kind != "f":
        array = np.array(values, tensor.dtype)
        return array, array
    wide = np.array(values, np.float64)
    with np.errstate(over="ignore"):
        return wide.astype(tensor.dtype), wide


def _json_depth(payload: bytes, limit: int) -> int:
    depth = 0
    for byte in payload:
        if byte == 0x5B:  # [
            depth += 1
            if depth == limit:
                break
        elif byte not in b" \t\r\n":
            break
    return depth


def _msgpack_depth(payload: bytes, limit: int) -> int:
    depth = place = 0
    while depth < limit and place < len(payload):
        byte = payload[place]
        width = 1 if 0x90 <= byte <= 0x9F else {0xDC: 3, 0xDD: 5}.get(byte, 0)
        if not width:
            break
        depth, place = depth + 1, place + width
    return depth


def _value_depth(value: Any, limit: int) -> int:
    depth = 0
    while isinstance(value, list) and depth < limit:
        depth, value = depth + 1, value[0] if value else None
    return depth


@cache
def _json(kind: Any) -> Callable[[Any], Any]:
    return msgspec.json.Decoder(kind).decode


@cache
def _msgpack(kind: Any) -> Callable[[Any], Any]:
    return msgspec.msgpack.Decoder(kind).decode


@cache
def _convert(kind: Any) -> Callable[[Any], Any]:
    return partial(msgspec.convert, type=kind)


def _members(reader: Callable[[Any], Callable[[Any], Any]], part: bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in reader(dict[str, msgspec.Raw])(part).items()}


def _json_moment(part: bytes) -> str:
    """A number stays the text that it is, so that none of its digits is lost."""
    part = part.strip()
    return _json(str)(part) if part[:1] == b'"' else part.decode()


def _moment(value: Any) -> str | datetime:
    if isinstance(value, bool) or not isinstance(value, str | int | float | datetime):
        raise msgspec.ValidationError(f"Expected `str | int | float | datetime`, got `{type(value).__name__}`")
    return repr(value) if isinstance(value, int | float) else value


JSON = Tree("JSON", _json_depth, _json, partial(_members, _json), lambda part: part.strip() == b"null", _json_moment)
MSGPACK = Tree(
    "MessagePack",
    _msgpack_depth,
    _msgpack,
    partial(_members, _msgpack),
    lambda part: part == b"\xc0",
    lambda part: _moment(_msgpack(Any)(part)),
)
VALUES = Tree("Avro", _value_depth, _convert, _convert(dict[str, Any]), lambda part: part is None, _moment)
