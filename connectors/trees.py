"""Nested lists of numbers as JSON or MessagePack: strictly typed, and no deeper than the model's frame."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from ..engine.artifact import TensorSpec
from ..engine.errors import CodecError


@dataclass(frozen=True, slots=True)
class Tree:
    """One of the two notations. depth(payload): how many lists open at its very beginning, at most `limit`."""

    name: str
    depth: Callable[[bytes, int], int]
    decode: Callable[..., Any]
    encode: Callable[[Any], bytes]

    def array(self, payload: bytes, tensor: TensorSpec) -> tuple[np.ndarray, bool]:
        """`(T, *frame)` and whether the payload is a single frame. Raises CodecError."""
        rank = len(tensor.shape)
        values, depth = self._values(payload, tensor)
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

    def _values(self, payload: bytes, tensor: TensorSpec) -> tuple[Any, int]:
        rank = len(tensor.shape)
        depth = self.depth(payload, rank + 2)
        if not rank <= depth <= rank + 1 and not (depth == 1 and rank):
            raise CodecError(
                f"input '{tensor.name}': the payload has lists {_or_more(depth, rank)} deep, "
                f"expected a frame of shape {tensor.shape} ({rank} deep) or a list of those"
            )
        try:
            return self.decode(payload, type=_nested(tensor.dtype, depth)), depth
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"input '{tensor.name}': not the {self.name} of numbers: {error}") from error

    def fields(self, payload: bytes) -> dict[str, bytes]:
        """An object's members, each still encoded. Raises CodecError."""
        try:
            return {name: bytes(raw) for name, raw in self.decode(payload, type=dict[str, msgspec.Raw]).items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"not a {self.name} object: {error}") from error


def _or_more(depth: int, rank: int) -> str:
    return f"{depth} or more" if depth == rank + 2 else str(depth)


@lru_cache
def _nested(dtype: str, depth: int) -> Any:
    kind: Any = {"f": float, "i": int, "u": int, "b": bool}[np.dtype(dtype).kind]
    for _ in range(depth):
        kind = list[kind]
    return kind


def _typed(values: Any, tensor: TensorSpec) -> np.ndarray:
    """Finite numbers that the dtype holds."""
    try:
        if np.dtype(tensor.dtype).kind != "f":
            return np.array(values, tensor.dtype)
        wide = np.array(values, np.float64)
    except (ValueError, OverflowError) as error:
        raise CodecError(f"input '{tensor.name}': not an even array of {tensor.dtype} ({error})") from error
    with np.errstate(over="ignore"):
        array = wide.astype(tensor.dtype)
    if not np.isfinite(array).all():
        bad = wide[~np.isfinite(array)].flat[0]
        raise CodecError(f"input '{tensor.name}': {bad} is not a finite {tensor.dtype}")
    return array


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


JSON = Tree("JSON", _json_depth, msgspec.json.decode, msgspec.json.encode)
MSGPACK = Tree("MessagePack", _msgpack_depth, msgspec.msgpack.decode, msgspec.msgpack.encode)
