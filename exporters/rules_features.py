"""Operators along features: norms, reductions, softmax."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import helper

from .rule_parts import Rule, attributes_of, constants, made_of, plain_axis
from .step_graph import StepGraph
from .timing import batch_first, first_index, like, masked
from .tracked import Frames, Node, Tensor, step_axis, step_shape


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
    """Over features; over time where that was asked for, of the frames so far."""
    x = node.frames(0)
    given = node.constant(1) if len(node.inputs) > 1 else node.attribute("axes")
    if given is None and node.attribute("noop_with_empty_axes", 0):
        return [x]
    axes = range(len(x.labels)) if given is None else [int(a) for a in np.atleast_1d(np.asarray(given))]
    axes, keep = [a % len(x.labels) for a in axes], int(node.attribute("keepdims", 1))
    if x.time >= 0 and x.time in axes:
        return [_over_time(node, step, x, axes, bool(keep))]
    axes = [plain_axis(node, x, a) for a in axes]
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


def global_pooling(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The mean or the largest over all axes but batch and channels."""
    x = node.frames(0)
    axes = list(range(2, len(x.labels)))
    if x.time in axes:
        return [_over_time(node, step, x, axes, True)]
    axes = [plain_axis(node, x, a) for a in axes]
    return [made_of(x, _reduced(node, step, x, axes, True), x.labels, node)]


_KINDS = {
    "ReduceSum": "Sum",
    "ReduceMean": "Mean",
    "GlobalAveragePool": "Mean",
    "ReduceMax": "Max",
    "GlobalMaxPool": "Max",
    "ReduceMin": "Min",
}


def _reduced(node: Node, step: StepGraph, x: Frames, axes: list[int], keep: bool) -> str:
    """Over features, with the axes as this version of the operator takes them."""
    op, places = f"Reduce{_KINDS[node.op]}", [step_axis(x, a) for a in axes]
    hint = f"{node.hint}.features"
    return step.emit(op, [x.name, step.ints(*places)], hint, keepdims=int(keep))[0]


def _over_time(node: Node, step: StepGraph, x: Frames, axes: list[int], keep: bool) -> Frames:
    """The reduction of the frames so far: its value is a state. At a stream's last output that is the reduction of all frames."""
    if not step.bounds.running:
        plain_axis(node, x, x.time)
    if node.op not in _KINDS or (x.clock.per_step > 1):
        raise node.refuse(
            f"it is a {node.op} over time of {x.clock.per_step} frames a step",
            "a running value is a sum, mean, largest or smallest, of one frame a step",
        )
    step.used.add("reduce")
    kind, rest = _KINDS[node.op], [a for a in axes if a != x.time]
    fill = {"Max": -np.inf, "Min": np.inf}.get(kind, 0.0)
    x = masked(step, x, fill, left=x.clock.delay > 0, right=False)
    for axis in rest:
        plain_axis(node, x, axis)
    labels = tuple(label for i, label in enumerate(x.labels) if keep or i not in axes)
    made = replace(x, labels=labels, shapes=node.shapes[0], running=True, warm=None)
    frame = batch_first(step, replace(made, name=_reduced(node, step, x, rest, keep) if rest else x.name))
    past = step.state(f"{node.hint}.so_far", np.full(step_shape(frame)[1:], fill, x.dtype))
    op = {"Mean": "Add", "Sum": "Add"}.get(kind, kind)
    total = step.emit(op, [past, frame.name], f"{past}_next")[0]
    step.set_next(past, total)
    if kind == "Mean":
        total = _shared_out(node, step, frame, total)
    return like(step, replace(frame, name=total), made)


def _shared_out(node: Node, step: StepGraph, x: Frames, total: str) -> str:
    """The total over the number of frames so far."""
    one = step.constant(np.array(1, np.int64), "one")
    count = step.emit("Add", [first_index(step, x.clock), one], f"{node.hint}.count")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype))
    count = step.emit("Cast", count, f"{node.hint}.counted", to=kind)
    places = list(range(1, len(step_shape(x))))
    count = step.emit("Unsqueeze", [*count, step.ints(*places)], f"{node.hint}.counts") if places else count
    return step.emit("Div", [total, *count], node.hint)[0]


def instance_norm(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over the features of each channel (instance, group normalisation)."""
    x = node.frames(0)
    for axis in range(1, len(x.labels)):
        plain_axis(node, x, axis)
    if len(step_shape(x)) > len(x.labels):
        raise node.refuse(
            "it works on several frames a step in one axis with the batch", "normalise over the last axes"
        )
    out = step.emit(node.op, [x.name, *constants(node, step, 1, 2)], node.hint, **attributes_of(node))
    return [made_of(x, out[0], x.labels, node)]
