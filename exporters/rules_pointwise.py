"""Operators that take each element by itself, or change nothing."""

from collections.abc import Sequence

from .rule_parts import attributes_of, broadcast
from .step_graph import StepGraph
from .tracked import Frames, Node, Tensor


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
