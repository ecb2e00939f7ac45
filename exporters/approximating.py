"""The whole-sequence graph as it was asked to be approximated: what the steps of `window=` and `lookahead=` must be, exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .bands import Band
from .recurrent_rule import LOOKAHEAD_KEY, one_direction
from .step_graph import Bounds
from .step_pass import Step

_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, slots=True)
class Approximated:
    """The model that the steps are, what makes it another than the exact one, and that in words."""

    model: onnx.ModelProto
    asked: tuple[tuple[str, str], ...]
    words: str


def approximated(whole: onnx.ModelProto, step: Step, bounds: Bounds) -> Approximated | None:
    """What the step graph is of, where that is not the exact model; None where it is."""
    model, asked, words = whole, [], []
    if step.windows:
        window = ", ".join(map(str, bounds.window or ()))
        model = windowed_model(model, step.windows)
        asked.append(("window", window))
        words.append(f"attention held to a window of ({window})")
    if step.lookahead:
        model = lookahead_model(model, step.lookahead)
        asked.append(("lookahead", str(step.lookahead)))
        words.append(f"reverse layers that begin {step.lookahead} frames ahead")
    return Approximated(model, tuple(asked), " and ".join(words)) if asked else None


def windowed_model(model: onnx.ModelProto, windows: Mapping[str, Band]) -> onnx.ModelProto:
    """The model in which scores (.., T, T) outside of their band are minus infinity. windows: by the scores' names; of period 1."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    for node in nodes:
        made.graph.node.append(node)
        for i, name in enumerate(node.output):
            if name in windows:
                made.graph.node[-1].output[i] = f"{name}.all"
                made.graph.node.extend(_masked(name, windows[name]))
                made.graph.initializer.extend(_numbers(name, windows[name]))
    return made


def _masked(name: str, band: Band) -> list[onnx.NodeProto]:
    def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, [f"{name}.{i}" for i in inputs.split()], [f"{name}.{output}"], **attributes)

    return [
        node("Shape", "all", "sizes", start=-1),
        node("Squeeze", "sizes", "length"),
        node("Range", "zero length one", "places"),
        node("Unsqueeze", "places first", "columns"),
        node("Unsqueeze", "places second", "rows"),
        node("Sub", "columns rows", "offset"),
        node("GreaterOrEqual", "offset left", "near"),
        node("LessOrEqual", "offset right", "soon"),
        node("And", "near soon", "seen"),
        helper.make_node("Where", [f"{name}.seen", f"{name}.all", f"{name}.none"], [name]),
    ]


def _numbers(name: str, band: Band) -> list[onnx.TensorProto]:
    numbers = {"zero": 0, "one": 1, "left": -band.left[0], "right": band.right[0]}
    found = [numpy_helper.from_array(np.array(v, np.int64), f"{name}.{key}") for key, v in numbers.items()]
    found += [
        numpy_helper.from_array(np.array([v], np.int64), f"{name}.{key}") for key, v in (("first", 0), ("second", 1))
    ]
    return [*found, numpy_helper.from_array(np.array(-np.inf, np.float32), f"{name}.none")]


def lookahead_model(model: onnx.ModelProto, ahead: int) -> onnx.ModelProto:
    """The model whose reverse layers give for frame t what they give when run from frame min(t + ahead, T - 1) back to t."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = list(made.graph.node)
    del made.graph.node[:]
    for i, node in enumerate(nodes):
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        direction = found.get("direction", b"forward")
        own = any(p.key == LOOKAHEAD_KEY for p in node.metadata_props)
        if node.op_type in _RECURRENT and direction != b"forward" and not own:
            layer = _Ahead(node, found, f"ahead{i}", ahead)
            made.graph.node.extend(layer.nodes())
            made.graph.initializer.extend(layer.numbers.values())
        else:
            made.graph.node.append(node)
    return made


class _Ahead:
    """A layer with a reverse direction as one of windows: each frame's is a sequence of its own."""

    def __init__(self, node: onnx.NodeProto, attributes: dict[str, Any], name: str, ahead: int):
        self.node, self.attributes, self.name, self.ahead = node, attributes, name, ahead
        self.numbers: dict[str, onnx.TensorProto] = {}
        self.made: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        both = self.attributes["direction"] == b"bidirectional"
        ways = [self._forward()] if both else []
        ways.append(self._reverse(1 if both else 0))
        self.made.append(helper.make_node("Concat", ways, [self.node.output[0]], axis=1))
        return self.made

    def _say(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{self.name}.{len(self.made)}"
        self.made.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def _ints(self, *values: int, scalar: bool = False) -> str:
        array = np.array(values[0] if scalar else values, np.int64)
        name = f"{self.name}.{'number' if scalar else 'ints'}{'_'.join(map(str, values))}"
        self.numbers[name] = numpy_helper.from_array(array, name)
        return name

    def _of(self, index: int, which: int) -> str:
        """One direction of an input whose first axis is directions; "" where it is left out."""
        given = self.node.input[index] if index < len(self.node.input) else ""
        return self._say("Slice", given, self._ints(which), self._ints(which + 1), self._ints(0)) if given else ""

    def _kept(self, which: int, direction: str) -> dict[str, Any]:
        return one_direction(self.attributes, which) | {"direction": direction}

    def _forward(self) -> str:
        inputs = [self.node.input[0], *(self._of(i, 0) for i in (1, 2, 3)), "", self._of(5, 0), self._of(6, 0)]
        inputs += [self._of(7, 0)]
        return self._layer(inputs, self._kept(0, "forward"))

    def _layer(self, inputs: list[str], kept: dict[str, Any]) -> str:
        while not inputs[-1]:
            inputs.pop()
        return self._say(self.node.op_type, *inputs, **kept)

    def _reverse(self, which: int) -> str:
        """(T, 1, B, H)."""
        x = self.node.input[0]
        sizes = self._say("Shape", x)
        length, batch = (self._say("Gather", sizes, self._ints(i, scalar=True)) for i in (0, 1))
        zero, one = self._ints(0, scalar=True), self._ints(1, scalar=True)
        places = self._say("Unsqueeze", self._say("Range", zero, length, one), self._ints(1))  # (T, 1)
        last = self._say("Sub", length, one)
        offsets = self._ints(*range(self.ahead + 1))
        order = self._say("Min", self._say("Add", places, offsets), last)  # (T, R + 1)
        windows = self._say("Transpose", self._say("Gather", x, order, axis=0), perm=[1, 0, 2, 3])  # (R + 1, T, B, F)
        features = self._say("Slice", sizes, self._ints(2), self._ints(3))
        flat = self._say("Concat", self._ints(self.ahead + 1), self._ints(-1), features, axis=0)
        windows = self._say("Reshape", windows, flat)
        left = self._say("Add", self._say("Sub", last, places), one)
        counts = self._say("Min", left, self._ints(self.ahead + 1))  # (T, 1)
        each = self._say("Concat", *(self._say("Unsqueeze", s, self._ints(0)) for s in (length, batch)), axis=0)
        counts = self._say("Reshape", self._say("Expand", counts, each), self._ints(-1))
        counts = self._say("Cast", counts, to=onnx.TensorProto.INT32)
        inputs = [windows, *(self._of(i, which) for i in (1, 2, 3)), counts]
        inputs += [self._repeated(i, which, length) for i in (5, 6)] + [self._of(7, which)]
        y = self._layer(inputs, self._kept(which, "reverse"))  # (R + 1, 1, T * B, H)
        first = self._say("Gather", y, zero, axis=0)
        whole = self._say("Concat", each, self._ints(1, -1), axis=0)
        rows = self._say("Reshape", self._say("Transpose", first, perm=[1, 0, 2]), whole)  # (T, B, 1, H)
        return self._say("Transpose", rows, perm=[0, 2, 1, 3])

    def _repeated(self, index: int, which: int, length: str) -> str:
        """A first state (1, B, H) for each frame's window."""
        state = self._of(index, which)
        if not state:
            return ""
        times = self._say("Concat", self._ints(1), self._say("Unsqueeze", length, self._ints(0)), self._ints(1), axis=0)
        return self._say("Tile", state, times)
