"""Weights stored small: a pass over a finished step graph.

int8: symmetric, a scale for each output channel, back to float32 by DequantizeLinear in the graph. float16: back by Cast.
Each backend computes the float32 weights once, when it loads the model, so both compute with the same numbers, and the
step is as fast as before. What shrinks is the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..engine.errors import ExportError
from ..engine.folding import dequantized as times_scale

Kind = Literal["int8", "float16"]
SMALLEST_BYTES = 1024  # of a weight that is worth it
_OPSET = 13  # DequantizeLinear with an axis


def quantized(model: onnx.ModelProto, kind: Kind) -> onnx.ModelProto:
    """The model with its float32 weights of rank 2 and more, and of 1 KB and more, stored as `kind`. Raises ExportError."""
    if kind not in get_args(Kind):
        raise ExportError(f"quantize is {kind!r}, expected 'int8', 'float16' or None")
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if kind == "int8" and opset < _OPSET:
        raise ExportError(
            f"the graph has operator set {opset}, int8 weights need {_OPSET}; convert it with onnx.version_converter"
        )
    weights = list(_weights(model.graph))
    if not weights:
        raise ExportError(
            f"quantize={kind!r}: no weight is a float32 matrix of {SMALLEST_BYTES} bytes or more; export the model without quantize"
        )
    made = onnx.ModelProto()
    made.CopyFrom(model)
    small = [_stored(weight, kind) for weight in weights]
    replaced = {w.name for w in weights}
    kept = [t for t in model.graph.initializer if t.name not in replaced]
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend([*kept, *(t for s in small for t in s.tensors)])
    made.graph.node.extend([*(s.node for s in small), *model.graph.node])
    return made


def dequantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the weights of `quantized` as plain float32 tensors: what its backends compute with."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    plain, used, rest = [], set[str](), []
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and set(node.input) <= set(arrays):
            plain.append(numpy_helper.from_array(_read(node, [arrays[name] for name in node.input]), node.output[0]))
            used.update(node.input)
        else:
            rest.append(node)
    needed = {name for node in rest for name in node.input}
    kept = [t for t in model.graph.initializer if t.name not in used or t.name in needed]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend([*kept, *plain])
    made.graph.node.extend(rest)
    return made


@dataclass(frozen=True, slots=True)
class _Weight:
    name: str
    values: np.ndarray
    axis: int  # of the output channels


@dataclass(frozen=True, slots=True)
class _Stored:
    tensors: list[onnx.TensorProto]
    node: onnx.NodeProto


def _weights(graph: onnx.GraphProto) -> Iterator[_Weight]:
    """The weights that are worth it, in the graph's order; not those that only the body of an If or a Loop reads."""
    channels: dict[str, int] = {}
    ranks = {t.name: len(t.dims) for t in graph.initializer}
    for node in graph.node:
        for place, name in enumerate(node.input):
            axis = _channels(node, place, ranks[name]) if name in ranks else None
            if axis is not None:
                channels.setdefault(name, axis)
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or tensor.name not in channels:
            continue
        values = numpy_helper.to_array(tensor)
        if values.nbytes >= SMALLEST_BYTES:
            yield _Weight(tensor.name, values, channels[tensor.name])


def _channels(node: onnx.NodeProto, place: int, rank: int) -> int | None:
    """Which axis of a weight of that rank has the output channels; None where a node's input is no weight."""
    numbers = {a.name: a.i for a in node.attribute}
    match node.op_type, place:
        case "MatMul", 1:
            return rank - 1
        case "MatMul", 0:
            return max(0, rank - 2)
        case "Gemm", 1:
            return 0 if numbers.get("transB") else 1
        case "Gemm", 0:
            return 1 if numbers.get("transA") else 0
        case "Conv" | "Gather", (0 | 1) as at if at == (node.op_type == "Conv"):
            return 0 if node.op_type == "Conv" else numbers.get("axis", 0) % rank
        case ("ConvTranspose", 1) | ("LSTM" | "GRU" | "RNN", 1 | 2):
            return 1
        case "Transpose", 0:  # before a product, whose channels are its last axis
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
            return order[-1]
        case _:
            return None


def _stored(weight: _Weight, kind: Kind) -> _Stored:
    if not np.isfinite(weight.values).all():
        raise ExportError(f"weight '{weight.name}' has a number that is not finite; it cannot be stored as {kind}")
    if kind == "float16":
        return _halved(weight)
    others = tuple(i for i in range(weight.values.ndim) if i != weight.axis)
    largest = np.abs(weight.values).max(axis=others)
    scale = (np.where(largest > 0, largest, 127.0) / np.float32(127)).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    along = np.expand_dims(scale, others)
    numbers = np.clip(np.rint(weight.values / along), -127, 127).astype(np.int8)
    names = [f"{weight.name}.int8", f"{weight.name}.scale"]
    node = helper.make_node("DequantizeLinear", names, [weight.name], f"{weight.name}.float", axis=weight.axis)
    return _Stored([numpy_helper.from_array(numbers, names[0]), numpy_helper.from_array(scale, names[1])], node)


def _halved(weight: _Weight) -> _Stored:
    largest, most = float(np.abs(weight.values).max()), float(np.finfo(np.float16).max)
    if largest > most:
        raise ExportError(f"weight '{weight.name}' reaches {largest:g}, float16 ends at {most:g}; use quantize='int8'")
    name = f"{weight.name}.float16"
    node = helper.make_node("Cast", [name], [weight.name], f"{weight.name}.float", to=TensorProto.FLOAT)
    return _Stored([numpy_helper.from_array(weight.values.astype(np.float16), name)], node)


def _read(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    if node.op_type == "Cast":
        to = next(a.i for a in node.attribute if a.name == "to")
        return inputs[0].astype(helper.tensor_dtype_to_np_dtype(to))
    return times_scale(node, inputs)
