"""Tensors of the whole-sequence graph as the pass sees them.

Each axis of a tensor has a label: BATCH, TIME, both in one axis (`BT` batch-major, `TB` time-major: what a reshape to
(batch * time, features) makes), or FEATURE. In the step graph the TIME axis is gone; the others stay in their order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..engine.errors import ExportError
from .worlds import SIZES

BATCH, TIME, BATCH_TIME, TIME_BATCH, FEATURE = "B", "T", "BT", "TB", ""
Labels = tuple[str, ...]
Shapes = tuple[tuple[int, ...], ...]  # one for each world


@dataclass(frozen=True, slots=True)
class Frames:
    """A tensor that depends on the inputs' frames; `name` is the step graph's."""

    name: str
    labels: Labels
    shapes: Shapes


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that no input's value reaches; its values in each world."""

    name: str
    values: tuple[np.ndarray, ...]

    @property
    def shapes(self) -> Shapes:
        return tuple(v.shape for v in self.values)


@dataclass(frozen=True, slots=True)
class Final:
    """The state of recurrent layers after the last frame, or a rearrangement of it."""

    layers: tuple[str, ...]


Tensor = Frames | Known | Final


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the whole-sequence graph with what it reads. inputs: None where one is left out."""

    proto: onnx.NodeProto
    inputs: tuple[Tensor | None, ...]
    shapes: tuple[Shapes, ...]

    @property
    def op(self) -> str:
        return self.proto.op_type

    @property
    def hint(self) -> str:
        """What to call the node's result in the step graph."""
        return next(o for o in self.proto.output if o)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value as Python has it (a string is bytes), or the default."""
        return next((onnx.helper.get_attribute_value(a) for a in self.proto.attribute if a.name == name), default)

    def input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def frames(self, index: int) -> Frames:
        """The input, which must depend on the frames."""
        found = self.input(index)
        if not isinstance(found, Frames):
            raise self.refuse(
                f"its input {index} must be computed from the frames", "compute what is constant outside of it"
            )
        return found

    def constant(self, index: int) -> np.ndarray | None:
        """The input's value, the same for every batch and length; None where it is left out."""
        found = self.input(index)
        if found is None:
            return None
        if not isinstance(found, Known):
            raise self.refuse(
                f"its input {index} is computed from the frames, and must be a constant", "make it a constant"
            )
        first = found.values[0]
        if any(not np.array_equal(first, v, equal_nan=first.dtype.kind == "f") for v in found.values):
            raise self.refuse(
                f"its input {index} depends on the number of streams or of frames, neither of which a step knows",
                "make it a constant",
            )
        return first

    def refuse(self, reason: str, remedy: str) -> ExportError:
        return ExportError(f"{where(self.proto)}: {reason}; {remedy}")


def where(node: onnx.NodeProto) -> str:
    """The node in words: its name, its operator and the module that it comes from."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    path = [part.strip(" '\"[]") for part in scopes.split(",")]
    module = path[-2].removeprefix("module").removeprefix(".") if len(path) > 1 else ""
    return f"node '{node.name}' ({node.op_type}{f', in module {module!r}' if module else ''})"


def labels_of(shapes: Shapes) -> tuple[str | None, ...]:
    """What each axis of a size-dependent tensor is by its sizes; None where it is neither constant, batch nor time."""
    sizes = list(zip(*shapes, strict=True))
    kinds = {
        tuple(b for b, _ in SIZES): BATCH,
        tuple(t for _, t in SIZES): TIME,
        tuple(b * t for b, t in SIZES): BATCH_TIME,
    }
    return tuple(FEATURE if len(set(s)) == 1 else kinds.get(s) for s in sizes)


def uniform(node: Node, known: Known) -> tuple[np.ndarray, Labels]:
    """The value with size 1 where it has a batch or time axis, and its labels; refused where it varies along those."""
    found = labels_of(known.shapes)
    if None in found:
        raise node.refuse(
            f"it reads '{known.name}', whose size depends on the number of streams or of frames",
            "a step knows neither; make it a constant",
        )
    labels = tuple(label or FEATURE for label in found)
    reduced = []
    for value in known.values:
        for axis, label in enumerate(labels):
            if label != FEATURE:
                first = value.take([0], axis)
                if not np.array_equal(value, np.broadcast_to(first, value.shape), equal_nan=value.dtype.kind == "f"):
                    what = "stream in the batch" if label == BATCH else "frame in the sequence"
                    raise node.refuse(
                        f"it reads '{known.name}', which depends on the position of the {what}",
                        "a step knows neither; make it the same for all of them",
                    )
                value = first
        reduced.append(value)
    first = reduced[0]
    if any(not np.array_equal(first, v, equal_nan=first.dtype.kind == "f") for v in reduced):
        raise node.refuse(
            f"it reads '{known.name}', whose value depends on the number of streams or of frames",
            "a step knows neither; make it a constant",
        )
    return first, labels


def step_shape(frames: Frames) -> list[int]:
    """The shape in the step graph, -1 for the axis that has the batch."""
    pairs = zip(frames.labels, frames.shapes[0], strict=True)
    return [-1 if label != FEATURE else size for label, size in pairs if label != TIME]


def step_axis(labels: Labels, axis: int) -> int:
    """Where a whole-sequence axis is in the step graph."""
    return axis - (TIME in labels[:axis])


def one_time_axis(node: Node, labels: list[str]) -> Labels:
    """The labels, which must be one batch and one time: frames meet frames of their own stream and time alone."""
    together = "".join(labels)
    if together.count("T") > 1:
        raise node.refuse(
            "it combines every frame with every other frame",
            "what mixes time (attention, outer products) is not exported by this version",
        )
    if together.count("B") > 1:
        raise node.refuse("it combines every stream with every other stream", "streams must not depend on each other")
    return tuple(labels)
