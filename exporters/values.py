"""An ONNX graph as values: the same node on the same inputs is one value, whatever it is called."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .bodies import bodies, captured, is_random


@dataclass(frozen=True, slots=True)
class Made:
    """What makes a value: a node's output (`proto`, `inputs` with what its bodies read, `output`), a constant, or a graph input."""

    key: tuple[object, ...]
    proto: onnx.NodeProto | None = None
    inputs: tuple[int, ...] = ()
    output: int = 0
    array: np.ndarray | None = None

    @property
    def op(self) -> str:
        return self.proto.op_type if self.proto is not None else ""

    def attribute(self, name: str, default: int) -> int:
        assert self.proto is not None
        return next((int(helper.get_attribute_value(a)) for a in self.proto.attribute if a.name == name), default)


@dataclass(slots=True)
class Values:
    """made[v], name[v], shape[v] (None for a free size) of each value; inputs come before what reads them. NOTHING is an input left out."""

    NOTHING = -1

    made: list[Made] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    shape: list[tuple[int | None, ...] | None] = field(default_factory=list)
    of: dict[str, int] = field(default_factory=dict)
    _found: dict[tuple[object, ...], int] = field(default_factory=dict)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> "Values":
        found, graph = cls(), model.graph
        shapes = {
            v.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim)
            for v in [*graph.input, *graph.value_info, *graph.output]
            if v.type.tensor_type.HasField("shape")
        }
        for v in graph.input:
            found.of[v.name] = found.add(Made(("input", v.name)), v.name, shapes.get(v.name))
        for t in graph.initializer:
            found.of[t.name] = found.constant(numpy_helper.to_array(t), t.name)
        for proto in graph.node:
            found.node(proto, shapes)
        return found

    def add(self, made: Made, name: str, shape: tuple[int | None, ...] | None) -> int:
        if made.key not in self._found:
            self._found[made.key] = len(self.made)
            self.made.append(made)
            self.name.append(name)
            self.shape.append(shape)
        return self._found[made.key]

    def constant(self, array: np.ndarray, name: str) -> int:
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        return self.add(Made(key, array=array), name, array.shape)

    def node(self, proto: onnx.NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> None:
        """Adds the node's outputs."""
        if proto.op_type == "Constant":
            array = numpy_helper.to_array(proto.attribute[0].t) if proto.attribute[0].name == "value" else None
            if array is None:
                value = helper.get_attribute_value(proto.attribute[0])
                array = np.asarray(value, np.float32 if "float" in proto.attribute[0].name else np.int64)
            self.of[proto.output[0]] = self.constant(array, proto.output[0])
            return
        if proto.op_type == "Identity":
            self.of[proto.output[0]] = self.of[proto.input[0]]
            return
        names = [*proto.input, *captured(proto)]
        inputs = tuple(self.of[n] if n else self.NOTHING for n in names)
        attributes = sorted(a.SerializeToString(deterministic=True) for a in proto.attribute)
        same = (proto.domain, proto.op_type, *attributes, inputs, len(proto.output))
        if is_random(proto):
            same = (*same, proto.output[0])
        for i, name in enumerate(proto.output):
            if name:
                made = Made((*same, i), proto, inputs, i)
                self.of[name] = self.add(made, name, shapes.get(name))

    def written(
        self, wanted: Iterable[int], given: dict[int, str]
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes and constants that make the values, inputs first. given: what is there already, by its name; what is written is added to it."""
        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.TensorProto] = []
        stack = [(v, False) for v in reversed(list(wanted))]
        while stack:
            v, ready = stack.pop()
            if v in given or v == self.NOTHING:
                continue
            made = self.made[v]
            if made.array is not None:
                constants.append(numpy_helper.from_array(made.array, self.name[v]))
                given[v] = self.name[v]
            elif made.proto is None:
                given[v] = self.name[v]
            elif ready:
                outputs = {i: self.name[s] for s, i in self._siblings(v).items()}
                names = [given[i] if i != self.NOTHING else "" for i in made.inputs]
                nodes.append(renamed(made.proto, names, outputs))
                given.update({s: self.name[s] for s in self._siblings(v) if s not in given})
            else:
                stack.append((v, True))
                stack += [(i, False) for i in reversed(made.inputs)]
        return nodes, constants

    def _siblings(self, v: int) -> dict[int, int]:
        """The values that the same node makes, and which of its outputs they are."""
        key, proto = self.made[v].key, self.made[v].proto
        assert proto is not None
        return {self._found[k]: i for i in range(len(proto.output)) if (k := (*key[:-1], i)) in self._found}


def renamed(proto: onnx.NodeProto, inputs: list[str], outputs: dict[int, str]) -> onnx.NodeProto:
    """The node with other inputs (followed by what its bodies read) and outputs."""
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    count = len(copy.input)
    inner = dict(zip(captured(proto), inputs[count:], strict=True))
    copy.input[:] = inputs[:count]
    for body in bodies(copy):
        _reading(body, inner)
    for i, name in outputs.items():
        copy.output[i] = name
    return copy


def _reading(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        for body in bodies(node):
            _reading(body, names)
    for output in graph.output:
        output.name = names.get(output.name, output.name)
