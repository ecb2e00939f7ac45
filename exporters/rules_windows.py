"""Windows over time: convolution, pooling, their transposed and resized kin.

What element i of the result reads is stated as a window (`timing.reach`); its past is a state of the step graph.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .clocks import Clock
from .rule_parts import attributes_of, constants, made_of
from .step_graph import StepGraph
from .timing import full, history, inside, masked, reach, settled, windowed, without_time
from .tracked import BATCH, FEATURE, TIME, Frames, Node, Padding, Tensor, step_axis, step_shape


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
    """Every frame a whole number of times, or frames between frames; features as they are resized."""
    x = node.frames(0)
    factors = [after / before for before, after in zip(x.shapes[0], node.shapes[0][0], strict=True)]
    if x.time < 0:
        return [_resized(node, step, settled(step, x), factors)]
    s = round(factors[x.time])
    if s < 1 or any(b[x.time] != s * a[x.time] for a, b in zip(x.shapes, node.shapes[0], strict=True)):
        raise node.refuse(
            f"it makes {factors[x.time]:.3g} frames of one, which is no whole number", "resize by a whole number"
        )
    if s == 1:
        return [_resized(node, step, settled(step, x), factors)]
    if any(f != 1 for i, f in enumerate(factors) if i != x.time):
        raise node.refuse("it resizes time and features together", "resize one after the other")
    mode = node.attribute("mode", b"nearest").decode()
    places = _places(node, s)
    if mode == "linear" and len(x.labels) == 3 and x.labels[:2] == (BATCH, FEATURE):
        return [_between(node, step, settled(step, x), places)]
    if mode != "nearest" or any(place != 0 for place in places):
        raise node.refuse(
            f"it computes frames between frames in mode '{mode}'",
            "use mode='nearest', or 'linear' of (batch, channels, time)",
        )
    x = settled(step, x)
    clock = Clock(x.clock.per_step * s, x.clock.delay * s, x.clock.then(s, 0, 1))
    at = step_axis(x, x.time, full=True)
    scales = step.constant(np.array([s if i == at else 1 for i in range(len(x.labels))], np.float32), "scales")
    rest: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    out = step.emit("Resize", [full(step, x), "", scales], node.hint, **rest)[0]
    return [Frames(out, x.labels, node.shapes[0], clock, x.dtype)]


_NEAREST = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda at: math.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: math.floor(at + 0.5),
}


def _places(node: Node, s: int) -> list[float]:
    """For each of the s elements that are made of one where it lies from that, in elements. Formulas: ONNX Resize."""
    coordinates = node.attribute("coordinate_transformation_mode", b"half_pixel").decode()
    if coordinates not in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        raise node.refuse(
            f"its places (coordinate_transformation_mode={coordinates}) depend on how long the sequence is",
            "use align_corners=False",
        )
    places = [r / s if coordinates == "asymmetric" else (r + 0.5) / s - 0.5 for r in range(s)]
    if node.attribute("mode", b"nearest") == b"nearest":
        nearest = _NEAREST[node.attribute("nearest_mode", b"round_prefer_floor").decode()]
        return [nearest(place) for place in places]
    return places


def _between(node: Node, step: StepGraph, x: Frames, places: list[float]) -> Frames:
    """Linear between neighbours, (B, C, T); before the first and after the last frame they are those."""
    s, channels, pad = len(places), x.shapes[0][1], Padding(1, 1, mode="edge", order=(2,))
    clock = reach(step, x, pad, 2, 1)
    name, _ = windowed(step, x, clock, pad, 2, 1, node.hint)
    weights = np.array(
        [[max(-p, 0), 1 - abs(p), max(p, 0)] for p in places], x.dtype
    )  # of the frames before, at and after
    kernel = step.constant(np.tile(weights, (channels, 1))[:, None], f"{node.hint}.weights")
    n = clock.per_step
    out = step.emit("Conv", [name, kernel], f"{node.hint}.phases", group=channels, kernel_shape=[3])[0]
    out = step.emit("Reshape", [out, step.ints(-1, channels, s, n)], f"{node.hint}.apart")[0]
    out = step.emit("Transpose", [out], f"{node.hint}.turned", perm=[0, 1, 3, 2])[0]
    out = step.emit("Reshape", [out, step.ints(-1, channels, n * s)], node.hint)[0]
    rate = Clock(n * s, clock.delay * s, clock.then(s, 0, 1))
    return Frames(out, x.labels, node.shapes[0], rate, x.dtype)


def _resized(node: Node, step: StepGraph, x: Frames, factors: list[float]) -> Frames:
    """Features alone."""
    scales = [f for i, f in enumerate(factors) if i != x.time or x.clock.per_step > 1]
    given = step.constant(np.array(scales, np.float32), "scales")
    out = step.emit("Resize", [x.name, "", given], node.hint, **attributes_of(node, "keep_aspect_ratio_policy", "axes"))
    return made_of(replace(x, warm=None), out[0], x.labels, node)
