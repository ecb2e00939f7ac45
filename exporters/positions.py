"""What a model computes from the places of frames alone, such as rotary angles: computed from the step's own number.

In the whole-sequence graph these are known tensors, the same for all streams, that start from a Range as long as the sequence. The
nodes between that Range and their reader are taken over into the step graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from .bands import Whole
from .clocks import Clock
from .rules_attention import is_square
from .step_graph import StepGraph
from .timing import indices
from .tracked import TIME, Frames, Known, Node, Tensor, columns, where

Rules = Callable[[Node, StepGraph], Sequence[Tensor]]


def by_position(node: Node, step: StepGraph, rules: Rules) -> Node:
    """The node with those of its known inputs that vary along time as tensors of the step graph."""
    some = next((v for v in node.inputs if isinstance(v, Frames) and not v.lone), None)
    some = some or next((v for v in node.inputs if isinstance(v, Frames)), None)
    if some is None or not any(isinstance(v, Known) for v in node.inputs):
        return node
    time = next((sizes for sizes, label in zip(columns(some.shapes), some.labels, strict=True) if label == TIME), None)
    if time is None:
        return node
    inputs = []
    for value in node.inputs:
        moving = isinstance(value, Known) and not (some.source and is_square(value, some)) and _moves(value, time)
        if moving and isinstance(value, Known):
            value = _Derivation(node, step, rules, time, some.clock).of(value.name)
        inputs.append(value)
    return replace(node, inputs=tuple(inputs))


def _moves(known: Known, time: tuple[int, ...]) -> bool:
    """Whether it differs from frame to frame."""
    for axis, sizes in enumerate(columns(known.shapes)):
        if sizes == time and any(
            not np.array_equal(v, np.broadcast_to(v.take([0], axis), v.shape)) for v in known.values
        ):
            return True
    return False


class _Derivation:
    """Known tensors along one time axis, computed for the elements of one clock."""

    def __init__(self, reader: Node, step: StepGraph, rules: Rules, time: tuple[int, ...], clock: Clock):
        self.reader, self.step, self.rules, self.time, self.clock = reader, step, rules, time, clock
        self.whole: Whole = reader.whole

    def of(self, name: str) -> Frames:
        """The tensor of the step graph. Raises ExportError where it does not come from a Range."""
        key = ("position", name, self.clock)
        if key not in self.step.positions:
            self.step.positions[key] = self._computed(name)
        return self.step.positions[key]

    def _computed(self, name: str) -> Frames:
        worlds, proto = self.whole.worlds, self.whole.producer(name)
        if proto is None or not proto.input:
            raise self._refusal(name, "a table that ends")
        if proto.op_type == "Range":
            return self._range(name, [worlds.known[i] for i in proto.input])
        inputs: list[Tensor | None] = []
        for i in proto.input:
            known = Known(i, worlds.known[i]) if i else None
            inputs.append(self.of(i) if known is not None and _moves(known, self.time) else known)
        if not any(isinstance(v, Frames) for v in inputs):
            table = proto.op_type in ("Slice", "Gather")
            what = f"'{proto.input[0]}', a table that ends" if table else f"what {where(proto)} makes of the length"
            raise self._refusal(name, what)
        shapes = tuple(worlds.shapes.get(o, ()) for o in proto.output)
        results = self.rules(Node(proto, tuple(inputs), shapes, worlds.sizes, self.whole), self.step)
        found = results[list(proto.output).index(name)]
        assert isinstance(found, Frames)
        return replace(found, dtype=worlds.dtypes[name])

    def _range(self, name: str, given: Sequence[tuple[np.ndarray, ...]]) -> Frames:
        start, _, delta = given
        worlds = self.whole.worlds
        if len({float(v) for v in start}) > 1 or len({float(v) for v in delta}) > 1:
            raise self._refusal(name, "a range that does not start at the first frame")
        found = indices(self.step, self.clock)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(worlds.dtypes[name]))
        if kind != TensorProto.INT64:
            found = self.step.emit("Cast", [found], f"{name}.places", to=kind)[0]
        for op, value, nothing in (("Mul", delta[0], 1), ("Add", start[0], 0)):
            if float(value) != nothing:
                found = self.step.emit(op, [found, self.step.constant(np.asarray(value), "number")], name)[0]
        return Frames(found, (TIME,), worlds.shapes[name], self.clock, worlds.dtypes[name], lone=True)

    def _refusal(self, name: str, what: str) -> Exception:
        return self.reader.refuse(
            f"it reads '{name}', which depends on the position of the frame in the sequence and comes from {what}",
            "compute it from torch.arange(length) (sinusoids, rotary positions), or make it the same for all frames",
        )
