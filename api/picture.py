"""A step graph as people would draw it: which boxes there are and which arrows, before anything is placed.

Weights are written in the boxes that use them. Folded away: shape arithmetic, what only renames or reshapes, and
- a buffer, Concat(state, new) with its Slices: the state stands for the past that it holds;
- a clock, what is counted from scalar states and `valid` alone: one box, and "by the clock" where its verdicts are used;
- Where(clock, new, state), a state that is held until its first real frame.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .engine.artifact import Artifact, StateSpec, StepSpec

_VIEWS = frozenset(("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"))
_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.UNDEFINED))
_SHOWN_WEIGHTS = 3


@dataclass(slots=True)
class Box:
    """kind: input, output, state, node or clock. lines: below the title, in small print."""

    kind: str
    title: str
    name: str
    lines: list[str] = field(default_factory=list)
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """Between boxes by number. back: what the target, a state, is in the next step."""

    source: int
    target: int
    back: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: list[Box]
    arrows: list[Arrow]


def picture_of(artifact: Artifact) -> Picture:
    """The boxes and arrows of a step graph."""
    drawing = _Reader(artifact)
    drawing.read()
    return Picture(drawing.boxes, list(dict.fromkeys(drawing.arrows)))


def shape_text(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "a number"


class _Reader:
    """Reads the nodes in order. source[tensor]: the boxes that it comes from."""

    def __init__(self, artifact: Artifact):
        from .exporters.worlds import value_free

        self.artifact, self.spec, self.graph = artifact, artifact.spec, artifact.model.graph
        self.free = value_free(self.graph)
        self.arrays = {t.name: t for t in self.graph.initializer}
        tensors = _inferred(artifact.model)
        self.shapes = _shapes(artifact, tensors)
        self.types = {v.name: v.type.tensor_type.elem_type for v in tensors}
        self.clock = _clock(artifact, self.free, {name for name, kind in self.types.items() if kind not in _FLOATS})
        self.clock_name = "clock"
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.source: dict[str, list[int]] = {}
        self.state_box: dict[str, int] = {}
        self.buffers: dict[str, tuple[int, list[tuple[str, int]]]] = {}  # of a Concat: axis, parts with their sizes
        self.reads = [i for n in self.graph.node for i in n.input] + [o.name for o in self.graph.output]

    def read(self) -> None:
        spec = self.spec
        for t in spec.inputs:
            rate = f"{spec.frames_per_step} frames a step" if spec.frames_per_step > 1 else "1 frame a step"
            self._add(Box("input", t.name, t.name, [f"{t.dtype}, {rate}"], tuple(t.shape)), [t.name])
        if spec.valid_input:
            self._add(
                Box("input", spec.valid_input, spec.valid_input, ["how many frames are real"], None), [spec.valid_input]
            )
        for s in spec.states:
            self.state_box[s.name] = self._add(_state(s), [s.name])
        if self.artifact.encoder is not None:
            self._add_encoder(self.artifact.encoder.spec)
        if self.clock:
            self._add_clock()
        for node in self.graph.node:
            self._node(node)
        for s in spec.states:
            self._next(s)
        for t in spec.outputs:
            delay = f", delay {spec.delay} frame{'s' if spec.delay > 1 else ''}" if spec.delay else ""
            rate = f"{spec.outputs_per_step} a step{delay}"
            box = self._add(Box("output", t.name, t.name, [f"{t.dtype}, {rate}"], tuple(t.shape)), [])
            self.arrows += [Arrow(source, box) for source in self.source.get(t.name, ())]

    def _add(self, box: Box, tensors: list[str]) -> int:
        self.boxes.append(box)
        for name in tensors:
            self.source[name] = [len(self.boxes) - 1]
        return len(self.boxes) - 1

    def _add_encoder(self, encoder: StepSpec) -> None:
        """The encoder as one box, with the sources that it reads and the states that it fills."""
        assert self.spec.encoder is not None
        sources = [
            self._add(Box("input", t.name, t.name, [f"{t.dtype}, a whole source"], ("T", *t.shape)), [])
            for t in encoder.inputs
        ]
        box = self._add(Box("node", "encoder", "", ["reads each source once", "a graph of its own"]), [])
        self.arrows += [Arrow(source, box) for source in sources]
        rows = {state for _, state in self.spec.encoder.memory}
        for name in [
            *(state for _, state in (*self.spec.encoder.memory, *self.spec.encoder.initial)),
            self.spec.encoder.length,
        ]:
            state = self.boxes[self.state_box[name]]
            state.lines[-1] = (
                "a row a position"
                if name in rows
                else "how many positions"
                if name == self.spec.encoder.length
                else "what it ends with"
            )
            self.arrows.append(Arrow(box, self.state_box[name]))

    def _add_clock(self) -> None:
        made = [n for n in self.graph.node if n.output[0] in self.clock]
        counted = [name for name in [*self.state_box, self.spec.valid_input] if name in self.clock]
        if not made:
            return
        if self.spec.encoder and counted == [self.spec.encoder.length]:
            self.clock_name, told = "mask", ["which positions of", "memory are real"]
        else:
            self.clock_name, told = "clock", [f"{len(made)} nodes that count", "steps and real frames"]
        box = self._add(Box("clock", self.clock_name, "", told), [])
        for name in counted:
            self.arrows.append(Arrow(self.source[name][0], box))
        for node in made:
            for name in node.output:
                self.source[name] = [box]

    def _node(self, node: onnx.NodeProto) -> None:
        given = [name for name in [*node.input, *_captured(node)] if name]
        if node.output[0] in self.free or node.output[0] in self.clock:
            return
        if self._folded(node):
            return
        title, name = node.op_type, node.output[0] if not node.name else node.name
        box = Box("node", title, name or next(o for o in node.output if o), shape=self._shape(node))
        constants = [name for name in given if name in self.free]
        if node.op_type not in ("Slice", "Reshape", "Squeeze", "Unsqueeze", "Split", "Pad", "Expand", "Tile"):
            box.lines += self._weights(constants)
        number = self._add(box, [o for o in node.output if o])
        sources = dict.fromkeys(s for name in given if name not in self.clock for s in self.source.get(name, ()))
        self.arrows += [Arrow(source, number) for source in sources]
        if any(name in self.clock and name not in self.free for name in given):
            box.lines.append(f"by the {self.clock_name}")

    def _shape(self, node: onnx.NodeProto) -> tuple[int, ...] | None:
        return next((self.shapes[o] for o in node.output if o and o in self.shapes), None)

    # ------------------------------------------------------------------------------------------------ what is folded

    def _folded(self, node: onnx.NodeProto) -> bool:
        """Whether the node is no box of its own; then its outputs come from the boxes of its inputs."""
        out = node.output[0]
        if (
            node.op_type == "Identity"
            or self._same_type(node)
            or (node.op_type in _VIEWS and self._same_but_ones(node.input[0], out))
        ):
            self.source[out] = self.source.get(node.input[0], [])
            self._reshaped(self.source[out], node.input[0], out)
            if node.input[0] in self.buffers and node.op_type == "Identity":
                self.buffers[out] = self.buffers[node.input[0]]
            return True
        return self._is_buffer(node) or self._cuts_buffer(node) or self._is_held(node)

    def _same_type(self, node: onnx.NodeProto) -> bool:
        """A Cast to what it is already."""
        types = (
            [self.types.get(name) for name in (node.input[0], node.output[0])] if node.op_type == "Cast" else [None, 0]
        )
        return types[0] == types[1] and types[0] is not None

    def _same_but_ones(self, before: str, after: str) -> bool:
        if before not in self.shapes or after not in self.shapes:
            return False
        old, new = ([d for d in self.shapes[name] if d != 1] for name in (before, after))
        return old == new

    def _reshaped(self, sources: list[int], before: str, after: str) -> None:
        """A box shows the shape that its result has once views are done."""
        for box in (self.boxes[s] for s in sources if len(sources) == 1):
            shape = self.shapes.get(after)
            if (
                box.kind == "node"
                and shape
                and box.shape == self.shapes.get(before)
                and len(shape) < len(box.shape or ())
            ):
                box.shape = shape

    def _is_buffer(self, node: onnx.NodeProto) -> bool:
        """Concat of a state and what is new, a Slice of which is the next state."""
        states = [s for s in self.spec.states if s.name in node.input]
        if node.op_type != "Concat" or not states or any(name in self.free for name in node.input):
            return False
        cuts = {n.output[0] for n in self.graph.node if n.op_type == "Slice" and n.input[0] == node.output[0]}
        if not any(s.next in cuts for s in states) or any(name not in self.shapes for name in node.input):
            return False
        axis = next(a.i for a in node.attribute if a.name == "axis")
        parts = [(name, self.shapes[name][axis - 1 if axis > 0 else axis]) for name in node.input]
        self.buffers[node.output[0]] = (axis, parts)
        self.source[node.output[0]] = self._together([name for name, _ in parts])
        for s in states:
            self.boxes[self.state_box[s.name]].title = "buffer"
        return True

    def _cuts_buffer(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Slice" or node.input[0] not in self.buffers:
            return False
        axis, parts = self.buffers[node.input[0]]
        numbers = [self._number(name) for name in node.input[1:]]
        if len(numbers) < 3 or None in numbers or numbers[2] != axis or (len(numbers) > 3 and numbers[3] != 1):
            return False
        first, last = _range(numbers[0] or 0, numbers[1] or 0, sum(size for _, size in parts))
        read, at = [], 0
        for name, size in parts:
            if at < last and at + size > first:
                read.append(name)
            at += size
        if node.output[0] in {s.next for s in self.spec.states}:  # a buffer moves on: what is new goes in
            read = [name for name in read if name not in self.state_box] or read
        self.source[node.output[0]] = self._together(read)
        return True

    def _is_held(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Where" or node.input[0] not in self.clock or self.reads.count(node.output[0]) != 1:
            return False
        for s in self.spec.states:
            if s.next == node.output[0] and s.name in node.input[1:]:
                new = node.input[1] if node.input[2] == s.name else node.input[2]
                self.source[node.output[0]] = self.source.get(new, [])
                self.boxes[self.state_box[s.name]].lines.append("held by the clock")
                return True
        return False

    def _together(self, names: list[str]) -> list[int]:
        return list(dict.fromkeys(s for name in names for s in self.source.get(name, ())))

    def _number(self, name: str) -> int | None:
        if name not in self.arrays:
            return None
        values = numpy_helper.to_array(self.arrays[name]).reshape(-1)
        return int(values[0]) if values.size == 1 else None

    # ------------------------------------------------------------------------------------------------ what is written

    def _weights(self, names: list[str]) -> list[str]:
        """Shapes of constants, the value of a single number; not of empty ones."""
        shown, kept = [], 0
        for name in names:
            stored = self._stored(name)
            if stored is None:
                continue
            array = self.arrays.get(name)
            if array is not None and math.prod(array.dims) == 1:
                value = numpy_helper.to_array(array).reshape(-1)[0]
                shown.append(f"{value:.4g}" if isinstance(value, np.floating) else str(value))
            else:
                kept += 1
                shown.append(stored)
        few = shown[:_SHOWN_WEIGHTS] + (
            [f"and {len(shown) - _SHOWN_WEIGHTS} more"] if len(shown) > _SHOWN_WEIGHTS else []
        )
        return [("weights " if kept else "with ") + " ".join(few)] if few else []

    def _stored(self, name: str) -> str | None:
        """The shape of a constant, with its type where it is stored in another than float32."""
        if name in self.arrays:
            tensor = self.arrays[name]
            if not math.prod(tensor.dims):
                return None
            return shape_text(tuple(tensor.dims))
        made = next((n for n in self.graph.node if name in n.output), None)
        if made is not None and made.op_type in ("DequantizeLinear", "Cast") and made.input[0] in self.arrays:
            kind = TensorProto.DataType.Name(self.arrays[made.input[0]].data_type).lower()
            return f"{kind} {self._stored(made.input[0])}"
        return "(computed from sizes)"

    def _next(self, state: StateSpec) -> None:
        box = self.state_box[state.name]
        sources = [s for s in self.source.get(state.next, ()) if s != box]
        self.arrows += [Arrow(source, box, back=True) for source in sources]
        if not sources:
            self.boxes[box].lines.append("no step changes it" if self.artifact.encoder else "never changes")


def _state(state: StateSpec) -> Box:
    value = state.initial_value()
    size = f"{value.nbytes:,} bytes"
    if value.size and (value == value.flat[0]).all():
        first = f"starts at {value.flat[0]:g}"
    else:
        first = f"starts at {value.min():.3g} .. {value.max():.3g}" if value.size else "empty"
    return Box("state", "state", state.name, [f"{state.dtype}, {size}", first], tuple(state.shape))


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What ONNX can tell of every tensor but constants."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return [*graph.value_info, *graph.input, *graph.output]


def _shapes(artifact: Artifact, tensors: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
    """Of each tensor the shape without the batch's axis, where it is known; of each constant its shape."""
    batched = artifact.spec.batchable
    found = {t.name: tuple(t.dims) for t in artifact.model.graph.initializer}
    for info in tensors:
        dims = info.type.tensor_type.shape.dim
        sizes = tuple(d.dim_value for d in dims if d.HasField("dim_value"))
        if info.type.tensor_type.HasField("shape") and len(dims) - len(sizes) <= batched:
            found[info.name] = sizes if batched else sizes[1:]
    return found


def _clock(artifact: Artifact, free: set[str], kinds: set[str]) -> set[str]:
    """Tensors that follow from scalar whole-number states and `valid` alone; empty where nothing is counted.

    kinds: the tensors of whole numbers and truth values.
    """
    spec, valid = artifact.spec, artifact.spec.valid_input
    states = {s.name: s.next for s in spec.states if not s.shape and np.dtype(s.dtype).kind in "iu"}
    while True:
        known = set(states) | ({valid} if valid else set())
        for node in artifact.model.graph.node:
            given = [name for name in [*node.input, *_captured(node)] if name]
            if (
                all(n in known or n in free for n in given)
                and any(n in known for n in given)
                and set(node.output) <= kinds
            ):
                known.update(node.output)
        kept = {name: after for name, after in states.items() if after in known}
        if kept == states:
            return known
        states = kept


def _captured(node: onnx.NodeProto) -> list[str]:
    """What the body of an If, a Loop or a Scan reads from around it."""
    found = []
    for body in (a.g for a in node.attribute if a.HasField("g")):
        own = (
            {v.name for v in body.input} | {t.name for t in body.initializer} | {o for n in body.node for o in n.output}
        )
        found += [name for n in body.node for name in [*n.input, *_captured(n)] if name and name not in own]
        found += [o.name for o in body.output if o.name not in own]
    return found


def _range(first: int, last: int, size: int) -> tuple[int, int]:
    """A Slice's ends as places from 0 to size."""
    a, b = (n + size if n < 0 else n for n in (first, last))
    return min(max(a, 0), size), min(max(b, 0), size)
