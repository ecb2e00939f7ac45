"""Random stacks of streamable layers as whole-sequence ONNX graphs, with how many elements each tensor has.

Layers are those that torch's exporter writes. A tensor on the way is (batch, channels, time). Every draw is written into `recipe`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Draw = Callable[[st.SearchStrategy[Any]], Any]
MOST_CHANNELS, LONGEST_STRIDE = 8, 8
NOTHING = -1  # a window had no frame: there is no output, whatever follows


@dataclass(frozen=True)
class Tensor:
    """length: how many elements it has for so many frames, or NOTHING, and whether it is known what the graph does with so many.

    up, down: the elements for each frame.
    """

    name: str
    channels: int
    length: Callable[[int], tuple[int, bool]]
    up: int = 1
    down: int = 1

    def then(
        self,
        name: str,
        change: Callable[[int], int] = int,
        channels: int | None = None,
        up: int = 1,
        down: int = 1,
        empty: bool = False,
        window: bool = False,
    ) -> "Tensor":
        """What a layer makes of it. empty: it takes and gives sequences without elements. window: it fails where it has no whole window."""

        def length(frames: int) -> tuple[int, bool]:
            before, runs = self.length(frames)
            after = max(0, change(before))
            if before < 0 or (window and before > 0 and after < 1):
                return NOTHING, runs
            return after, runs and (empty or (before > 0 and after > 0))

        return Tensor(name, channels or self.channels, length, self.up * up, self.down * down)


@dataclass
class Stack:
    """A graph that grows layer by layer."""

    draw: Draw
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    recipe: list[str] = field(default_factory=list)

    def whole(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """The first output of a new node."""
        names = [f"{op.lower()}_{len(self.nodes)}"] + [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, names[0], **attributes))
        return names[0]

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, dtype), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        rng = np.random.default_rng(len(self.weights))
        return self.constant(rng.normal(0, scale, shape), np.float32)

    def say(self, what: str, **how: Any) -> None:
        self.recipe.append(f"{what}({', '.join(f'{k}={v}' for k, v in how.items())})")

    def model(self, result: Tensor, features: int, layout: str) -> onnx.ModelProto:
        axes = {"B": "batch", "T": "time", "C": features}
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [axes[a] for a in layout])
        made = helper.make_tensor_value_info(result.name, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "whole", [given], [made], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


# --------------------------------------------------------------------------------------------- windows over time


def _groups(stack: Stack, channels: int) -> int:
    return stack.pick(*(g for g in (1, 2, channels) if channels % g == 0))


def convolution(stack: Stack, x: Tensor) -> Tensor:
    """Any kernel, stride, dilation, groups, padding; the padding a part of it, or a Pad before it, as a causal layer has it."""
    kernel, dilation = stack.whole(1, 5), stack.whole(1, 3)
    stride = stack.whole(1, 3) if x.down < LONGEST_STRIDE else 1
    groups = _groups(stack, x.channels)
    span = dilation * (kernel - 1)
    causal = stack.pick(True, False)
    pads = (span, 0) if causal else (stack.whole(0, span + 1), stack.whole(0, span + 1))
    apart = stack.pick(True, False)
    out = groups * stack.whole(1, max(1, MOST_CHANNELS // groups))
    stack.say("conv", kernel=kernel, stride=stride, dilation=dilation, groups=groups, pads=pads, apart=apart, out=out)
    name = x.name
    if apart:
        name = stack.add("Pad", name, stack.constant([0, 0, pads[0], 0, 0, pads[1]]), stack.constant(0.0, np.float32))
    fan = x.channels // groups * kernel
    bias = [stack.weight(out)] if stack.pick(True, False) else []
    name = stack.add(
        "Conv", name, stack.weight(out, x.channels // groups, kernel, scale=fan**-0.5), *bias,
        strides=[stride], dilations=[dilation], group=groups, pads=[0, 0] if apart else list(pads),
    )  # fmt: skip
    return x.then(name, lambda n: (n + sum(pads) - span - 1) // stride + 1, out, down=stride, window=True)


def automatic(stack: Stack, x: Tensor) -> Tensor:
    """A convolution whose padding has a name, as tensorflow's have."""
    kernel, named = stack.whole(1, 4), stack.pick("SAME_UPPER", "SAME_LOWER", "VALID")
    stack.say("auto_pad", kernel=kernel, named=named)
    weight = stack.weight(x.channels, x.channels, kernel, scale=(x.channels * kernel) ** -0.5)
    lost = kernel - 1 if named == "VALID" else 0
    return x.then(stack.add("Conv", x.name, weight, auto_pad=named), lambda n: n - lost, window=True)


def pooling(stack: Stack, x: Tensor) -> Tensor:
    """The largest or the mean of a window, with or without what lies beside the sequence."""
    op, kernel = stack.pick("MaxPool", "AveragePool"), stack.whole(1, 4)
    stride = stack.whole(1, 3) if x.down < LONGEST_STRIDE else 1
    pads = (stack.whole(0, kernel // 2), stack.whole(0, kernel // 2))
    ceil = op == "MaxPool" and stack.pick(True, False)
    attributes = {"count_include_pad": stack.pick(0, 1)} if op == "AveragePool" else {}
    stack.say(op, kernel=kernel, stride=stride, pads=pads, ceil=ceil, **attributes)
    name = stack.add(
        op, x.name, kernel_shape=[kernel], strides=[stride], pads=list(pads), ceil_mode=int(ceil), **attributes
    )

    def change(n: int) -> int:
        if not ceil:
            return (n + sum(pads) - kernel) // stride + 1
        count = -((n + sum(pads) - kernel) // -stride) + 1
        return count - ((count - 1) * stride >= n + pads[0])

    return x.then(name, change, down=stride, window=True)


def transposed(stack: Stack, x: Tensor) -> Tensor:
    """More frames than before."""
    stride, kernel, dilation = stack.whole(1, 3), stack.whole(1, 5), stack.whole(1, 2)
    span = dilation * (kernel - 1)
    more = stack.whole(0, max(0, stride - 1))
    pads = (stack.whole(0, min(2, span)), stack.whole(0, min(2, span)))
    groups = _groups(stack, x.channels)
    out = groups * stack.whole(1, max(1, MOST_CHANNELS // groups))
    stack.say(
        "transposed", kernel=kernel, stride=stride, dilation=dilation, pads=pads, more=more, groups=groups, out=out
    )
    name = stack.add(
        "ConvTranspose", x.name, stack.weight(x.channels, out // groups, kernel, scale=x.channels**-0.5),
        stack.weight(out), strides=[stride], dilations=[dilation], pads=list(pads), output_padding=[more], group=groups,
    )  # fmt: skip
    return x.then(name, lambda n: (n - 1) * stride + span + 1 - sum(pads) + more, out, up=stride, window=True)


def upsampled(stack: Stack, x: Tensor) -> Tensor:
    """Every frame several times."""
    factor = stack.whole(1, 3)
    stack.say("resize", factor=factor)
    scales = stack.constant([1, 1, factor], np.float32)
    rest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
    return x.then(stack.add("Resize", x.name, "", scales, **rest), lambda n: n * factor, up=factor, window=True)


# ------------------------------------------------------------------------------------- slices, padding, running sums


def sliced(stack: Stack, x: Tensor) -> Tensor:
    """Without some of the first or last elements, or every second or third alone."""
    first, last = stack.whole(0, 3), stack.whole(0, 3)
    stride = stack.whole(1, 3) if x.down < LONGEST_STRIDE else 1
    stack.say("slice", first=first, last=last, stride=stride)
    end = -last if last else 2**63 - 1
    name = stack.add("Slice", x.name, *(stack.constant([v]) for v in (first, end, 2, stride)))
    return x.then(name, lambda n: -((n - first - last) // -stride), down=stride, empty=stride == 1)


def padded(stack: Stack, x: Tensor) -> Tensor:
    """With a constant before and after."""
    before, after, value = stack.whole(0, 3), stack.whole(0, 3), stack.pick(0.0, 1.5)
    stack.say("pad", before=before, after=after, value=value)
    pads = stack.constant([0, 0, before, 0, 0, after])
    name = stack.add("Pad", x.name, pads, stack.constant(value, np.float32))
    return x.then(name, lambda n: n + before + after, empty=True)


def cumulative(stack: Stack, x: Tensor) -> Tensor:
    """A running sum."""
    exclusive = stack.pick(0, 1)
    stack.say("cumsum", exclusive=exclusive)
    return x.then(stack.add("CumSum", x.name, stack.constant(2), exclusive=exclusive), empty=True)


def difference(stack: Stack, x: Tensor) -> Tensor:
    """Each element less the one some places before it: two paths of different delay."""
    gap = stack.whole(1, 3)
    stack.say("difference", gap=gap)
    late = stack.add("Slice", x.name, *(stack.constant([v]) for v in (gap, 2**63 - 1, 2)))
    early = stack.add("Slice", x.name, *(stack.constant([v]) for v in (0, -gap, 2)))
    return x.then(stack.add("Sub", late, early), lambda n: n - gap, empty=True)


# ------------------------------------------------------------------------------------------ frame by frame, recurrent


def pointwise(stack: Stack, x: Tensor) -> Tensor:
    """Not zero at zero, most of them: what lies outside of the sequence is no zero any more."""
    op = stack.pick("Relu", "Tanh", "Sigmoid", "Elu", "add", "multiply", "Softplus", "BatchNormalization", "gate")
    stack.say(op)
    if op in ("add", "multiply"):
        return x.then(stack.add({"add": "Add", "multiply": "Mul"}[op], x.name, stack.weight(x.channels, 1)))
    if op == "gate":
        return x.then(stack.add("Mul", x.name, stack.add("Sigmoid", x.name)))
    if op == "BatchNormalization":
        spread = stack.constant(np.full(x.channels, 0.7), np.float32)
        return x.then(stack.add(op, x.name, *(stack.weight(x.channels) for _ in range(3)), spread))
    return x.then(stack.add(op, x.name))


def features(stack: Stack, x: Tensor) -> Tensor:
    """Over the features of a frame, with time in the middle: matrix, norm, softmax; or batch and time in one axis."""
    op = stack.pick("MatMul", "LayerNormalization", "Softmax", "Gemm", "mean")
    stack.say(op)
    turned = stack.add("Transpose", x.name, perm=[0, 2, 1])
    out = stack.whole(1, MOST_CHANNELS) if op in ("MatMul", "Gemm") else x.channels
    matrix = stack.weight(x.channels, out, scale=x.channels**-0.5)
    if op == "MatMul":
        made = stack.add("Add", stack.add("MatMul", turned, matrix), stack.weight(out))
    elif op == "Gemm":
        merged = stack.add("Reshape", turned, stack.constant([-1, x.channels]))
        product = stack.add("Gemm", merged, matrix, stack.weight(out))
        shape = stack.add("Concat", stack.add("Shape", turned, start=0, end=2), stack.constant([out]), axis=0)
        made = stack.add("Reshape", product, shape)
    elif op == "LayerNormalization":
        made = stack.add(op, turned, stack.weight(x.channels), stack.weight(x.channels), axis=-1)
    elif op == "mean":
        made = stack.add("Sub", turned, stack.add("ReduceMean", turned, stack.constant([-1]), keepdims=1))
    else:
        made = stack.add(op, turned, axis=-1)
    return x.then(stack.add("Transpose", made, perm=[0, 2, 1]), channels=out)


def recurrent(stack: Stack, x: Tensor) -> Tensor:
    """LSTM, GRU (reset before or after) or RNN, forwards."""
    op, hidden = stack.pick("LSTM", "GRU", "RNN"), stack.whole(1, 5)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    rest = {"linear_before_reset": stack.pick(0, 1)} if op == "GRU" else {}
    stack.say(op, hidden=hidden, **rest)
    turned = stack.add("Transpose", x.name, perm=[2, 0, 1])
    shapes = ((1, gates * hidden, x.channels), (1, gates * hidden, hidden), (1, 2 * gates * hidden))
    made = stack.add(op, turned, *(stack.weight(*shape, scale=0.5) for shape in shapes), hidden_size=hidden, **rest)
    plain = stack.add("Squeeze", made, stack.constant([1]))
    return x.then(stack.add("Transpose", plain, perm=[1, 2, 0]), channels=hidden)


# -------------------------------------------------------------------------------------------------------- branches


def _cut(stack: Stack, x: Tensor, first: int, last: int) -> Tensor:
    if not first and not last:
        return x
    end = -last if last else 2**63 - 1
    name = stack.add("Slice", x.name, *(stack.constant([v]) for v in (first, end, 2)))
    return x.then(name, lambda n: n - first - last, empty=True)


def skip(stack: Stack, x: Tensor) -> Tensor:
    """A convolution and a way around it, that meet: each a different number of frames late; the way around cut where needed."""
    kernel, dilation = stack.whole(1, 5), stack.whole(1, 3)
    span = dilation * (kernel - 1)
    before = stack.whole(0, span)
    after = stack.whole(0, span - before)
    first = stack.whole(0, span - before - after)
    meet = stack.pick("Add", "Mul", "Concat")
    stack.say("skip", kernel=kernel, dilation=dilation, pads=(before, after), first=first, meet=meet)
    weight = stack.weight(x.channels, x.channels, kernel, scale=(x.channels * kernel) ** -0.5)
    made = stack.add("Conv", x.name, weight, dilations=[dilation], pads=[before, after])
    inner = x.then(stack.add("Tanh", made), lambda n: n + before + after - span, window=True)
    if stack.pick(True, False):
        inner = stack.pick(pointwise, recurrent, features, cumulative)(stack, inner)
    around = _cut(stack, x, first, span - before - after - first)
    if meet != "Concat" and inner.channels != around.channels:
        mix = stack.weight(around.channels, inner.channels, 1)
        inner = inner.then(stack.add("Conv", inner.name, mix), channels=around.channels)
    together = [inner.name, around.name]
    name = stack.add(meet, *together, axis=1) if meet == "Concat" else stack.add(meet, *together)
    channels = inner.channels + around.channels if meet == "Concat" else around.channels
    return Tensor(name, channels, inner.length, inner.up, inner.down)


def hourglass(stack: Stack, x: Tensor) -> Tensor:
    """A U in time: fewer frames, layers, as many as before, and the way around it. Runs on multiples of the stride alone.

    Where those are not multiples of a number of frames, and no whole number of steps has as many on both ways, it is a way around nothing.
    """
    if any(x.length(n)[0] != n * x.up / x.down for n in (24, 48, 96)):
        return pointwise(stack, x)
    stride = 2
    op = stack.pick("transposed", "resize")
    stack.say("hourglass", stride=stride, up=op)
    kernel = stride + stack.whole(0, 3)
    before = stack.whole(0, kernel - stride)
    weight = stack.weight(x.channels, x.channels, kernel, scale=(x.channels * kernel) ** -0.5)
    low = stack.add("Conv", x.name, weight, strides=[stride], pads=[before, kernel - stride - before])
    inner = x.then(stack.add("Tanh", low), lambda n: n // stride, down=stride, window=True)
    inner = stack.pick(pointwise, features, recurrent, cumulative)(stack, inner)
    if inner.channels != x.channels:
        inner = inner.then(
            stack.add("Conv", inner.name, stack.weight(x.channels, inner.channels, 1)), channels=x.channels
        )
    if op == "resize":
        rest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
        high = stack.add("Resize", inner.name, "", stack.constant([1, 1, stride], np.float32), **rest)
    else:
        more = stack.whole(0, 2)
        left = stack.whole(0, more)
        wide = stack.weight(x.channels, x.channels, stride + more, scale=x.channels**-0.5)
        high = stack.add("ConvTranspose", inner.name, wide, strides=[stride], pads=[left, more - left])
    name = stack.add("Add", high, x.name)

    def length(frames: int) -> tuple[int, bool]:
        count, runs = inner.length(frames)
        return max(NOTHING, count * stride), runs and (count < 0 or x.length(frames)[0] % stride == 0)

    return Tensor(name, x.channels, length, x.up, x.down)


# ------------------------------------------------------------------------------------------- attention, positions, images


def _positions(stack: Stack, x: Tensor, start: int = 0) -> str:
    """int64 (T,): start, start + 1 .."""
    length = stack.add("Gather", stack.add("Shape", x.name), stack.constant(2), axis=0)
    end = stack.add("Add", length, stack.constant(start)) if start else length
    return stack.add("Range", stack.constant(start), end, stack.constant(1))


def attention(stack: Stack, x: Tensor) -> Tensor:
    """Every frame sees a window of frames around it; scores may fall with the distance, the mask is a part of the graph."""
    before, after, width = stack.whole(0, 5), stack.whole(0, 3), stack.whole(1, 4)
    biased, heads = stack.pick(True, False), stack.pick(1, 2)
    stack.say("attention", before=before, after=after, width=width, biased=biased, heads=heads)
    turned = stack.add("Transpose", x.name, perm=[0, 2, 1])
    order = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    split = stack.constant([0, 0, heads, width])
    q, k, v = (
        stack.add(
            "Transpose",
            stack.add("Reshape", stack.add("MatMul", turned, stack.weight(x.channels, heads * width)), split),
            perm=order[kind],
        )
        for kind in "qkv"
    )
    at = _positions(stack, x)
    ahead = stack.add(
        "Sub", stack.add("Unsqueeze", at, stack.constant([0])), stack.add("Unsqueeze", at, stack.constant([1]))
    )
    seen = stack.add(
        "And",
        stack.add("GreaterOrEqual", ahead, stack.constant(-before)),
        stack.add("LessOrEqual", ahead, stack.constant(after)),
    )
    mask = stack.add("Where", seen, stack.constant(0.0, np.float32), stack.constant(-np.inf, np.float32))
    scores = stack.add("Mul", stack.add("MatMul", q, k), stack.constant(width**-0.5, np.float32))
    if biased:
        slope = stack.constant(0.3, np.float32)
        scores = stack.add("Add", scores, stack.add("Mul", stack.add("Cast", ahead, to=TensorProto.FLOAT), slope))
    shares = stack.add("Softmax", stack.add("Add", scores, mask), axis=-1)
    made = stack.add("Transpose", stack.add("MatMul", shares, v), perm=[0, 2, 1, 3])
    joined = stack.add("Reshape", made, stack.constant([0, 0, heads * width]))
    return x.then(stack.add("Transpose", joined, perm=[0, 2, 1]), channels=heads * width)


def running_mean(stack: Stack, x: Tensor) -> Tensor:
    """A running sum by the number of frames so far."""
    stack.say("running_mean")
    count = stack.add("Cast", _positions(stack, x, start=1), to=TensorProto.FLOAT)
    return x.then(stack.add("Div", stack.add("CumSum", x.name, stack.constant(2)), count))


def joined(stack: Stack, x: Tensor) -> Tensor:
    """Frames of one value before or after, joined to it."""
    before, after, value = stack.whole(0, 2), stack.whole(0, 2), stack.pick(0.0, 1.5)
    stack.say("joined", before=before, after=after, value=value)
    batch = stack.add("Shape", x.name, start=0, end=1)

    def frames(count: int) -> str:
        shape = stack.add("Concat", batch, stack.constant([x.channels, count]), axis=0)
        return stack.add("Expand", stack.constant(value, np.float32), shape)

    parts = [*([frames(before)] if before else []), x.name, *([frames(after)] if after else [])]
    name = stack.add("Concat", *parts, axis=2) if len(parts) > 1 else x.name
    return x.then(name, lambda n: n + before + after, empty=True)


def mirrored(stack: Stack, x: Tensor) -> Tensor:
    """Padded with its own first and last frames: the nearest again, or a reflection."""
    mode, before, after = stack.pick("edge", "reflect"), stack.whole(0, 3), stack.whole(0, 3)
    stack.say("mirrored", mode=mode, before=before, after=after)
    name = stack.add("Pad", x.name, stack.constant([0, 0, before, 0, 0, after]), mode=mode)
    least = max(before, after) + 1 if mode == "reflect" else 1

    def length(frames: int) -> tuple[int, bool]:
        count, runs = x.length(frames)
        return (NOTHING if count < 0 else count + before + after), runs and (count < 0 or count >= least)

    return Tensor(name, x.channels, length, x.up, x.down)


def image(stack: Stack, x: Tensor) -> Tensor:
    """A 2-D convolution over features and time, and its maps side by side."""
    tall, long = stack.whole(1, min(3, x.channels)), stack.whole(1, 4)
    stride, out = stack.pick(1, 1, 2) if x.down < LONGEST_STRIDE else 1, stack.whole(1, 3)
    pads = (stack.whole(0, long), stack.whole(0, long))
    stack.say("image", kernel=(tall, long), stride=stride, pads=pads, out=out)
    plane = stack.add("Unsqueeze", x.name, stack.constant([1]))
    weight = stack.weight(out, 1, tall, long, scale=(tall * long) ** -0.5)
    made = stack.add("Conv", plane, weight, strides=[1, stride], pads=[0, pads[0], 0, pads[1]])
    rows = out * (x.channels - tall + 1)
    shape = stack.constant([0, rows, -1])
    flat = stack.add("Reshape", stack.add("Relu", made), shape)
    return x.then(flat, lambda n: (n + sum(pads) - long) // stride + 1, rows, down=stride, window=True)


# Every kind of layer that a stack may have; a kind is drawn first, so that a failure shrinks to few and simple ones.
LAYERS = (
    pointwise, features, convolution, recurrent, sliced, padded, pooling, cumulative, difference, skip, transposed, upsampled,
    automatic, attention, running_mean, joined, mirrored, image, hourglass,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A whole-sequence graph. counts: `Tensor.length` of the output."""

    model: onnx.ModelProto
    features: int
    time_axis: int
    batch_axis: int
    counts: Callable[[int], tuple[int, bool]]
    recipe: str

    def outputs(self, frames: int) -> int | None:
        """How many outputs a stream of so many frames has; None where the graph runs on other lengths alone."""
        count, known = self.counts(frames) if frames else (0, True)
        return max(0, count) if known or count <= 0 else None


@st.composite
def stacks(draw: Draw, layers: tuple[Callable[[Stack, Tensor], Tensor], ...] = LAYERS, most: int = 6) -> Case:
    """A stack of up to `most` layers, its input (B, T, C), (B, C, T) or (T, B, C)."""
    stack = Stack(draw)
    layout, channels = stack.pick("BTC", "BCT", "TBC"), stack.whole(1, 4)
    stack.say("input", layout=layout, channels=channels)
    order = [layout.index(axis) for axis in "BCT"]
    x = Tensor(
        stack.add("Transpose", "x", perm=order) if layout != "BCT" else "x", channels, lambda frames: (frames, True)
    )
    for _ in range(stack.whole(1, most)):
        if x.up > 4:
            layers = tuple(layer for layer in layers if layer not in (transposed, upsampled))
        x = stack.pick(*layers)(stack, x)
    back = stack.pick("BTC", "BCT")
    stack.say("output", layout=back)
    if back == "BTC" or x.name == "x":
        x = x.then(stack.add("Transpose", x.name, perm=[0, 2, 1]))
    model = stack.model(x, channels, layout)
    return Case(model, channels, layout.index("T"), layout.index("B"), x.length, " -> ".join(stack.recipe))
