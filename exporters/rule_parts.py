"""What the rules have in common: how inputs broadcast, and which axes they may work along."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from .step_graph import StepGraph
from .tracked import (
    BATCH,
    BATCH_FEATURE,
    BATCH_TIME,
    FEATURE,
    MERGED,
    SOURCE,
    TIME,
    TIME_BATCH,
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
    """The node's attributes by name, as Python has them, but for those `without` names."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.proto.attribute if a.name not in without}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def constants(node: Node, step: StepGraph, *indices: int) -> list[str]:
    """The names in the step graph of those of the inputs that are given, which must be constants."""
    found = ((node.constant(i), node.input(i)) for i in indices)
    return [
        step.constant(array, known.name) for array, known in found if array is not None and isinstance(known, Known)
    ]


def some_frames(node: Node) -> Frames:
    """The first input that depends on frames, of those with a batch axis where there is one."""
    found = [v for v in node.inputs if isinstance(v, Frames)]
    return next((v for v in found if not v.lone), found[0])


def broadcast(node: Node, step: StepGraph, operands: Sequence[Tensor | None]) -> tuple[list[str], Frames]:
    """The operands' names in the step graph, and what they broadcast to, which has no name yet."""
    arrays = {i: uniform(node, v) for i, v in enumerate(operands) if isinstance(v, Known)}
    each = [v.labels if isinstance(v, Frames) else arrays[i][1] if i in arrays else () for i, v in enumerate(operands)]
    rank = max(len(labels) for labels in each)
    merged = []
    for column in zip(*(padded(labels, rank) for labels in each), strict=True):
        found = {label for label in column if label != FEATURE}
        if len(found) > 1 and found != {TIME, SOURCE}:
            raise node.refuse(
                "it combines an axis of streams with an axis of frames",
                "every input must have its batch and time axes at the same place",
            )
        merged.append(SOURCE if SOURCE in found else found.pop() if found else FEATURE)
    labels = one_time_axis(node, merged)
    some = some_frames(node)
    running = any(isinstance(v, Frames) and v.running for v in operands)
    made = Frames("", labels, node.shapes[0], some.clock, lone=some.lone, running=running)
    names = []
    for i, operand in enumerate(operands):
        if operand is None:
            names.append("")
        elif isinstance(operand, Known):
            names.append(step.constant(constant_in_step(arrays[i][0], made), operand.name))
        else:
            names.append(beside(node, step, node.frames(i), made))
    return names, made


def constant_in_step(array: np.ndarray, made: Frames) -> np.ndarray:
    """A constant that broadcasts to `made` in the whole-sequence graph, with size 1 along batch and time, as it does so in the step graph."""
    labels, n = made.labels[len(made.labels) - array.ndim :], made.clock.per_step
    shape: list[int] = []
    for size, label in zip(array.shape, labels, strict=True):
        if label == TIME:
            shape += [size] if n > 1 else []
        else:
            two = label == BATCH_FEATURE or (label in MERGED and n > 1)
            shape += [1, 1] if two else [size]
    return array.reshape(shape)


def beside(node: Node, step: StepGraph, x: Frames, made: Frames) -> str:
    """`x` as it broadcasts to `made` in the step graph: positions, which have no batch axis of their own, get theirs to its place."""
    if x.running and made.time >= 0 and made.clock.per_step == 1:
        at = made.time - len(made.labels) + len(x.labels)
        if (
            at >= 0 and x.labels[at] == FEATURE
        ):  # size 1 where the frames have their time axis, which a step of one does not have
            return step.emit("Squeeze", [x.name, step.ints(step_axis(x, at))], f"{x.name}.beside")[0]
    if not x.lone or made.lone:
        return x.name
    if BATCH not in made.labels or made.labels.index(BATCH) > max(0, made.time):
        raise node.refuse(
            "it combines positions with frames whose batch axis is not in front", "transpose the frames first"
        )
    at, own = step_axis(made, made.labels.index(BATCH)), step_shape(x)[1:]
    after = len(step_shape(made)) - at - 1
    if len(own) > after:  # a size of 1 at the place of the batch, or before it
        own = own[len(own) - after :]
    shape = [-1, *([1] * (after - len(own))), *own]
    return step.emit("Reshape", [x.name, step.ints(*shape)], f"{x.name}.beside")[0]


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
            f"it works along axis {axis}, the time axis, so a frame's result would need all other frames",
            "work along features, use a window of frames (a convolution, pooling), or keep a running value in a recurrent layer",
        )
    return axis


def selected_axis(node: Node, x: Frames, axis: int) -> int:
    """The axis that is selected from: features."""
    if x.labels[axis] in (TIME, BATCH_TIME, TIME_BATCH, SOURCE):
        raise node.refuse(
            f"it selects frames along axis {axis}, the time axis",
            "give the output of every frame, and take the last one (or the wanted ones) from what the stream gives",
        )
    return plain_axis(node, x, axis)


def padded(labels: Labels, rank: int) -> list[str]:
    """The labels with feature axes in front, as broadcasting adds them."""
    return [FEATURE] * (rank - len(labels)) + list(labels)


def made_of(x: Frames, name: str, labels: Labels, node: Node, output: int = 0) -> Frames:
    """What a rule made of `x`, at the same places along time; before the first frame it is what the rule made of that, too."""
    return replace(x, name=name, labels=labels, shapes=node.shapes[output], warm=None)
