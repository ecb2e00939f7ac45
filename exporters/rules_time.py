"""Operators along time: windows of frames (convolution, pooling), padding, slices, joining, running sums, more or fewer frames.

What element i of the result reads is stated as a window (`timing.reach`); its past is a state of the step graph. Padding and slices are
kept as `Padding` and cost nothing where a window reads them next.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .clocks import Clock
from .rule_parts import attributes_of, constants, made_of, plain_axis
from .step_graph import StepGraph
from .timing import (
    batch_first,
    full,
    history,
    inside,
    like,
    masked,
    reach,
    settled,
    windowed,
    without_time,
)
from .tracked import BATCH, FEATURE, TIME, Frames, Known, Node, Padding, Tensor, step_axis, step_shape

_NO_END = 2**31 - 1  # exporters write this, or more, for "to the end"


# ------------------------------------------------------------------------------------------- padding and slices


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


# ---------------------------------------------------------------------------------------------------- windows


class Window:
    """A kernel that moves over the spatial axes of (B, C, ...): what it does along time, and the attributes for the rest."""

    def __init__(self, node: Node, x: Frames, kernel: Sequence[int]):
        rank = len(kernel)
        self.at = x.time - 2
        strides, dilations = (list(node.attribute(name) or [1] * rank) for name in ("strides", "dilations"))
        pads = list(node.attribute("pads") or [0] * (2 * rank))
        auto = node.attribute("auto_pad", b"NOTSET").decode()
        self.span = dilations[self.at] * (kernel[self.at] - 1)
        self.stride = strides[self.at]
        if auto.startswith("SAME"):
            if self.stride != 1:
                raise node.refuse(
                    f"its padding along time (auto_pad={auto} with a stride of {self.stride}) depends on how long the sequence is",
                    "give the pads as numbers",
                )
            for i, size in enumerate(x.shapes[0][2:]):
                reach_ = dilations[i] * (kernel[i] - 1)
                total = (
                    reach_ if i == self.at else max((-(-size // strides[i]) - 1) * strides[i] + reach_ + 1 - size, 0)
                )
                small = total // 2
                pads[i], pads[rank + i] = (small, total - small) if auto == "SAME_UPPER" else (total - small, small)
        elif auto == "VALID":
            pads = [0] * (2 * rank)
        self.before, self.after = pads[self.at], pads[rank + self.at]
        self.pads = [0 if i % rank == self.at else p for i, p in enumerate(pads)]
        self.strides, self.dilations = strides, dilations

    def read(self, step: StepGraph, x: Frames, fill: float) -> tuple[Frames, Padding]:
        """The tensor, without a padding of its own, and the padding that the window sees."""
        own = Padding(self.before, self.after, fill)
        given = x.padding
        if given is None:
            return x, own
        plain = own.before == own.after == 0
        if plain or (
            given.mode == "constant"
            and (given.fill == fill or max(given.before, given.after) <= 0)
            and not ((given.before < 0 < own.before) or (given.after < 0 < own.after))
        ):
            fill = given.fill if plain else fill
            both = Padding(given.before + own.before, given.after + own.after, fill, given.mode, given.order)
            return replace(x, padding=None), both
        return settled(step, x), own


def _spatial(node: Node) -> Frames:
    x = node.frames(0)
    if "B" not in x.labels[0]:
        raise node.refuse("its first axis is not the batch", "give it (batch, channels, ...)")
    if x.labels[1] != FEATURE:
        raise node.refuse(
            "its channels are the time axis, so a frame's result would need all other frames",
            "give it (batch, channels, time): transpose first",
        )
    return x


def _unmerged(node: Node, step: StepGraph, x: Frames, inputs: list[str], attributes: dict[str, Any]) -> Frames:
    """A window over features alone; a merged batch of several frames is one batch axis for it."""
    merged = len(step_shape(x)) > len(x.labels)
    name = x.name
    if merged:
        name = step.emit("Reshape", [name, step.ints(-1, *step_shape(x)[2:])], f"{node.hint}.merged")[0]
    out = step.emit(node.op, [name, *inputs], node.hint, **attributes)[0]
    made = made_of(x, out, x.labels, node)
    if merged:
        made = replace(made, name=step.emit("Reshape", [out, step.ints(*step_shape(made))], f"{node.hint}.apart")[0])
    return made


def convolution(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over features, and over time with any kernel, stride, dilation, groups and padding."""
    x = _spatial(node)
    kernel = np.asarray(node.constant(1))
    if x.time < 0:
        return [_unmerged(node, step, settled(step, x), constants(node, step, 1, 2), attributes_of(node))]
    window = Window(node, x, kernel.shape[2:])
    x, pad = window.read(step, x, 0.0)
    plain = (window.span, window.stride, pad.before, pad.after) == (0, 1, 0, 0)
    if plain and x.clock.per_step == 1 and len(x.labels) == 3 and node.attribute("group", 1) == 1:
        return [_matrix(node, step, x, kernel[:, :, 0])]
    clock = reach(step, x, pad, window.span, window.stride)
    name, _ = windowed(step, x, clock, pad, window.span, window.stride, node.hint)
    rest = attributes_of(node, "auto_pad", "pads", "strides", "dilations", "kernel_shape")
    attributes = {"kernel_shape": list(kernel.shape[2:]), "pads": window.pads, "strides": window.strides}
    attributes |= {"dilations": window.dilations, **rest}
    out = step.emit("Conv", [name, *constants(node, step, 1, 2)], f"{node.hint}.frames", **attributes)[0]
    return [_result(node, step, x, out, clock)]


def _result(node: Node, step: StepGraph, x: Frames, name: str, clock: Clock) -> Frames:
    """What a window made, without the time axis where a step has one element."""
    name = without_time(step, name, x.time, clock.per_step, node.hint)
    return Frames(name, x.labels, node.shapes[0], clock, x.dtype)


def _matrix(node: Node, step: StepGraph, x: Frames, weight: np.ndarray) -> Frames:
    """A kernel of one frame is a product with a matrix."""
    out = step.emit("MatMul", [x.name, step.constant(weight.T, f"{node.hint}.weight")], f"{node.hint}.product")
    step.matrices.add(out[0])
    bias = node.constant(2)
    if bias is not None:
        out = step.emit("Add", [out[0], step.constant(bias, f"{node.hint}.bias")], node.hint)
    return made_of(x, out[0], x.labels, node)


def pooling(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The largest or the mean of a window of features and frames."""
    x, kernel = _spatial(node), list(node.attribute("kernel_shape"))
    if len([o for o in node.proto.output if o]) > 1:
        raise node.refuse("it gives the places of the largest", "leave them out")
    if x.time < 0:
        return [_unmerged(node, step, settled(step, x), [], attributes_of(node))]
    largest, ceil = node.op == "MaxPool", int(node.attribute("ceil_mode", 0))
    window = Window(node, x, kernel)
    if ceil or (not largest and not node.attribute("count_include_pad", 0)):
        x = settled(step, x)  # frames of an earlier padding count as frames
    x, pad = window.read(step, x, -math.inf if largest else 0.0)
    if ceil and not largest and (window.stride > 1 or pad.before or pad.after):
        raise node.refuse("it is a mean with ceil_mode, whose last window is shorter", "use ceil_mode=False")
    if ceil:  # the last window begins within the padded sequence, and may end beyond it
        pad = replace(pad, after=min(pad.after + window.stride - 1, window.span))
    clock = reach(step, x, pad, window.span, window.stride)
    name, _ = windowed(step, x, clock, pad, window.span, window.stride, node.hint)
    rest = attributes_of(node, "auto_pad", "pads", "strides", "dilations", "ceil_mode", "storage_order")
    attributes = {"pads": window.pads, "strides": window.strides, **rest}
    if window.dilations != [1] * len(kernel):
        attributes["dilations"] = window.dilations
    out = step.emit(node.op, [name], f"{node.hint}.frames", **attributes)[0]
    if not largest and (pad.before > 0 or pad.after > 0) and not node.attribute("count_include_pad", 0):
        out = _of_those_inside(node, step, x, out, pad, clock, window)
    return [_result(node, step, x, out, clock)]


def _of_those_inside(
    node: Node, step: StepGraph, x: Frames, mean: str, pad: Padding, clock: Clock, window: Window
) -> str:
    """The mean of the frames that exist, where padding took part in `mean` as zeros."""
    real = step.emit("Cast", [inside(step, x.clock, True, True)], f"{node.hint}.real", to=1)[0]
    ones = Frames(real, (BATCH, TIME), (), x.clock, warm=0.0)
    name, _ = windowed(step, ones, clock, Padding(pad.before, 0), window.span, window.stride, f"{node.hint}.count")
    name = step.emit("Unsqueeze", [name, step.ints(1)], f"{node.hint}.counted")[0]
    kernel, stride = [window.span + 1], [window.stride]
    share = step.emit("AveragePool", [name], f"{node.hint}.share", kernel_shape=kernel, strides=stride)[0]
    after = [i for i in range(2, len(x.labels)) if i != x.time]
    if after:
        share = step.emit("Unsqueeze", [share, step.ints(*after)], f"{node.hint}.shares")[0]
    return step.emit("Div", [mean, share], f"{node.hint}.mean")[0]


def transposed_convolution(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """More frames than before: element j is the sum of w[k] x[i] over i * stride + k * dilation - before = j."""
    x = _spatial(node)
    kernel = np.asarray(node.constant(1))
    if x.time < 0:
        return [_unmerged(node, step, settled(step, x), constants(node, step, 1, 2), attributes_of(node))]
    if node.attribute("auto_pad", b"NOTSET") != b"NOTSET" or node.attribute("output_shape"):
        raise node.refuse("its padding follows from the size of its result", "give the pads as numbers")
    x = settled(step, x)
    window = Window(node, x, kernel.shape[2:])
    n, d, s, span = x.clock.per_step, x.clock.delay, window.stride, window.span
    more = list(node.attribute("output_padding") or [0] * len(window.strides))
    lengths = x.clock.then(s, span + 1 - s - window.before - window.after + more[window.at], 1, least=1)
    clock = Clock(n * s, 0, lengths).at_least(d * s + window.before, step.frames_per_step)
    count = -((clock.delay - d * s - window.before + span) // -s)
    right = span - window.after + more[window.at] >= s
    source = masked(step, x, 0.0, left=d > 0 and x.warm != 0, right=right)
    joined = history(step, source, count, np.array(0.0), node.hint)
    more[window.at] = max(0, s - 1 - span)
    rest = attributes_of(node, "pads", "strides", "dilations", "output_padding", "kernel_shape")
    attributes = {"kernel_shape": list(kernel.shape[2:]), "pads": window.pads, "strides": window.strides}
    attributes |= {"dilations": window.dilations, "output_padding": more, **rest}
    out = step.emit("ConvTranspose", [joined, *constants(node, step, 1, 2)], f"{node.hint}.all", **attributes)[0]
    # the first element that `joined` reaches has index s * (t * n - d - count) - before; wanted is t * n * s - delay
    begin = s * (d + count) + window.before - clock.delay
    out = step.emit("Slice", [out, *(step.ints(v) for v in (begin, begin + n * s, x.time, 1))], f"{node.hint}.frames")[
        0
    ]
    return [_result(node, step, x, out, clock)]


def resize(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Every frame a whole number of times; features as they are resized."""
    x = settled(step, node.frames(0))
    factors = [after / before for before, after in zip(x.shapes[0], node.shapes[0][0], strict=True)]
    if x.time < 0:
        return [_resized(node, step, x, x, x.name, factors)]
    s = round(factors[x.time])
    exact = all(b[x.time] == s * a[x.time] for a, b in zip(x.shapes, node.shapes[0], strict=True))
    mode = node.attribute("mode", b"nearest").decode()
    if not exact or s < 1:
        raise node.refuse(
            f"it makes {factors[x.time]:.3g} frames of one, which is no whole number", "resize by a whole number"
        )
    if s > 1 and mode != "nearest":
        raise node.refuse(
            f"it computes frames between frames in mode '{mode}'", "use mode='nearest', and a convolution after it"
        )
    clock = Clock(x.clock.per_step * s, x.clock.delay * s, x.clock.then(s, 0, 1))
    name = full(step, x)
    if s == 1:
        return [_resized(node, step, x, replace(x, clock=clock), x.name, factors)]
    made = Frames(name, x.labels, node.shapes[0], clock, x.dtype)
    at = step_axis(x, x.time, full=True)
    scales = step.constant(np.array([s if i == at else 1 for i in range(len(x.labels))], np.float32), "scales")
    rest: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if any(f != 1 for i, f in enumerate(factors) if i != x.time):
        raise node.refuse("it resizes time and features together", "resize one after the other")
    return [replace(made, name=step.emit("Resize", [name, "", scales], node.hint, **rest)[0])]


def _resized(node: Node, step: StepGraph, x: Frames, made: Frames, name: str, factors: list[float]) -> Frames:
    """Features alone."""
    scales = [f for i, f in enumerate(factors) if i != x.time or x.clock.per_step > 1]
    given = step.constant(np.array(scales, np.float32), "scales")
    out = step.emit("Resize", [name, "", given], node.hint, **attributes_of(node, "keep_aspect_ratio_policy", "axes"))
    return replace(made, name=out[0], shapes=node.shapes[0])


# ------------------------------------------------------------------------------------------------ running values


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
