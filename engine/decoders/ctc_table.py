"""An open-addressed table from int64 keys to int64 values that compiled code looks things up in."""

from typing import NamedTuple

import numpy as np
from numba import njit, types

from .inner import inner


class Table(NamedTuple):
    """keys: int64 (a power of two,), -1 where empty, at most half full. values: int64, by place."""

    keys: np.ndarray
    values: np.ndarray


TABLE = types.NamedUniTuple(types.int64[::1], 2, Table)


@inner
def _place(key, mask):
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask


@inner
def look_up(table, key):
    """The key's value; -1 where it is not there."""
    mask = table.keys.size - 1
    place = _place(key, mask)
    while table.keys[place] >= 0:
        if table.keys[place] == key:
            return table.values[place]
        place = (place + 1) & mask
    return np.int64(-1)


@njit
def fill(table, keys, values):
    """Puts in distinct keys."""
    mask = table.keys.size - 1
    for i in range(keys.size):
        place = _place(keys[i], mask)
        while table.keys[place] >= 0:
            place = (place + 1) & mask
        table.keys[place], table.values[place] = keys[i], values[i]


def empty_table(entries: int) -> Table:
    """Room for so many entries."""
    size = 1 << max(2, 2 * entries - 1).bit_length()
    return Table(np.full(size, -1, np.int64), np.zeros(size, np.int64))
