"""Operators along time: padding, slices, joining, running sums.

Padding and slices are kept as `Padding` and cost nothing where a window reads them next (`rules_windows`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .clocks import Clock
from .rule_parts import attributes_of, made_of, plain_axis
from .step_graph import StepGraph
from .timing import (
    batch_first,
    history,
    like,
    masked,
    reach,
    settled,
    windowed,
    without_time,
)
from .tracked import BATCH, Frames, Known, Node, Padding, Tensor, step_axis, step_shape

_NO_END = 2**31 - 1  # exporters write this, or more, for "to the end"


def padded_by(step: StepGraph, x: Frames, before: int, after: int, fill: float) -> Frames:
    """`x` with that padding (below zero: cut off), together with what it has where both are one."""
    old = x.padding or Padding(0, 0, fill)
    sides = ((old.before, before), (old.after, after))
    same = old.fill == fill or max(old.before, old.after) <= 0 or max(before, after) <= 0
    if not same or old.mode != "constant" or any(o < 0 < b for o, b in sides):
        x, old = settled(step, x), Padding(0, 0, fill)
    kept = fill if max(before, after) > 0 else old.fill
    joined = Padding(old.before + before, old.after + after, kept, order=(*old.order, before + after))
    return replace(x, padding=joined if any((joined.before, joined.after)) or min(joined.order) < 0 else None)


def pad_time(node: Node, step: StepGraph, x: Frames, widths: tuple[int, int], fill: float) -> Frames:
    """`x` padded along time by a constant."""
    mode = node.attribute("mode", b"constant").decode()
    if mode == "constant" or max(widths) <= 0:
        return padded_by(step, x, *widths, fill)
    if mode == "wrap" or min(widths) < 0:
        raise node.refuse(
            f"it pads time by {widths} frames in mode '{mode}'", "pad with a constant, the edge, or mirrored frames"
        )
    return replace(settled(step, x), padding=Padding(*widths, 0.0, mode, (sum(widths),)))


def is_whole(x: Frames, node: Node, axis: int) -> bool:
    """Whether a slice keeps all of a features' or batch axis."""
    return axis != x.time and all(a[axis] == b[axis] for a, b in zip(x.shapes, node.shapes[0], strict=True))


def slice_time(node: Node, step: StepGraph, x: Frames, bounds: Sequence[tuple[int, int]], stride: int) -> Frames:
    """`x[first:last:stride]` along time; bounds: in each world."""
    sizes = [shape[x.time] for shape in x.shapes]
    first = {a if a >= 0 else a + size for (a, _), size in zip(bounds, sizes, strict=True)}
    fixed = len(set(sizes)) > 1 and len({b for _, b in bounds}) == 1 and 0 <= bounds[0][1] < _NO_END
    left_out = {min(0, (b if b >= 0 else b + size) - size) for (_, b), size in zip(bounds, sizes, strict=True)}
    if len(first) > 1 or len(left_out) > 1 or fixed or stride < 1:
        kinds = {"frames backwards": stride < 1, "the last frames": len(first) > 1, "the first frames": fixed}
        what = next((words for words, so in kinds.items() if so), "frames")
        raise node.refuse(
            f"it selects {what} along axis {x.time}, the time axis, which depends on how long the sequence is",
            "give the output of every frame, and take the last one (or the wanted ones) from what the stream gives",
        )
    x = padded_by(step, x, -first.pop(), left_out.pop(), 0.0)
    if stride == 1:
        return x
    return _every(step, settled(step, x), stride, node.hint)


def _every(step: StepGraph, x: Frames, stride: int, hint: str) -> Frames:
    """Every stride-th element."""
    source = batch_first(step, x)
    clock = reach(step, source, Padding(0, 0), 0, stride)
    name, _ = windowed(step, source, clock, Padding(0, 0), 0, stride, hint)
    at = step_axis(source, source.time, full=True)
    if clock.per_step > 1:
        stop = (clock.per_step - 1) * stride + 1
        name = step.emit("Slice", [name, *(step.ints(v) for v in (0, stop, at, stride))], hint)[0]
    name = without_time(step, name, at, clock.per_step, hint)
    return like(step, replace(source, name=name, clock=clock, warm=None), x)


def concat_time(node: Node, step: StepGraph, axis: int) -> Frames:
    """Frames with constant frames before or after them."""
    at = [i for i, v in enumerate(node.inputs) if isinstance(v, Frames)]
    if len(at) > 1:
        raise node.refuse("it joins sequences of frames one after the other", "join them along features")
    x = node.frames(at[0])
    before, after = node.inputs[: at[0]], node.inputs[at[0] + 1 :]
    ends = [np.concatenate([_fixed(node, v, axis) for v in side], axis) if side else None for side in (before, after)]
    fills = [float(e.flat[0]) for e in ends if e is not None and e.size and (e == e.flat[0]).all()]
    if len(fills) == len([e for e in ends if e is not None and e.size]) and len(set(fills)) <= 1:
        wide, long = (0 if e is None else e.shape[axis] for e in ends)
        return replace(padded_by(step, x, wide, long, fills[0] if fills else 0.0), shapes=node.shapes[0])
    if ends[1] is not None and ends[1].size:
        raise node.refuse(
            "it puts frames of several values after the last frame", "put one value there, or none at all"
        )
    assert ends[0] is not None
    return _after(node, step, x, ends[0], axis)


def _fixed(node: Node, value: Tensor | None, axis: int) -> np.ndarray:
    """A constant of some frames, the same for every stream: size 1 along the batch."""
    assert isinstance(value, Known)
    arrays = []
    for array in value.values:
        for other, sizes in enumerate(zip(*value.shapes, strict=True)):
            if other != axis and sizes == node.batches:
                array = array.take([0], other)
        arrays.append(array)
    if any(not np.array_equal(arrays[0], a) for a in arrays):
        raise node.refuse(
            f"it joins '{value.name}', which depends on how long the sequence is", "join a constant number of frames"
        )
    return arrays[0]


def _after(node: Node, step: StepGraph, x: Frames, first: np.ndarray, axis: int) -> Frames:
    """`x` after frames of several values, which are the beginning of a delay line."""
    if x.clock.delay > 0:
        raise node.refuse(
            f"it puts frames of several values before frames that come {x.clock.delay} late", "put zeros there instead"
        )
    count = first.shape[axis]
    source = batch_first(step, x)
    moved = np.moveaxis(first, x.labels.index(BATCH), 0)[0]
    clock = Clock(x.clock.per_step, 0, x.clock.then(1, count, 1))
    joined = history(step, source, count, moved, node.hint)
    at = step_axis(source, source.time, full=True)
    name = step.emit("Slice", [joined, *(step.ints(v) for v in (0, clock.per_step, at, 1))], node.hint)[0]
    name = without_time(step, name, at, clock.per_step, node.hint)
    return like(step, replace(source, name=name, clock=clock, shapes=node.shapes[0]), replace(x, shapes=node.shapes[0]))


def cumulative(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """A running sum over features, or over time, whose last value is a state."""
    x, given = node.frames(0), node.constant(1)
    axis = int(np.asarray(given).reshape(-1)[0]) % len(x.labels)
    if axis != x.time:
        axis = plain_axis(node, x, axis)
        at = step.constant(np.array(step_axis(x, axis), np.int64), "axis")
        out = step.emit(node.op, [x.name, at], node.hint, **attributes_of(node))
        return [made_of(x, out[0], x.labels, node)]
    if node.attribute("reverse", 0):
        raise node.refuse("it is a running sum from the last frame backwards", "sum forwards")
    return [_running_sum(node, step, x)]


def _running_sum(node: Node, step: StepGraph, x: Frames) -> Frames:
    source = batch_first(step, masked(step, x, 0, left=x.clock.delay > 0 and x.warm != 0, right=False))
    at, n = step_axis(source, source.time, full=True), x.clock.per_step
    shape = [size for i, size in enumerate(step_shape(source)) if i and not (n > 1 and i == at)]
    past = step.state(f"{node.hint}.sum", np.zeros(shape, x.dtype))
    before = past
    within = source.name
    if n > 1:
        axis = step.constant(np.array(at, np.int64), "axis")
        exclusive = int(node.attribute("exclusive", 0))
        within = step.emit("CumSum", [source.name, axis], f"{node.hint}.within", exclusive=exclusive)[0]
        before = step.emit("Unsqueeze", [past, step.ints(at)], f"{past}.before")[0]
    out = step.emit("Add", [before, within], node.hint)[0]
    if n == 1:
        step.set_next(past, step.emit("Add", [past, source.name], f"{past}_next")[0])
        out = past if node.attribute("exclusive", 0) else out
    else:
        total = step.emit("ReduceSum", [source.name, step.ints(at)], f"{node.hint}.total", keepdims=0)[0]
        step.set_next(past, step.emit("Add", [past, total], f"{past}_next")[0])
    return like(step, replace(source, name=out, shapes=node.shapes[0], warm=None), replace(x, shapes=node.shapes[0]))
