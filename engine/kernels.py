"""Compiled loops over keys and frames that no model decides: look-up of keys, and checks before a step.

Keys are Python objects, so `find` reads them through CPython's own functions and holds the GIL; nothing is allocated a
stream. The table is open-addressed with linear probing: int32 slots, -1 where empty, at most 5/8 full.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic

from .simd import LANES, fold_add, get_float32, get_int32, get_int64, load, set_int32, set_int64, splat, vabs

_OBJECT, _I32, _I64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
_EQUAL = 2  # Py_EQ


def _python(name: str, result: Any, *arguments: Any) -> Any:
    """A function of CPython's C interface for compiled code; objects are int64 addresses."""

    def codegen(context: Any, b: Any, _signature: Any, values: Any) -> Any:
        given = [b.inttoptr(v, a) if a is _OBJECT else b.trunc(v, a) for v, a in zip(values, arguments, strict=True)]
        kind = ir.FunctionType(result, list(arguments))
        out = b.call(cgutils.get_or_insert_function(b.module, kind, name), given)
        if result is _OBJECT:
            return b.ptrtoint(out, _I64)
        return context.get_dummy_value() if isinstance(result, ir.VoidType) else b.sext(out, _I64)

    returned = types.void if isinstance(result, ir.VoidType) else types.int64
    names = ", ".join("abc"[: len(arguments)])
    scope: dict[str, Any] = {"signature": returned(*[types.int64] * len(arguments)), "codegen": codegen}
    exec(f"def call(typingctx{', ' if names else ''}{names}):\n    return signature, codegen\n", scope)
    return intrinsic(scope["call"])


_item = _python("PyList_GetItem", _OBJECT, _OBJECT, _I64)
_hash = _python("PyObject_Hash", _I64, _OBJECT)
_compare = _python("PyObject_RichCompareBool", _I32, _OBJECT, _OBJECT, _I32)
_forget_error = _python("PyErr_Clear", ir.VoidType())

# A key index, int64 (5,): addresses of table, slots' hashes and the list of slots' keys; mask; shift.
TABLE, HASHES, KEYS, MASK, SHIFT = range(5)


@njit
def _place(index, digest):
    return np.int64((np.uint64(digest) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(index[SHIFT]))


@njit
def get(index, key):
    """The slot of the key at an address; -1 where not resident, -2 where it cannot be hashed or compared."""
    digest = _hash(key)
    if digest == -1:
        _forget_error()
        return -2
    place = _place(index, digest)
    while True:
        slot = get_int32(index[TABLE] + 4 * place)
        if slot < 0:
            return -1
        if get_int64(index[HASHES] + 8 * slot) == digest:
            same = _compare(_item(index[KEYS], np.int64(slot)), key, np.int64(_EQUAL))
            if same == 1:
                return np.int64(slot)
            if same < 0:
                _forget_error()
                return -2
        place = (place + 1) & index[MASK]


KNOWN, UNKNOWN, NO_KEY, TWICE = 0, 1, 2, 3


@njit
def find(index, wanted, slots, marks, stamp):
    """slots[i] = slot of the i-th key of the list at address `wanted`, -1 where it is not resident; the worst that was found.

    TWICE: a slot comes twice; marks, int32 (max_streams,), hold no `stamp` before. NO_KEY: an object has no hash.
    """
    worst = KNOWN
    for i in range(slots.size):
        slot = get(index, _item(wanted, i))
        slots[i] = slot
        if slot < 0:
            worst = max(worst, -slot)
        elif marks[slot] == stamp:
            worst = TWICE
        else:
            marks[slot] = stamp
    return worst


@njit
def insert(index, slot, digest):
    """Puts a slot, whose key is not in the table, into it."""
    set_int64(index[HASHES] + 8 * slot, digest)
    place = _place(index, digest)
    while get_int32(index[TABLE] + 4 * place) >= 0:
        place = (place + 1) & index[MASK]
    set_int32(index[TABLE] + 4 * place, slot)


@njit
def insert_many(index, slots, digests):
    """`insert` of many, whose keys are distinct."""
    for i in range(slots.size):
        insert(index, slots[i], digests[i])


@njit
def erase(index, slot):
    """Takes a slot out of the table: what follows without a gap moves up, where its own place allows."""
    hole = _place(index, get_int64(index[HASHES] + 8 * slot))
    while get_int32(index[TABLE] + 4 * hole) != slot:
        hole = (hole + 1) & index[MASK]
    place = hole
    while True:
        place = (place + 1) & index[MASK]
        other = get_int32(index[TABLE] + 4 * place)
        if other < 0:
            break
        home = _place(index, get_int64(index[HASHES] + 8 * other))
        if ((place - home) & index[MASK]) >= ((place - hole) & index[MASK]):
            set_int32(index[TABLE] + 4 * hole, other)
            hole = place
    set_int32(index[TABLE] + 4 * hole, -1)


@njit
def pop(index, key):
    """Takes the key at an address out of the table: its slot, or as `get` says."""
    slot = get(index, key)
    if slot >= 0:
        erase(index, slot)
    return slot


@njit
def move(index, old_table, old_size):
    """Puts every slot of a smaller table into this one."""
    for place in range(old_size):
        slot = get_int32(old_table + 4 * place)
        if slot >= 0:
            insert(index, np.int64(slot), get_int64(index[HASHES] + 8 * slot))


@njit(nogil=True)
def finite_floats(at, size):
    """Whether all of `size` float32 at an address are finite: x - x is zero only then."""
    wrong = splat(np.float32(0))
    whole = size - size % LANES
    for j in range(0, 4 * whole, 4 * LANES):
        wrong = wrong + vabs(load(at + j) - load(at + j))
    rest = np.float32(0)
    for j in range(whole, size):
        x = get_float32(at + 4 * j)
        rest += x - x
    return fold_add(wrong) + rest == np.float32(0)


@njit(nogil=True)
def finite(values):
    """Whether all of a C-ordered float32 array is finite."""
    return finite_floats(values.ctypes.data, values.size)


@intrinsic
def call_block(typingctx, block, n, memory):
    """`block(n, memory)` of a compiled program, whose address is given."""

    def codegen(context: Any, b: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64, _I64])
        return b.call(b.inttoptr(values[0], kind.as_pointer()), values[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen
