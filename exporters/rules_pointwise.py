"""Operators that take each element by itself, or change nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import helper

from .rule_parts import attributes_of, broadcast
from .step_graph import StepGraph
from .tracked import Known, Node, Tensor


def pointwise(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Each element of the result depends on one element of each input."""
    names, made = broadcast(node, step, node.inputs)
    return [replace(made, name=step.emit(node.op, names, node.hint, **attributes_of(node))[0])]


def cast_like(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The first input in the second's type."""
    like = node.input(1)
    dtype = like.values[0].dtype if isinstance(like, Known) else np.dtype(node.frames(1).dtype)
    given = node.input(0)
    if isinstance(given, Known):
        return [Known(node.hint, tuple(v.astype(dtype) for v in given.values))]
    x, kind = node.frames(0), helper.np_dtype_to_tensor_dtype(dtype)
    if x.dtype == dtype.name:
        return [x]
    return [replace(x, name=step.emit("Cast", [x.name], node.hint, to=kind)[0], warm=None)]


def same(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """What it reads, unchanged."""
    return [node.frames(0)]


def dropout(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Nothing, as long as it is not training."""
    training = node.constant(2)
    if training is not None and bool(training):
        raise node.refuse("it is dropout in training mode", "export the module in evaluation mode")
    return [node.frames(0)]
