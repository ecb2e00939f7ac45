"""Tensors of the whole-sequence graph as the pass sees them.

Each axis of a tensor has a label: BATCH, TIME, both in one axis (`BT` batch-major, `TB` time-major: what a reshape to
(batch * time, features) makes), batch and features in one (`BF`, as heads are merged), FEATURE, or SOURCE, the frames that an attention
attends to. In the step graph the TIME axis is left out where a step has one element of it, and has
that many entries otherwise; a merged axis is its parts; SOURCE is a window of frames; the rest stays in its order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from ..engine.errors import ExportError
from .clocks import Clock

BATCH, TIME, BATCH_TIME, TIME_BATCH, FEATURE = "B", "T", "BT", "TB", ""
BATCH_FEATURE, SOURCE = "BF", "S"
MERGED = (BATCH_TIME, TIME_BATCH, BATCH_FEATURE)
Labels = tuple[str, ...]
Shapes = tuple[tuple[int, ...], ...]  # one for each world


@dataclass(frozen=True, slots=True)
class Padding:
    """Elements of value `fill` that a reader is to see before and after the tensor's own; below zero, elements that it is not to see.

    mode: as ONNX Pad has it; with "edge" they are the first and the last element, with "reflect" those next to them, mirrored.
    order: how many elements each operator that made it added or took away; what is not among them is part of a window.
    """

    before: int
    after: int
    fill: float = 0.0
    mode: str = "constant"
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The SOURCE axis: entry s of step t is frame t * n - delay + s of a tensor of `clock`; there are `size` of them.

    behind: how far the first of them is behind the first element that attends. within: bool (n, size), what may be attended to.
    """

    clock: Clock
    delay: int
    size: int
    behind: int
    within: bytes


@dataclass(frozen=True, slots=True)
class Frames:
    """A tensor that depends on the inputs' frames; `name` is the step graph's.

    clock: which elements along time a step has, of the tensor without its padding. padding: what `shapes` include of it, not yet
    in the step graph. warm: what the elements before the first are, where that is known. lone: it has no batch axis in the
    whole-sequence graph (positions), in the step graph it has one in front. source: of the SOURCE axis, where there is one.
    running: it depends on a value of all frames so far, whose time axis has size 1 in the whole-sequence graph, or is none.
    """

    name: str
    labels: Labels
    shapes: Shapes
    clock: Clock = field(default=Clock())
    dtype: str = "float32"
    padding: Padding | None = None
    warm: float | None = None
    lone: bool = False
    source: Source | None = None
    running: bool = False

    @property
    def time(self) -> int:
        """Which axis is time alone; -1 where none is."""
        return self.labels.index(TIME) if TIME in self.labels else -1


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
    """A node of the whole-sequence graph with what it reads. inputs: None where one is left out; sizes: (batch, length) of each world; whole: the graph around it, `bands.Whole`."""

    proto: onnx.NodeProto
    inputs: tuple[Tensor | None, ...]
    shapes: tuple[Shapes, ...]
    sizes: tuple[tuple[int, int], ...]
    whole: Any = None

    @property
    def op(self) -> str:
        return self.proto.op_type

    @property
    def hint(self) -> str:
        """What to call the node's result in the step graph."""
        return next(o for o in self.proto.output if o)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch size in each world."""
        return tuple(b for b, _ in self.sizes)

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


def module_of(node: onnx.NodeProto) -> str:
    """The path of the torch module that the node comes from; empty where that is not known, or is the whole."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    path = [part.strip(" '\"[]") for part in scopes.split(",")]
    return path[-2].removeprefix("module").removeprefix(".") if len(path) > 1 else ""


def where(node: onnx.NodeProto) -> str:
    """The node in words: its name, its operator and the module that it comes from."""
    module = module_of(node)
    return f"node '{node.name}' ({node.op_type}{f', in module {module!r}' if module else ''})"


def columns(shapes: Shapes) -> list[tuple[int, ...]]:
    """For each axis its size in each world."""
    return list(zip(*shapes, strict=True))


def labels_of(node: Node, known: Known) -> tuple[str | None, ...]:
    """What each axis is by its sizes: the batch, what an input of the node has at the same place or at another, or constant; None for anything else."""
    kinds, places = {node.batches: BATCH}, {}
    for value in node.inputs:
        if isinstance(value, Frames):
            for axis, sizes in enumerate(columns(value.shapes)):
                if value.labels[axis] != FEATURE:
                    places[axis - len(value.labels), sizes] = value.labels[axis]
                    if value.labels[axis] != SOURCE:
                        kinds[sizes] = value.labels[axis]
    found = enumerate(columns(known.shapes), -len(known.shapes[0]))
    return tuple(FEATURE if len(set(s)) == 1 else places.get((axis, s), kinds.get(s)) for axis, s in found)


def uniform(node: Node, known: Known) -> tuple[np.ndarray, Labels]:
    """The value with size 1 where it has a batch or time axis, and its labels; refused where it varies along those."""
    found = labels_of(node, known)
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


def _step_sizes(x: Frames, axis: int, full: bool) -> list[int]:
    """The sizes that stand for the axis in the step graph. full: the time axis stays, whatever its size."""
    label, n = x.labels[axis], x.clock.per_step
    if label == TIME:
        return [n] if full or n > 1 else []
    if label in (BATCH_TIME, TIME_BATCH):
        return [-1] if n == 1 else [-1, n] if label == BATCH_TIME else [n, -1]
    if label == BATCH_FEATURE:
        return [-1, _heads(x, axis)]
    if label == SOURCE and x.source is not None:
        return [x.source.size]
    return [-1] if label == BATCH else [x.shapes[0][axis]]


def _heads(x: Frames, axis: int) -> int:
    """How many features of each stream are merged with the batch: what the sizes in two worlds, of 3 and 5 streams, have in common."""
    return math.gcd(*(shape[axis] for shape in x.shapes))


def step_shape(x: Frames, full: bool = False) -> list[int]:
    """The shape in the step graph, -1 for the axis that has the batch."""
    front = [-1] if x.lone else []
    return front + [size for axis in range(len(x.labels)) for size in _step_sizes(x, axis, full)]


def step_axis(x: Frames, axis: int, full: bool = False) -> int:
    """Where a whole-sequence axis is in the step graph."""
    return int(x.lone) + sum(len(_step_sizes(x, a, full)) for a in range(axis))


def one_time_axis(node: Node, labels: Sequence[str]) -> Labels:
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
