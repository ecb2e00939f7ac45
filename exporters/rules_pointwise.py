"""Operators that take each element by itself, or change nothing."""

from collections.abc import Sequence
from dataclasses import replace

from .rule_parts import attributes_of, broadcast
from .step_graph import StepGraph
from .tracked import Node, Tensor


def pointwise(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Each element of the result depends on one element of each input."""
    names, made = broadcast(node, step, node.inputs)
    return [replace(made, name=step.emit(node.op, names, node.hint, **attributes_of(node))[0])]


def same(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """What it reads, unchanged."""
    return [node.frames(0)]


def dropout(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Nothing, as long as it is not training."""
    training = node.constant(2)
    if training is not None and bool(training):
        raise node.refuse("it is dropout in training mode", "export the module in evaluation mode")
    return [node.frames(0)]
