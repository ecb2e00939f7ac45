"""Values that are pieces of others end to end along one axis, such as a buffer and the frames behind it: copied where an operator needs that.

Slices of them and convolutions over them read the pieces where they lie, and a state that is its own last entries and some new
ones is moved within its row.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .program import BATCH, Program, Value, strides

JOINED = "j"  # the table of a value that has pieces


class Piece(NamedTuple):
    """Entries start .. start + size of the value's axis."""

    value: Value
    start: int
    size: int


def joined_lazily(values: Sequence[Value], axis: int) -> Value | None:
    """The values end to end, where that is a state and what comes behind it; else None."""
    first = values[0]
    if (
        len(values) != 2
        or first.table != "rows"
        or not all(v.batched and not v.pieces and v.const is None for v in values)
    ):
        return None
    alike = [(*v.shape[:axis], *v.shape[axis + 1 :]) for v in values]
    if alike[0] != alike[1] or first.dtype != values[1].dtype or first.shape[axis] == BATCH:
        return None
    return _of(first, [Piece(v, 0, v.shape[axis]) for v in values], axis)


def _of(like: Value, pieces: Sequence[Piece], axis: int) -> Value:
    shape = (*like.shape[:axis], sum(p.size for p in pieces), *like.shape[axis + 1 :])
    ranges = [p.value.range_or_none for p in pieces]
    known = [r for r in ranges if r is not None]
    bounds = (min(r[0] for r in known), max(r[1] for r in known)) if known else None
    return Value(shape, like.dtype, JOINED, 0, bounds=bounds, pieces=(axis, tuple(pieces)))


def pieces_of(value: Value) -> tuple[int, tuple[Piece, ...]]:
    """The axis and the pieces."""
    assert value.pieces is not None
    axis, pieces = value.pieces
    return axis, tuple(Piece(*p) for p in pieces)


def cut_joined(value: Value, start: int, count: int) -> Value:
    """Entries start .. start + count along its axis, still in pieces."""
    axis, pieces = pieces_of(value)
    kept, begin = [], 0
    for p in pieces:
        low, high = max(start, begin), min(start + count, begin + p.size)
        if low < high:
            kept.append(Piece(p.value, p.start + low - begin, high - low))
        begin += p.size
    return _of(value, kept, axis)


def whole(program: Program, value: Value) -> Value:
    """The value in one place."""
    axis, pieces = pieces_of(value)
    if len(pieces) == 1 and pieces[0].size == pieces[0].value.shape[axis]:
        return pieces[0].value
    out, begin = replace(program.scratch(value.shape, value.dtype), bounds=value.bounds), 0
    axes = [i for i, d in enumerate(value.shape) if d != BATCH]
    for p in pieces:
        dims = [p.size if i == axis else value.shape[i] for i in axes]
        to, of = ([v.row_strides[i] for i in axes] for v in (out, p.value))
        start = (begin * out.row_strides[axis], p.start * p.value.row_strides[axis])
        program.strided(out, p.value, dims, to, of, start)
        begin += p.size
    return out


def copied(program: Program, out: Value, x: Value, walk: Sequence[tuple[int, int, int]]) -> None:
    """out[i] = x[..], i over dimensions of (size, axis of x that it moves along, by how many entries); out in their order.

    Of a joined value at most two dimensions move along its axis.
    """
    dims = [size for size, _, _ in walk]
    to = strides(dims)
    if x.pieces is None:
        program.strided(out, x, dims, to, [x.row_strides[axis] * step for _, axis, step in walk])
        return
    joint, pieces = pieces_of(x)
    along = [d for d, (_, axis, _) in enumerate(walk) if axis == joint]
    outer, inner = sorted((along[0], along[-1]), key=dims.__getitem__)  # a copy is said for each entry of the outer one
    for k in range(dims[outer] if len(along) == 2 else 1):
        first, begin = k * walk[outer][2] if len(along) == 2 else 0, 0
        for p in pieces:
            size, step = dims[inner], walk[inner][2]
            low, high = (min(size, max(0, -((first - edge) // step))) for edge in (begin, begin + p.size))
            if low < high:
                here = [high - low if d == inner else 1 if d == outer else n for d, n in enumerate(dims)]
                of = [p.value.row_strides[axis] * by for _, axis, by in walk]
                at = (first + low * step - begin + p.start) * p.value.row_strides[joint]
                start = low * to[inner] + (k * to[outer] if len(along) == 2 else 0)
                program.strided(out, p.value, here, to, of, (start, at))
            begin += p.size


def shiftable(state: Value, value: Value) -> bool:
    """Whether the value is the state's own last entries and others, of no state, behind them."""
    axis, (own, *rest) = pieces_of(value)
    same = (own.value.table, own.value.offset, own.value.shape) == ("rows", state.offset, state.shape)
    at_end = own.start + own.size == state.shape[axis]
    return same and at_end and value.shape == state.shape and all(p.value.table != "rows" for p in rest)


def shift(program: Program, state: Value, value: Value) -> None:
    """Moves the state within its row, in one run of memory, and puts the others behind it: see `shiftable`."""
    axis, (own, *rest) = pieces_of(value)
    step = own.start * state.row_strides[axis] * state.item
    program.rows()
    program.say(f"o = {state.at()}", f"move_bytes(o, o + {step}, {state.size * state.item - step})", indent=2)
    axes, begin = [i for i, d in enumerate(state.shape) if d != BATCH], own.size
    for p in rest:
        dims = [p.size if i == axis else state.shape[i] for i in axes]
        to, of = ([v.row_strides[i] for i in axes] for v in (state, p.value))
        start = (begin * state.row_strides[axis], p.start * p.value.row_strides[axis])
        program.strided(state, p.value, dims, to, of, start)
        begin += p.size
