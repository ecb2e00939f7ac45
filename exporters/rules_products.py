"""Sums of products over features: matrices."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .rule_parts import (
    attributes_of,
    beside,
    constant_in_step,
    constants,
    labelled,
    made_of,
    padded,
    plain_axis,
    some_frames,
)
from .step_graph import StepGraph
from .tracked import FEATURE, TIME, Frames, Known, Labels, Node, Tensor, one_time_axis, step_shape, uniform


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
    if (
        isinstance(node.inputs[0], Known)
        and len(left) == 2
        and right[-1] == TIME
        and node.frames(1).clock.per_step == 1
    ):
        return _of_column(node, step, node.inputs[0])
    if min(len(left), len(right)) < 2:
        raise node.refuse("it multiplies by a vector", "give the vector a second axis of size 1")
    return _batched_matmul(node, step, left, right)


def _by_matrix(node: Node, step: StepGraph, matrix: Known) -> Sequence[Tensor]:
    x = node.frames(0)
    out = step.emit("MatMul", [x.name, step.constant(uniform(node, matrix)[0], matrix.name)], node.hint)
    if len(step_shape(x)) == 2:
        step.matrices.add(out[0])
    return [made_of(x, out[0], x.labels, node)]


def _of_column(node: Node, step: StepGraph, matrix: Known) -> Sequence[Tensor]:
    """A matrix from the left, frames as columns: one column by the transposed matrix."""
    x = node.frames(1)
    out = step.emit(
        "MatMul", [x.name, step.constant(uniform(node, matrix)[0].T, f"{matrix.name}.transposed")], node.hint
    )
    made = made_of(x, out[0], (*x.labels[:-2], FEATURE, TIME), node)
    if len(step_shape(made)) == 2:
        step.matrices.add(out[0])
    return [made]


def _batched_matmul(node: Node, step: StepGraph, left: Labels, right: Labels) -> Sequence[Tensor]:
    """Matrices with leading axes: a row or column axis that is time and has no place in the step graph is there around the product."""
    rank = max(len(left), len(right))
    lead = [
        {*column} - {FEATURE} for column in zip(*(padded(side[:-2], rank - 2) for side in (left, right)), strict=True)
    ]
    if any(len(found) > 1 for found in lead):
        raise node.refuse(
            "it combines an axis of streams with an axis of frames", "the axes must be at the same place in both"
        )
    labels = one_time_axis(node, [*(found.pop() if found else FEATURE for found in lead), left[-2], right[-1]])
    some = some_frames(node)
    made, single = made_of(some, "", labels, node), some.clock.per_step == 1
    names = []
    for i, (side, axis) in enumerate(((left, -2), (right, -1))):
        operand = node.inputs[i]
        if isinstance(operand, Known):
            array = uniform(node, operand)[0]
            outer = replace(made, labels=(*labels[:-2], FEATURE, FEATURE))
            names.append(step.constant(constant_in_step(array, outer), operand.name))
        elif side[axis] == TIME and single:
            names += step.emit("Unsqueeze", [node.frames(i).name, step.ints(axis)], f"{node.hint}.frame")
        else:
            names.append(beside(node, step, node.frames(i), made))
    out = step.emit("MatMul", names, node.hint)
    if TIME in labels[-2:] and single:
        out = step.emit("Squeeze", [*out, step.ints(-2 if labels[-2] == TIME else -1)], node.hint)
    return [replace(made, name=out[0])]


def einsum(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Without the letter of the time axis, which every result must keep, where a step has one element of it."""
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
    some = some_frames(node)
    if some.lone or any(isinstance(v, Frames) and v.lone for v in node.inputs):
        raise node.refuse("it reads positions", "multiply by them instead")
    if some.clock.per_step > 1 and any(len(label) > 1 for label in made):
        raise node.refuse("it works on batch and time in one axis", "keep them apart: 'btf,of->bto'")
    times = {letter for letter, label in letters.items() if label == TIME}
    dropped = times if some.clock.per_step == 1 else set()
    names = []
    for i, (term, operand) in enumerate(zip(terms, node.inputs, strict=True)):
        if isinstance(operand, Known):
            axes = tuple(at for at, letter in enumerate(term) if letter in dropped)
            names.append(step.constant(uniform(node, operand)[0].squeeze(axes), operand.name))
        else:
            names.append(node.frames(i).name)
    plain = "".join(c for c in equation if c not in dropped)
    out = step.emit("Einsum", names, node.hint, equation=plain)
    return [made_of(some, out[0], made, node)]


def gemm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """(B, F) by a constant matrix, and a constant bias."""
    x = node.frames(0)
    turned = bool(node.attribute("transA", 0))
    plain_axis(node, x, 0 if turned else 1)
    labels = x.labels[::-1] if turned else x.labels
    if len(step_shape(x)) == 2:
        out = step.emit("Gemm", [x.name, *constants(node, step, 1, 2)], node.hint, **attributes_of(node))
        return [made_of(x, out[0], labels, node)]
    if turned:
        raise node.refuse("it takes batch and time in one axis as columns", "give it rows")
    weight, bias = np.asarray(node.constant(1)), node.constant(2)
    weight = (weight.T if node.attribute("transB", 0) else weight) * np.float32(node.attribute("alpha", 1.0))
    out = step.emit("MatMul", [x.name, step.constant(weight, f"{node.hint}.weight")], f"{node.hint}.product")
    if bias is not None:
        shift = step.constant(bias * np.float32(node.attribute("beta", 1.0)), f"{node.hint}.bias")
        out = step.emit("Add", [out[0], shift], node.hint)
    return [made_of(x, out[0], labels, node)]
