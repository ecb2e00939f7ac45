"""One graph of two that were exported at two lengths: what differs are numbers that follow the length, and are computed from it."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..engine.errors import ExportError
from .bodies import bodies
from .tracked import where


def of_any_length(
    shorter: onnx.ModelProto, longer: onnx.ModelProto, lengths: tuple[int, int], time: tuple[str, int]
) -> onnx.ModelProto:
    """The graph that both are at their lengths. time: an input, and its axis that has the length."""
    made = onnx.ModelProto()
    made.CopyFrom(shorter)
    arrays = [{t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (made, longer)]
    pairing = _Pairing(arrays[0], arrays[1], lengths, time)
    pairing.graph(made.graph, longer.graph)
    everything = [*pairing.nodes, *made.graph.node]
    del made.graph.node[:], made.graph.initializer[:], made.graph.value_info[:]
    made.graph.node.extend(everything)
    made.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in pairing.kept.items())
    for value in [*made.graph.input, *made.graph.output]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.Clear()
            dim.dim_param = f"{value.name}.{axis}"
    return made


@dataclass(slots=True)
class _Pairing:
    """Both graphs, node by node. kept: constants that are left; nodes: what computes the others."""

    short: dict[str, np.ndarray]
    long: dict[str, np.ndarray]
    lengths: tuple[int, int]
    time: tuple[str, int]
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    _same: dict[str, str] = field(default_factory=dict)
    _follows: dict[tuple[str, str], str] = field(default_factory=dict)

    def graph(self, a: onnx.GraphProto, b: onnx.GraphProto) -> None:
        """Pairs the graphs, and replaces what `a` reads of constants that differ."""
        self._same.update(zip((v.name for v in a.input), (v.name for v in b.input), strict=True))
        if len(a.node) != len(b.node):
            raise _refusal("", self.lengths)
        for one, other in zip(a.node, b.node, strict=True):
            if _plain(one) != _plain(other) or len(one.output) != len(other.output):
                raise _refusal(f" ({where(one)})", self.lengths)
            for i, (x, y) in enumerate(zip(one.input, other.input, strict=True)):
                one.input[i] = self._paired(one, x, y)
            self._same.update(zip(one.output, other.output, strict=True))
            for inner, outer in zip(bodies(one), bodies(other), strict=True):
                self.graph(inner, outer)
        for x, y in zip(a.output, b.output, strict=True):
            if x.name in self.short:
                x.name = self._constant(x.name, y.name)
            elif self._same.get(x.name) != y.name:
                raise _refusal(f" (output '{x.name}')", self.lengths)

    def _paired(self, node: onnx.NodeProto, x: str, y: str) -> str:
        if x in self.short and y in self.long:
            return self._constant(x, y)
        if x != y == "" or (x and self._same.get(x) != y):
            raise _refusal(f" ({where(node)})", self.lengths)
        return x

    def _constant(self, x: str, y: str) -> str:
        """What is `x` at the shorter length and `y` at the longer one."""
        a, b = self.short[x], self.long[y]
        if a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes():
            self.kept[x] = a
            return x
        if (x, y) not in self._follows:
            self._follows[x, y] = self._following(f"{x}.{len(self._follows)}", a, b)
        return self._follows[x, y]

    def _following(self, name: str, a: np.ndarray, b: np.ndarray) -> str:
        if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "iuf":
            raise ExportError(
                f"a constant has shape {a.shape} for {self.lengths[0]} frames and {b.shape} for {self.lengths[1]}; "
                "what depends on the positions of all frames must be computed from the frames"
            )
        short, long = self.lengths
        slope = (b - a) / (long - short) if a.dtype.kind == "f" else (b - a) // (long - short)
        begin = a - slope * short
        if not np.allclose(begin + slope * long, b, rtol=1e-6, atol=0):
            raise _refusal(f" (a constant of {a.reshape(-1)[:4]} and {b.reshape(-1)[:4]})", self.lengths)
        slope, begin = slope.astype(a.dtype), begin.astype(a.dtype)
        count, axis = self.time
        self.kept |= {f"{name}.slope": slope, f"{name}.begin": begin, "length.axis": np.array([0], np.int64)}
        if not self.nodes:
            self.nodes.append(
                helper.make_node("Shape", [count], ["length.all"], "length.all", start=axis, end=axis + 1)
            )
            self.nodes.append(helper.make_node("Squeeze", ["length.all", "length.axis"], ["length"], "length"))
        kind = helper.np_dtype_to_tensor_dtype(a.dtype)
        self.nodes += [
            helper.make_node("Cast", ["length"], [f"{name}.length"], f"{name}.length", to=kind),
            helper.make_node("Mul", [f"{name}.length", f"{name}.slope"], [f"{name}.times"], f"{name}.times"),
            helper.make_node("Add", [f"{name}.times", f"{name}.begin"], [f"{name}.plus"], f"{name}.plus"),
        ]
        return f"{name}.plus"


def _plain(node: onnx.NodeProto) -> tuple[object, ...]:
    """What the node does, but for its bodies."""
    attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute if not a.HasField("g"))
    return (node.domain, node.op_type, *attributes)


def _refusal(what: str, lengths: tuple[int, int]) -> ExportError:
    return ExportError(
        f"a Python loop over time cannot become a step: the module computes otherwise for {lengths[0]} frames than for {lengths[1]}{what}; "
        "what it does must not depend on how long the sequence is"
    )
