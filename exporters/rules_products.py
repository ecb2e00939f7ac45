"""Sums of products over features: matrices and convolutions."""

from collections.abc import Sequence

import numpy as np

from .rule_parts import attributes_of, constants, labelled, padded, plain_axis, without_time
from .step_graph import StepGraph
from .tracked import BATCH, FEATURE, TIME, Frames, Known, Labels, Node, Tensor, one_time_axis, step_shape, uniform


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
    if isinstance(node.inputs[0], Known) and len(left) == 2 and right[-1] == TIME:
        return _of_column(node, step, node.inputs[0])
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


def _of_column(node: Node, step: StepGraph, matrix: Known) -> Sequence[Tensor]:
    """A matrix from the left, frames as columns: one column by the transposed matrix."""
    x = node.frames(1)
    made = Frames("", (*x.labels[:-2], FEATURE, TIME), node.shapes[0])
    out = step.emit(
        "MatMul", [x.name, step.constant(uniform(node, matrix)[0].T, f"{matrix.name}.transposed")], node.hint
    )
    if len(step_shape(made)) == 2:
        step.matrices.add(out[0])
    return [Frames(out[0], made.labels, made.shapes)]


def _batched_matmul(node: Node, step: StepGraph, left: Labels, right: Labels) -> Sequence[Tensor]:
    """Matrices with leading axes: a row or column axis that is time comes back with size 1 around the product."""
    rank = max(len(left), len(right))
    lead = [
        {*column} - {FEATURE} for column in zip(*(padded(side[:-2], rank - 2) for side in (left, right)), strict=True)
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
            names.append(step.constant(without_time(array, lead_labels), operand.name))
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


def gemm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """(B, F) by a constant matrix, and a constant bias."""
    x = node.frames(0)
    plain_axis(node, x, 0 if node.attribute("transA", 0) else 1)
    weights = constants(node, step, 1, 2)
    out = step.emit("Gemm", [x.name, *weights], node.hint, **attributes_of(node))
    labels = x.labels[::-1] if node.attribute("transA", 0) else x.labels
    return [Frames(out[0], labels, node.shapes[0])]


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
