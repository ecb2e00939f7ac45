"""Inputs of a step graph that never change, as weights of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..engine.errors import ExportError
from .joining import Port
from .placing import Place


def constant_of(port: Port, value: Any) -> np.ndarray:
    """The value as the graph's input takes it; axes of no fixed size have 1, or the value's own."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ExportError(f"constants: '{port.name}' is {value!r}, expected a number or an array of numbers")
    shape = tuple(d if isinstance(d, int) else 1 for d in port.dims)
    if array.ndim == len(port.dims) and all(
        isinstance(d, str) or d == s for d, s in zip(port.dims, array.shape, strict=True)
    ):
        return array.astype(port.dtype)
    if array.size != 1:
        raise ExportError(f"constants: '{port.name}' has shape {list(array.shape)}, the graph takes {port.text}")
    return np.full(shape, array.reshape(()), port.dtype)


def with_constants(
    model: onnx.ModelProto, constants: Mapping[str, np.ndarray], ports: Mapping[str, Port], frames: Sequence[Place]
) -> onnx.ModelProto:
    """The graph with those inputs as initializers; one with an axis of free size in front has a row for each stream."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [v for v in model.graph.input if v.name not in constants]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    for name, value in constants.items():
        dims = ports[name].dims
        if dims and isinstance(dims[0], str) and value.shape[0] == 1 and frames[0].batch is not None:
            _repeat_rows(result, name, value, frames[0])
        else:
            result.graph.initializer.append(numpy_helper.from_array(value, name))
    return result


def _repeat_rows(model: onnx.ModelProto, name: str, value: np.ndarray, frame: Place) -> None:
    weights = {
        f"{name}.row": value,
        f"{name}.axis": np.array([frame.batch], np.int64),
        f"{name}.rest": np.array(value.shape[1:], np.int64),
    }
    nodes = [
        helper.make_node("Shape", [frame.name], [f"{name}.all"]),
        helper.make_node("Gather", [f"{name}.all", f"{name}.axis"], [f"{name}.batch"], axis=0),
        helper.make_node("Concat", [f"{name}.batch", f"{name}.rest"], [f"{name}.shape"], axis=0),
        helper.make_node("Expand", [f"{name}.row", f"{name}.shape"], [name]),
    ]
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights.items())
