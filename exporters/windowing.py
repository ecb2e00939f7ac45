"""The whole-sequence graph with its attention held to a window: what the steps of `window=` are, exactly."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .bands import Band


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
