"""Operators that move elements: views where the memory is in order, copies elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, feature_axis, given, numbers, optional, text
from .elementwise import pointwise
from .folding import BATCH_SIZE
from .joins import cut_joined, joined_lazily, pieces_of, whole
from .program import BATCH, Lowering, Program, Unsupported, Value, strides, view


def with_batch(dims: Sequence[int]) -> list[int]:
    """A shape that was computed from the graph's shapes."""
    return [BATCH if d == BATCH_SIZE else int(d) for d in dims]


def features(shape: Sequence[int]) -> int:
    return math.prod(d for d in shape if d != BATCH)


def reshaped(x: Value, target: Sequence[int], zero_is_zero: bool = False) -> tuple[int, ...]:
    """ONNX Reshape's output shape with its batch axis, where the reshape leaves the streams' rows whole."""
    refusal = Unsupported(f"a reshape from {x.shape} to {list(target)}, which mixes the batch axis with others")
    free = target.index(-1) if -1 in target else None
    out = [x.shape[i] if d == 0 and not zero_is_zero else d for i, d in enumerate(with_batch(target))]
    known = [d for i, d in enumerate(out) if i != free]
    if free is not None:
        rest = x.size // (features(known) or 1)
        out[free] = rest if BATCH in known else BATCH
    if out.count(BATCH) != 1 or features(out) != x.size:
        raise refusal
    if math.prod(x.shape[: x.shape.index(BATCH)]) != math.prod(out[: out.index(BATCH)]):
        raise refusal
    return tuple(out)


def reshape(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, target = given(inputs), constant(inputs, 1, "shapes").tolist()
    return [view(x, reshaped(x, target, bool(attributes.get("allowzero", 0))))]


def flatten(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, axis = given(inputs), attributes.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    head, tail = x.shape[:axis], x.shape[axis:]
    if features(head) != 1 or BATCH not in head:
        raise Unsupported("a flattening that mixes the batch axis with others")
    return [view(x, (BATCH, features(tail)))]


def squeeze(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, axes = given(inputs), numbers(inputs, attributes, 1, "axes")
    chosen = {a % len(x.shape) for a in axes} if axes is not None else {i for i, d in enumerate(x.shape) if d == 1}
    if any(x.shape[a] != 1 for a in chosen):
        raise Unsupported(f"squeezing axes {sorted(chosen)} of {x.shape}")
    return [view(x, [d for i, d in enumerate(x.shape) if i not in chosen])]


def unsqueeze(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, given_axes = given(inputs), numbers(inputs, attributes, 1, "axes") or []
    rank = len(x.shape) + len(given_axes)
    axes, rest = {a % rank for a in given_axes}, iter(x.shape)
    return [view(x, [1 if i in axes else next(rest) for i in range(rank)])]


def transposed(program: Program, x: Value, order: Sequence[int]) -> Value:
    shape = tuple(x.shape[a] for a in order)
    if x.const is not None and not x.batched:
        return program.parameter(x.const.transpose(order))
    moved = [a for a in order if x.shape[a] not in (1, BATCH)]
    if moved == sorted(moved):
        return view(x, shape)
    axes = [a for a in order if x.shape[a] != BATCH]
    dims = [x.shape[a] for a in axes]
    out = program.like(x, shape, every=True)
    program.strided(out, x, dims, strides(dims), [x.row_strides[a] for a in axes])
    return out


def transpose(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    return [transposed(program, x, list(attributes.get("perm", range(len(x.shape))[::-1])))]


def cut(program: Program, x: Value, axis: int, start: int, count: int, step: int = 1) -> Value:
    """x[.., start : : step, ..] along one axis; no copy where it is one run of memory."""
    axis = feature_axis(x, axis, "cutting")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    outer, after = features(x.shape[:axis]), features(x.shape[axis + 1 :])
    if outer == 1 and step == 1:
        return view(x, shape, start * after)
    out = program.like(x, shape)
    of = [x.shape[axis] * after, step * after, 1]
    program.strided(out, x, [outer, count, after], [count * after, after, 1], of, (0, start * after))
    return out


def taken(program: Program, x: Value, axis: int, places: np.ndarray) -> Value:
    """The entries at constant places of one axis."""
    axis = feature_axis(x, axis, "places on")
    steps = np.unique(np.diff(places))
    if len(places) and len(steps) <= 1 and (len(steps) == 0 or steps[0] != 0):
        return cut(program, x, axis, int(places[0]), len(places), int(steps[0]) if len(steps) else 1)
    outer, after, count = features(x.shape[:axis]), features(x.shape[axis + 1 :]), len(places)
    out, table = program.like(x, (*x.shape[:axis], count, *x.shape[axis + 1 :])), program.parameter(places)
    width = after * x.item
    program.rows()
    program.say(f"o = {out.at()}", f"a = {x.at()}", f"e = {table.at()}", f"for i in range({outer}):", indent=2)
    program.say(f"for j in range({count}):", indent=3)
    source = f"a + (i * {x.shape[axis]} + get_int64(e + 8 * j)) * {width}"
    program.say(f"copy_bytes(o + (i * {count} + j) * {width}, {source}, {width})", indent=4)
    return out


def slicing(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    starts, ends = (numbers(inputs, attributes, i, name) for i, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise Unsupported("a missing input")
    axes = numbers(inputs, attributes, 3, "axes") or list(range(len(starts)))
    steps = numbers(inputs, {}, 4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if x.shape[axis] == BATCH and start == 0 and end >= BATCH_SIZE and step == 1:
            continue
        axis = feature_axis(x, axis, "cutting")
        chosen = range(x.shape[axis])[slice(start, end, step)]
        if x.pieces and (x.pieces[0] != axis or chosen.step != 1 or not chosen):
            x = whole(program, x)
        if x.pieces:
            x = _settled(program, cut_joined(x, chosen.start, len(chosen)), axis)
        else:
            x = cut(program, x, axis, chosen.start, len(chosen), chosen.step)
    return [x]


def _settled(program: Program, x: Value, axis: int) -> Value:
    """A joined value; where there is one piece, that as any other value."""
    _, (first, *more) = pieces_of(x)
    return x if more else cut(program, first.value, axis, first.start, first.size)


def split(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    axis = feature_axis(x, attributes.get("axis", 0), "splitting")
    sizes, parts = numbers(inputs, attributes, 1, "split"), len(node.output)
    if sizes is None:
        each = -(-x.shape[axis] // parts)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    return [cut(program, x, axis, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def concat(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    values = [given(inputs, i) for i in range(len(inputs))]
    axis = range(len(values[0].shape))[attributes["axis"]]
    return [joined_lazily(values, axis) or joined(program, values, axis)]


def joined(program: Program, values: list[Value], axis: int) -> Value:
    like = next(v for v in values if v.batched)
    axis = feature_axis(like, axis, "joining along")
    total = sum(v.shape[axis] for v in values)
    shape = (*like.shape[:axis], total, *like.shape[axis + 1 :])
    outer, after, done = features(shape[:axis]), features(shape[axis + 1 :]), 0
    out = program.scratch(shape, like.dtype)
    for v in values:
        if any(d != w for i, (d, w) in enumerate(zip(v.shape, shape, strict=True)) if i != axis and w != BATCH):
            raise Unsupported(f"joining {v.shape} and {like.shape}")
        if not v.batched and v.shape[shape.index(BATCH)] != 1:
            raise Unsupported("joining a constant that has a batch of its own")
        count = v.shape[axis]
        of = [count * after, after, 1]
        program.strided(out, v, [outer, count, after], [total * after, after, 1], of, (done * after, 0))
        done += count
    if out.range_or_none is None:
        return out
    return replace(out, bounds=(min(v.range[0] for v in values), max(v.range[1] for v in values)))


def spread(program: Program, x: Value, shape: Sequence[int]) -> Value:
    """x, whose axes are 1 where `shape` has another number, repeated along those."""
    axes = [i for i, d in enumerate(shape) if d != BATCH]
    dims = [shape[i] for i in axes]
    of = [0 if x.shape[i] == 1 else x.row_strides[i] for i in axes]
    if features(shape) == x.size and x.batched:
        return view(x, shape)
    out = program.like(x, shape, every=True)
    program.strided(out, x, dims, strides(dims), of)
    return out


def expand(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, wanted = given(inputs), with_batch(constant(inputs, 1, "shapes").tolist())
    rank = max(len(wanted), len(x.shape))
    have, want = (1,) * (rank - len(x.shape)) + x.shape, [1] * (rank - len(wanted)) + wanted
    shape = []
    for h, w in zip(have, want, strict=True):
        if len({h, w} - {1}) > 1 or (h == BATCH and w not in (1, BATCH)):
            raise Unsupported(f"spreading {have} to {want}")
        shape.append(w if h == 1 else h)
    return [spread(program, view(x, have), shape)]


def tile(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Each axis as one of repeats and one of entries."""
    x, repeats = given(inputs), constant(inputs, 1, "repeats").tolist()
    if any(d == BATCH and n != 1 for d, n in zip(x.shape, repeats, strict=True)):
        raise Unsupported("repeating the batch axis")
    pairs = [(1, d) for d in x.shape]
    apart = view(x, [d for pair in pairs for d in pair])
    wide = [d for n, (_, d) in zip(repeats, pairs, strict=True) for d in (n, d)]
    shape = [d if d == BATCH else n * d for n, d in zip(repeats, x.shape, strict=True)]
    return [view(spread(program, apart, wide), shape)]


def filled(program: Program, shape: Sequence[int], number: np.ndarray | np.generic) -> Value:
    """Room in which every element is that number."""
    return spread(program, view(program.parameter(number), [1] * len(shape)), shape)


def padded(
    program: Program, x: Value, before: Sequence[int], after: Sequence[int], number: np.ndarray | np.generic
) -> Value:
    """x with more entries of one number before and after those of each axis."""
    if not any((*before, *after)):
        return x
    shape = [d if d == BATCH else d + b + a for d, b, a in zip(x.shape, before, after, strict=True)]
    out = filled(program, shape, number.astype(x.dtype))
    axes = [i for i, d in enumerate(shape) if d != BATCH]
    start = sum(before[i] * out.row_strides[i] for i in axes)
    to, of = ([v.row_strides[i] for i in axes] for v in (out, x))
    program.strided(out, x, [x.shape[i] for i in axes], to, of, (start, 0))
    return replace(out, bounds=None, origin="")


def pad(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, pads = given(inputs), numbers(inputs, attributes, 1, "pads") or []
    rank = len(x.shape)
    axes = [a % rank for a in numbers(inputs, {}, 3, "axes") or range(rank)]
    before, after = [0] * rank, [0] * rank
    for i, a in enumerate(axes):
        before[a], after[a] = pads[i], pads[len(axes) + i]
    if before[x.shape.index(BATCH)] or after[x.shape.index(BATCH)]:
        raise Unsupported("padding the batch axis")
    for a in [a for a in range(rank) if before[a] < 0 or after[a] < 0]:
        left, right = max(0, -before[a]), max(0, -after[a])
        x = cut(program, x, a, left, x.shape[a] - left - right)
        before[a], after[a] = max(0, before[a]), max(0, after[a])
    mode = text(attributes, "mode", "constant")
    if mode != "constant":
        return [_mirrored(program, x, before, after, mode)]
    number = np.array(attributes.get("value", 0), np.float64)
    if optional(inputs, 2) is not None:
        number = constant(inputs, 2, "values").reshape(-1)[0]
    return [padded(program, x, before, after, number)]


def _mirrored(program: Program, x: Value, before: list[int], after: list[int], mode: Any) -> Value:
    """edge, reflect, wrap: places of x itself, an axis after the other."""
    for a in [a for a in range(len(x.shape)) if before[a] or after[a]]:
        x = taken(program, x, a, np.pad(np.arange(x.shape[a]), (before[a], after[a]), mode=mode))
    return x


def triangle(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, k = given(inputs), int(constant(inputs, 1, "diagonals").reshape(-1)[0]) if optional(inputs, 1) else 0
    rows, columns = (feature_axis(x, a, "a triangle over") for a in (-2, -1))
    ones = np.ones((x.shape[rows], x.shape[columns]), bool)
    mask = np.triu(ones, k) if attributes.get("upper", 1) else np.tril(ones, k)
    zero = program.parameter(np.zeros((), x.dtype))
    return [pointwise(program, "Where", [program.parameter(mask), x, zero])]


def constant_of_shape(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """With the batch axis in its shape; without it is folded."""
    from onnx import numpy_helper

    shape = with_batch(constant(inputs, 0, "shapes").tolist())
    number = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    full = np.full([d for d in shape if d != BATCH], number.reshape(-1)[0])
    return [replace(program.parameter(full, shape), const=None)]


SHAPES: dict[str, Lowering] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Slice": slicing,
    "Split": split,
    "Concat": concat,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "Trilu": triangle,
    "ConstantOfShape": constant_of_shape,
}
