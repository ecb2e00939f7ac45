"""Operators along features: norms, reductions, softmax."""

from collections.abc import Sequence

import numpy as np

from .rule_parts import Rule, attributes_of, constants, made_of, plain_axis
from .step_graph import StepGraph
from .tracked import Node, Tensor, step_axis, step_shape


def along_axis(default: int) -> Rule:
    """A rule for operators that work along one axis of features and keep the shape."""

    def rule(node: Node, step: StepGraph) -> Sequence[Tensor]:
        x = node.frames(0)
        axis = plain_axis(node, x, int(node.attribute("axis", default)))
        out = step.emit(node.op, [x.name], node.hint, **attributes_of(node, "axis"), axis=step_axis(x, axis))
        return [made_of(x, out[0], x.labels, node)]

    return rule


def layer_norm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over the last axes, all of them features."""
    x = node.frames(0)
    first = int(node.attribute("axis", -1)) % len(x.labels)
    for axis in range(first, len(x.labels)):
        plain_axis(node, x, axis)
    weights = constants(node, step, 1, 2)
    rest = {k: v for k, v in attributes_of(node, "axis").items() if k != "stash_type"}
    out = step.emit(node.op, [x.name, *weights], node.hint, **rest, axis=step_axis(x, first))
    return [made_of(x, out[0], x.labels, node)]


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
    tail = [1] * (len(step_shape(x)) - step_axis(x, 1) - 1)
    dtype = np.asarray(parameters[0]).dtype
    a, b = (v.reshape(-1, *tail).astype(dtype) for v in (factor, shift - mean * factor))
    scaled = step.emit("Mul", [x.name, step.constant(a, f"{node.hint}.scale")], f"{node.hint}.scaled")
    out = step.emit("Add", [scaled[0], step.constant(b, f"{node.hint}.shift")], node.hint)
    return [made_of(x, out[0], x.labels, node)]


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
    new = [step_axis(x, a) for a in axes]
    rest = attributes_of(node, "axes", "keepdims", "noop_with_empty_axes")
    if node.op == "ReduceSum" or node.proto.input[1:]:
        out = step.emit(node.op, [x.name, step.ints(*new)], node.hint, keepdims=keep, **rest)
    else:
        out = step.emit(node.op, [x.name], node.hint, axes=new, keepdims=keep, **rest)
    return [made_of(x, out[0], labels, node)]


def arg_reduce(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The place of the largest or smallest feature."""
    x = node.frames(0)
    axis, keep = plain_axis(node, x, int(node.attribute("axis", 0))), int(node.attribute("keepdims", 1))
    labels = tuple(label for i, label in enumerate(x.labels) if keep or i != axis)
    rest = attributes_of(node, "axis")
    out = step.emit(node.op, [x.name], node.hint, **rest, axis=step_axis(x, axis))
    return [made_of(x, out[0], labels, node)]
