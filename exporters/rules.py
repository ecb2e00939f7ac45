"""From a whole sequence to a step: one short rule for each ONNX operator, in the table `RULES`.

A rule is given a node of the whole-sequence graph (`Node`: what it reads, each axis labelled) and writes into the step
graph what one frame of each stream needs of it. It returns one tensor for each of the node's outputs, and refuses what
cannot be done frame by frame. A node that reads no frames never gets here: its value is known.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from .layout import rearranged
from .recurrent_rule import recurrent
from .step_graph import StepGraph
from .tracked import (
    BATCH,
    FEATURE,
    TIME,
    Frames,
    Known,
    Labels,
    Node,
    Tensor,
    one_time_axis,
    step_axis,
    step_shape,
    uniform,
)

Rule = Callable[[Node, StepGraph], Sequence[Tensor]]


def attributes_of(node: Node, *without: str) -> dict[str, Any]:
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.proto.attribute if a.name not in without}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def constants(node: Node, step: StepGraph, *indices: int) -> list[str]:
    """The names in the step graph of those of the inputs that are given, which must be constants."""
    found = ((node.constant(i), node.input(i)) for i in indices)
    return [
        step.constant(array, known.name) for array, known in found if array is not None and isinstance(known, Known)
    ]


def broadcast(node: Node, step: StepGraph, operands: Sequence[Tensor | None]) -> tuple[list[str], Labels]:
    """The operands' names in the step graph, and the labels of what they broadcast to."""
    arrays = {i: uniform(node, v) for i, v in enumerate(operands) if isinstance(v, Known)}
    each = [v.labels if isinstance(v, Frames) else arrays[i][1] if i in arrays else () for i, v in enumerate(operands)]
    rank = max(len(labels) for labels in each)
    columns = zip(*([FEATURE] * (rank - len(labels)) + list(labels) for labels in each), strict=True)
    merged = []
    for column in columns:
        found = {label for label in column if label != FEATURE}
        if len(found) > 1:
            raise node.refuse(
                "it combines an axis of streams with an axis of frames",
                "every input must have its batch and time axes at the same place",
            )
        merged.append(found.pop() if found else FEATURE)
    labels = one_time_axis(node, merged)
    names = []
    for i, operand in enumerate(operands):
        if operand is None:
            names.append("")
        elif isinstance(operand, Known):
            names.append(step.constant(_without_time(arrays[i][0], labels), operand.name))
        else:
            names.append(node.frames(i).name)
    return names, labels


def _without_time(array: np.ndarray, labels: Labels) -> np.ndarray:
    """The constant without the axis, if it reaches that far, that lies on the time axis."""
    at = labels.index(TIME) - len(labels) + array.ndim if TIME in labels else -1
    return array.squeeze(at) if at >= 0 else array


def pointwise(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Each element of the result depends on one element of each input."""
    names, labels = broadcast(node, step, node.inputs)
    out = step.emit(node.op, names, node.hint, **attributes_of(node))
    return [Frames(out[0], labels, node.shapes[0])]


def same(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """What it reads, unchanged."""
    return [node.frames(0)]


def dropout(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Nothing, as long as it is not training."""
    training = node.constant(2)
    if training is not None and bool(training):
        raise node.refuse("it is dropout in training mode", "export the module in evaluation mode")
    return [node.frames(0)]


def labelled(node: Node) -> list[Labels]:
    """The labels of each input, none of which may be left out."""
    return [uniform(node, v)[1] if isinstance(v, Known) else node.frames(i).labels for i, v in enumerate(node.inputs)]


def plain_axis(node: Node, x: Frames, axis: int) -> int:
    """The axis, not negative, where it has features."""
    axis += len(x.labels) if axis < 0 else 0
    label = x.labels[axis]
    if label == BATCH:
        raise node.refuse(f"it works along axis {axis}, the batch", "streams must not depend on each other")
    if label != FEATURE:
        raise node.refuse(
            f"it works along axis {axis}, the time axis, so a frame's result would need other frames",
            "work along features, or keep a running value in a recurrent layer",
        )
    return axis


def along_axis(default: int) -> Rule:
    """A rule for operators that work along one axis of features and keep the shape."""

    def rule(node: Node, step: StepGraph) -> Sequence[Tensor]:
        x = node.frames(0)
        axis = plain_axis(node, x, int(node.attribute("axis", default)))
        out = step.emit(node.op, [x.name], node.hint, **attributes_of(node, "axis"), axis=step_axis(x.labels, axis))
        return [Frames(out[0], x.labels, node.shapes[0])]

    return rule


def layer_norm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over the last axes, all of them features."""
    x = node.frames(0)
    first = int(node.attribute("axis", -1)) % len(x.labels)
    for axis in range(first, len(x.labels)):
        plain_axis(node, x, axis)
    weights = constants(node, step, 1, 2)
    rest = {k: v for k, v in attributes_of(node, "axis").items() if k != "stash_type"}
    out = step.emit(node.op, [x.name, *weights], node.hint, **rest, axis=step_axis(x.labels, first))
    return [Frames(out[0], x.labels, node.shapes[0])]


def batch_norm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """With stored statistics it is a scale and a shift of each channel."""
    x = node.frames(0)
    if node.attribute("training_mode", 0):
        raise node.refuse("it is batch normalisation in training mode", "export the module in evaluation mode")
    plain_axis(node, x, 1)
    parameters = [node.constant(i) for i in range(1, 5)]
    if any(p is None for p in parameters):
        raise node.refuse("its statistics are not constants", "train with track_running_stats=True")
    scale, shift, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    factor = scale / np.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
    tail = [1] * len([label for label in x.labels[2:] if label != TIME])
    dtype = np.asarray(parameters[0]).dtype
    a, b = (v.reshape(-1, *tail).astype(dtype) for v in (factor, shift - mean * factor))
    scaled = step.emit("Mul", [x.name, step.constant(a, f"{node.hint}.scale")], f"{node.hint}.scaled")
    out = step.emit("Add", [scaled[0], step.constant(b, f"{node.hint}.shift")], node.hint)
    return [Frames(out[0], x.labels, node.shapes[0])]


def reduce(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over features."""
    x = node.frames(0)
    given = node.constant(1) if len(node.inputs) > 1 else node.attribute("axes")
    if given is None and node.attribute("noop_with_empty_axes", 0):
        return [x]
    axes = range(len(x.labels)) if given is None else [int(a) for a in np.atleast_1d(np.asarray(given))]
    axes = [plain_axis(node, x, a) for a in axes]
    keep = int(node.attribute("keepdims", 1))
    labels = tuple(label for i, label in enumerate(x.labels) if keep or i not in axes)
    new = [step_axis(x.labels, a) for a in axes]
    rest = attributes_of(node, "axes", "keepdims", "noop_with_empty_axes")
    if node.op == "ReduceSum" or node.proto.input[1:]:
        out = step.emit(node.op, [x.name, step.ints(*new)], node.hint, keepdims=keep, **rest)
    else:
        out = step.emit(node.op, [x.name], node.hint, axes=new, keepdims=keep, **rest)
    return [Frames(out[0], labels, node.shapes[0])]


def arg_reduce(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The place of the largest or smallest feature."""
    x = node.frames(0)
    axis, keep = plain_axis(node, x, int(node.attribute("axis", 0))), int(node.attribute("keepdims", 1))
    labels = tuple(label for i, label in enumerate(x.labels) if keep or i != axis)
    rest = attributes_of(node, "axis")
    out = step.emit(node.op, [x.name], node.hint, **rest, axis=step_axis(x.labels, axis))
    return [Frames(out[0], labels, node.shapes[0])]


def cumulative(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """A running sum over features."""
    x, given = node.frames(0), node.constant(1)
    axis = plain_axis(node, x, int(np.asarray(given).reshape(-1)[0]))
    at = step.constant(np.array(step_axis(x.labels, axis), np.int64), "axis")
    out = step.emit(node.op, [x.name, at], node.hint, **attributes_of(node))
    return [Frames(out[0], x.labels, node.shapes[0])]


def matmul(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over features: the rows, the columns or the leading axes may be streams and frames."""
    left, right = labelled(node)
    if FEATURE not in left[-1:] or FEATURE not in (right[-2:-1] or right[-1:]):
        raise node.refuse(
            "it sums over frames or over streams",
            "what mixes time (attention over the whole sequence) is not exported by this version",
        )
    if isinstance(node.inputs[1], Known) and len(right) == 2 and len(left) > 1:
        return _by_matrix(node, step, node.inputs[1])
    if min(len(left), len(right)) < 2:
        raise node.refuse("it multiplies by a vector", "give the vector a second axis of size 1")
    return _batched_matmul(node, step, left, right)


def _by_matrix(node: Node, step: StepGraph, matrix: Known) -> Sequence[Tensor]:
    x = node.frames(0)
    rank = len(step_shape(x))
    out = step.emit("MatMul", [x.name, step.constant(uniform(node, matrix)[0], matrix.name)], node.hint)
    if rank == 2:
        step.matrices.add(out[0])
    return [Frames(out[0], x.labels, node.shapes[0])]


def _batched_matmul(node: Node, step: StepGraph, left: Labels, right: Labels) -> Sequence[Tensor]:
    """Matrices with leading axes: a row or column axis that is time comes back with size 1 around the product."""
    rank = max(len(left), len(right))
    lead = [
        {*column} - {FEATURE} for column in zip(*(_padded(side[:-2], rank - 2) for side in (left, right)), strict=True)
    ]
    if any(len(found) > 1 for found in lead):
        raise node.refuse(
            "it combines an axis of streams with an axis of frames", "the axes must be at the same place in both"
        )
    labels = one_time_axis(node, [*(found.pop() if found else FEATURE for found in lead), left[-2], right[-1]])
    names = []
    for i, (side, axis) in enumerate(((left, -2), (right, -1))):
        operand = node.inputs[i]
        if isinstance(operand, Known):
            array = uniform(node, operand)[0]
            lead_labels = (*labels[:-2], FEATURE, FEATURE)
            names.append(step.constant(_without_time(array, lead_labels), operand.name))
        elif side[axis] == TIME:
            names += step.emit("Unsqueeze", [node.frames(i).name, step.ints(axis)], f"{node.hint}.frame")
        else:
            names.append(node.frames(i).name)
    out = step.emit("MatMul", names, node.hint)
    if TIME in labels[-2:]:
        out = step.emit("Squeeze", [*out, step.ints(-2 if labels[-2] == TIME else -1)], node.hint)
    return [Frames(out[0], labels, node.shapes[0])]


def einsum(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Without the letter of the time axis, which every result must keep."""
    equation = bytes(node.attribute("equation", b"")).decode().replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation:
        raise node.refuse(f"its equation is '{equation}'", "write it with an arrow and without dots: 'btf,of->bto'")
    letters: dict[str, str] = {}
    for term, labels in zip(terms, labelled(node), strict=True):
        letters.update(
            {x: label for x, label in zip(term, labels, strict=True) if label != FEATURE or x not in letters}
        )
    gone = next((letter for letter, label in letters.items() if label != FEATURE and letter not in result), None)
    if gone is not None:
        raise node.refuse(
            f"it sums over '{gone}', an axis of frames or streams", "what mixes time is not exported by this version"
        )
    made = one_time_axis(node, [letters[letter] for letter in result])
    times = {letter for letter, label in letters.items() if label == TIME}
    names = []
    for i, (term, operand) in enumerate(zip(terms, node.inputs, strict=True)):
        if isinstance(operand, Known):
            axes = tuple(at for at, letter in enumerate(term) if letter in times)
            names.append(step.constant(uniform(node, operand)[0].squeeze(axes), operand.name))
        else:
            names.append(node.frames(i).name)
    plain = "".join(c for c in equation if c not in times)
    out = step.emit("Einsum", names, node.hint, equation=plain)
    return [Frames(out[0], made, node.shapes[0])]


def _padded(labels: Labels, rank: int) -> list[str]:
    return [FEATURE] * (rank - len(labels)) + list(labels)


def gemm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """(B, F) by a constant matrix, and a constant bias."""
    x = node.frames(0)
    plain_axis(node, x, 0 if node.attribute("transA", 0) else 1)
    weights = constants(node, step, 1, 2)
    out = step.emit("Gemm", [x.name, *weights], node.hint, **attributes_of(node))
    labels = x.labels[::-1] if node.attribute("transA", 0) else x.labels
    return [Frames(out[0], labels, node.shapes[0])]


def gather(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Rows of a constant table by the frames' indices (an embedding), or constant features of the frames."""
    data, index = node.inputs
    axis = int(node.attribute("axis", 0))
    if isinstance(data, Known) and isinstance(index, Frames):
        table, _ = uniform(node, data)
        axis %= table.ndim
        labels = (FEATURE,) * axis + index.labels + (FEATURE,) * (table.ndim - axis - 1)
        out = step.emit("Gather", [step.constant(table, data.name), index.name], node.hint, axis=axis)
        return [Frames(out[0], labels, node.shapes[0])]
    x = node.frames(0)
    if not isinstance(index, Known):
        raise node.refuse(
            "both its table and its indices are computed from the frames", "index a constant table, or use a mask"
        )
    axis = _selected_axis(node, x, axis % len(x.labels))
    chosen = np.asarray(node.constant(1))
    labels = x.labels[:axis] + (FEATURE,) * chosen.ndim + x.labels[axis + 1 :]
    at = step.constant(chosen, index.name)
    out = step.emit("Gather", [x.name, at], node.hint, axis=step_axis(x.labels, axis))
    return [Frames(out[0], labels, node.shapes[0])]


def _selected_axis(node: Node, x: Frames, axis: int) -> int:
    """The axis that is selected from: features."""
    if x.labels[axis] in (TIME, "BT", "TB"):
        raise node.refuse(
            f"it selects frames along axis {axis}, the time axis",
            "give the output of every frame, and take the last one (or the wanted ones) from what the stream gives",
        )
    return plain_axis(node, x, axis)


def slices(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features; a slice that takes all of an axis is nothing."""
    x = node.frames(0)
    axes, steps = _value(node, 3), _value(node, 4)
    count = len((_value(node, 1) or ((),))[0])
    chosen = list(range(count)) if axes is None else [int(a) % len(x.labels) for a in axes[0]]
    strides = [1] * count if steps is None else [int(s) for s in steps[0]]
    kept: list[int] = []
    for i, axis in enumerate(chosen):
        if strides[i] == 1 and all(a[axis] == b[axis] for a, b in zip(x.shapes, node.shapes[0], strict=True)):
            continue
        _selected_axis(node, x, axis)
        kept.append(i)
    if not kept:
        return [x]
    first, last = (np.asarray(node.constant(i))[kept] for i in (1, 2))
    at, by = [step_axis(x.labels, chosen[i]) for i in kept], [strides[i] for i in kept]
    given = [step.ints(*(int(v) for v in values)) for values in (first, last, at, by)]
    out = step.emit("Slice", [x.name, *given], node.hint)
    return [Frames(out[0], x.labels, node.shapes[0])]


def _value(node: Node, index: int) -> tuple[np.ndarray, ...] | None:
    found = node.input(index)
    if isinstance(found, Frames):
        raise node.refuse("its bounds are computed from the frames", "slice by constants")
    return found.values if isinstance(found, Known) else None


def split(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features, into parts of constant sizes."""
    x = node.frames(0)
    axis = _selected_axis(node, x, int(node.attribute("axis", 0)) % len(x.labels))
    sizes = step.ints(*(shapes[0][axis] for shapes in node.shapes))
    out = step.emit("Split", [x.name, sizes], node.hint, tuple(node.proto.output), axis=step_axis(x.labels, axis))
    return [Frames(name, x.labels, shapes) for name, shapes in zip(out, node.shapes, strict=True)]


def concat(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Along features; a constant part is repeated for each stream."""
    some = next(v for v in node.inputs if isinstance(v, Frames))
    axis = plain_axis(node, some, int(node.attribute("axis", 0)))
    each = labelled(node)
    if any(labels != some.labels for labels in each):
        raise node.refuse(
            f"its inputs have their batch and time axes at different places: {each}", "transpose them alike first"
        )
    names = []
    for i, value in enumerate(node.inputs):
        names.append(_for_each_stream(node, step, value, some) if isinstance(value, Known) else node.frames(i).name)
    out = step.emit("Concat", names, node.hint, axis=step_axis(some.labels, axis))
    return [Frames(out[0], some.labels, node.shapes[0])]


def _for_each_stream(node: Node, step: StepGraph, known: Known, some: Frames) -> str:
    """The constant with as many rows as there are streams in the step's batch."""
    array = _without_time(uniform(node, known)[0], some.labels)
    at = [label for label in some.labels if label != TIME].index(next(label for label in some.labels if "B" in label))
    batch = step.emit("Shape", [some.name], f"{node.hint}.batch", start=at, end=at + 1)[0]
    sizes = [step.ints(*array.shape[:at])] if at else []
    sizes += [batch, step.ints(*array.shape[at + 1 :])] if array.shape[at + 1 :] else [batch]
    shape = step.emit("Concat", sizes, f"{node.hint}.shape", axis=0) if len(sizes) > 1 else [batch]
    return step.emit("Expand", [step.constant(array, known.name), shape[0]], f"{node.hint}.repeated")[0]


def reshape(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Features among themselves; batch and time stay, merge in one axis, or part again."""
    return [rearranged(node, step, node.frames(0))]


def transpose(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Where only the time axis moves, nothing is left of it."""
    x = node.frames(0)
    given = node.attribute("perm")
    order = [int(i) for i in given] if given is not None else list(range(len(x.labels)))[::-1]
    labels = tuple(x.labels[i] for i in order)
    new = [step_axis(x.labels, i) for i in order if x.labels[i] != TIME]
    if new == sorted(new):
        return [Frames(x.name, labels, node.shapes[0])]
    out = step.emit("Transpose", [x.name], node.hint, perm=new)
    return [Frames(out[0], labels, node.shapes[0])]


def expand(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features of size 1."""
    x, rank = node.frames(0), len(node.shapes[0][0])
    labels = one_time_axis(node, _padded(x.labels, rank))
    new = []
    for axis, label in enumerate(labels):
        sizes = {shape[axis] for shape in node.shapes[0]}
        if label == FEATURE and len(sizes) > 1:
            raise node.refuse(
                f"it repeats along axis {axis} as often as there are frames or streams", "broadcasting needs no expand"
            )
        if label != TIME:
            new.append(1 if label != FEATURE else sizes.pop())
    made = Frames(x.name, labels, node.shapes[0])
    if step_shape(x) == step_shape(made):
        return [made]
    out = step.emit("Expand", [x.name, step.ints(*new)], node.hint)
    return [Frames(out[0], labels, node.shapes[0])]


def pad(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features."""
    x, rank = node.frames(0), len(node.frames(0).labels)
    widths, axes = node.constant(1), node.constant(3)
    chosen = range(rank) if axes is None else [int(a) % rank for a in axes]
    pairs = {a: (int(w), int(v)) for a, w, v in zip(chosen, *np.split(np.asarray(widths), 2), strict=True)}
    padded = [a for a, pair in pairs.items() if any(pair)]
    for axis in padded:
        plain_axis(node, x, axis)
    kept = [a for a in range(rank) if x.labels[a] != TIME]
    amounts = [pairs.get(a, (0, 0))[side] for side in (0, 1) for a in kept]
    fill = node.constant(2)
    names = [x.name, step.ints(*amounts)] + ([] if fill is None else [step.constant(fill, "fill")])
    out = step.emit("Pad", names, node.hint, **attributes_of(node))
    return [Frames(out[0], x.labels, node.shapes[0])]


def convolution(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over features; along time only with a kernel of one frame, which is a product with a matrix."""
    x, weight = node.frames(0), node.constant(1)
    if "B" not in x.labels[0]:
        raise node.refuse("its first axis is not the batch", "give it (batch, channels, ...)")
    plain_axis(node, x, 1)
    if x.labels[0] != BATCH or TIME not in x.labels:
        names = [x.name, *constants(node, step, 1, 2)]
        out = step.emit("Conv", names, node.hint, **attributes_of(node))
        return [Frames(out[0], x.labels, node.shapes[0])]
    kernel = np.asarray(weight)
    at = x.labels.index(TIME) - 2
    moves = any(a[at + 2] != b[at + 2] for a, b in zip(x.shapes, node.shapes[0], strict=True))
    if kernel.shape[at + 2] != 1 or moves or node.attribute("group", 1) != 1 or len(x.labels) != 3:
        raise node.refuse(
            f"it is a convolution over time (kernel of {kernel.shape[at + 2]} frames, {node.attribute('group', 1)} groups)",
            "this version exports convolutions over features, and over time with a kernel of 1 and one group",
        )
    out = step.emit("MatMul", [x.name, step.constant(kernel[:, :, 0].T, f"{node.hint}.weight")], f"{node.hint}.product")
    step.matrices.add(out[0])
    bias = node.constant(2)
    if bias is not None:
        out = step.emit("Add", [out[0], step.constant(bias, f"{node.hint}.bias")], node.hint)
    return [Frames(out[0], x.labels, node.shapes[0])]


_POINTWISE = [
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
]

RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), along_axis(-1)),
    **dict.fromkeys(("LpNormalization",), along_axis(-1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), reshape),
    **dict.fromkeys(
        (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSum",
            "ReduceLogSumExp",
        ),
        reduce,
    ),
    "BatchNormalization": batch_norm,
    "Concat": concat,
    "Conv": convolution,
    "CumSum": cumulative,
    "Dropout": dropout,
    "Einsum": einsum,
    "Expand": expand,
    "Gather": gather,
    "Gemm": gemm,
    "Identity": same,
    "MatMul": matmul,
    "Pad": pad,
    "Slice": slices,
    "Split": split,
    "Transpose": transpose,
}
