"""From keys to slots: an open-addressed table, about 30 bytes a stream beside the key itself."""

from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
from numba import types

from . import kernels
from .cache import load_static

Key = str | bytes | int
K = TypeVar("K", bound=Hashable)

_INDEX, _SLOTS, _MARKS, _I64 = types.int64[::1], types.int64[::1], types.int32[::1], types.int64
_SIGNATURES = {
    "get": [(_INDEX, _I64)],
    "find": [(_INDEX, _I64, _SLOTS, _MARKS, _I64)],
    "insert": [(_INDEX, _I64, _I64)],
    "insert_many": [(_INDEX, _SLOTS, _SLOTS)],
    "pop": [(_INDEX, _I64)],
    "move": [(_INDEX, _I64, _I64)],
    "finite": [(types.Array(types.float32, rank, "C"),) for rank in (1, 2, 3, 4)],
}
_SMALLEST = 64


@cache
def compiled() -> Any:
    """The loops of `kernels`, compiled once a process."""
    return load_static([getattr(kernels, name) for name in _SIGNATURES], _SIGNATURES)


class KeyIndex(Generic[K]):
    """The slots of up to `max_streams` keys. Strings, bytes and numbers that look alike are different keys."""

    def __init__(self, max_streams: int):
        self._do = compiled()
        self._keys: list[K | None] = []
        self._hashes = np.empty(max_streams, np.int64)
        self._marks = np.zeros(max_streams, np.int32)
        self._stamp = 0
        self._count = 0
        self._index = np.zeros(5, np.int64)
        self._index[1:3] = self._hashes.ctypes.data, id(self._keys)
        self._room(_SMALLEST)

    def _room(self, size: int) -> None:
        self._table = np.full(size, -1, np.int32)
        self._index[0], self._index[3:] = self._table.ctypes.data, (size - 1, 65 - size.bit_length())

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: object) -> bool:
        return self.get(key) >= 0

    def __iter__(self) -> Iterator[K]:
        return (key for key in self._keys if key is not None)

    def get(self, key: Any) -> int:
        """The key's slot, -1 where not resident."""
        return max(-1, self._do.get(self._index, id(key)))

    def find(self, keys: list[Any]) -> tuple[np.ndarray, int]:
        """Slots of the keys, int64, -1 where not resident; and KNOWN, UNKNOWN, NO_KEY or TWICE, the worst of them."""
        slots = np.empty(len(keys), np.int64)
        self._stamp += 1
        if self._stamp == 2**31:
            self._marks[:], self._stamp = 0, 1
        return slots, self._do.find(self._index, id(keys), slots, self._marks, self._stamp)

    def _grow(self, more: int) -> None:
        """Makes room for so many more keys."""
        size = len(self._table)
        while (self._count + more - 1) * 8 >= size * 5:
            size *= 2
        if size > len(self._table):
            old = self._table
            self._room(size)
            self._do.move(self._index, old.ctypes.data, len(old))

    def add_many(self, keys: list[K], slots: list[int]) -> None:
        """Gives distinct keys, none of them resident, distinct slots."""
        self._grow(len(keys))
        self._keys += [None] * (1 + max(slots, default=-1) - len(self._keys))
        for key, slot in zip(keys, slots, strict=True):
            self._keys[slot] = key
        digests = np.fromiter(map(hash, keys), np.int64, len(keys))
        self._do.insert_many(self._index, np.array(slots, np.int64), digests)
        self._count += len(keys)

    def add(self, key: K, slot: int) -> None:
        """Gives a key, which is not resident, a slot."""
        self._grow(1)
        if slot == len(self._keys):
            self._keys.append(key)
        else:
            self._keys[slot] = key
        self._do.insert(self._index, slot, hash(key))
        self._count += 1

    def pop(self, key: Any) -> int:
        """Forgets a key: its slot, -1 where it is not resident."""
        slot = self._do.pop(self._index, id(key))
        if slot < 0:
            return -1
        self._keys[slot] = None
        self._count -= 1
        return slot

    def key(self, slot: int) -> Any:
        """The key of a slot that has one."""
        return self._keys[slot]

    def items(self) -> list[tuple[K, int]]:
        """Each resident key with its slot, by slot."""
        return [(key, slot) for slot, key in enumerate(self._keys) if key is not None]
