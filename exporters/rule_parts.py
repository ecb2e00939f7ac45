"""What the rules have in common: how inputs broadcast, and which axes they may work along."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from .step_graph import StepGraph
from .tracked import BATCH, FEATURE, TIME, Frames, Known, Labels, Node, Tensor, one_time_axis, uniform

Rule = Callable[[Node, StepGraph], Sequence[Tensor]]


def attributes_of(node: Node, *without: str) -> dict[str, Any]:
    """The node's attributes by name, as Python has them, but for those `without` names."""
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
    columns = zip(*(padded(labels, rank) for labels in each), strict=True)
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
            names.append(step.constant(without_time(arrays[i][0], labels), operand.name))
        else:
            names.append(node.frames(i).name)
    return names, labels


def without_time(array: np.ndarray, labels: Labels) -> np.ndarray:
    """The constant without the axis, if it reaches that far, that lies on the time axis."""
    at = labels.index(TIME) - len(labels) + array.ndim if TIME in labels else -1
    return array.squeeze(at) if at >= 0 else array


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


def selected_axis(node: Node, x: Frames, axis: int) -> int:
    """The axis that is selected from: features."""
    if x.labels[axis] in (TIME, "BT", "TB"):
        raise node.refuse(
            f"it selects frames along axis {axis}, the time axis",
            "give the output of every frame, and take the last one (or the wanted ones) from what the stream gives",
        )
    return plain_axis(node, x, axis)


def padded(labels: Labels, rank: int) -> list[str]:
    """The labels with feature axes in front, as broadcasting adds them."""
    return [FEATURE] * (rank - len(labels)) + list(labels)
