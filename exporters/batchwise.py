"""Recurrent nodes with layout=1 (batch first), which ONNX Runtime does not run, as nodes with time first."""

import onnx
from onnx import helper

_X, _STATES = 0, (5, 6)


def time_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which every LSTM, GRU and RNN has layout=0, with the same results."""
    if not any(_is_batch_first(node) for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    for node in model.graph.node:
        made.graph.node.extend(_turned(node) if _is_batch_first(node) else [node])
    return made


def _is_batch_first(node: onnx.NodeProto) -> bool:
    recurrent = node.op_type in ("LSTM", "GRU", "RNN") and node.domain in ("", "ai.onnx")
    return recurrent and any(a.name == "layout" and a.i for a in node.attribute)


def _turned(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """X (B, T, F) and states (B, D, H) in, Y (B, T, D, H) and states out, around Y (T, D, B, H)."""
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    del inner.attribute[:]
    inner.attribute.extend(a for a in node.attribute if a.name != "layout")
    label = next(o for o in node.output if o)
    before, after = [], []
    for i, name in enumerate(node.input):
        if name and i in (_X, *_STATES):
            inner.input[i] = f"{label}.in{i}"
            before.append(_transpose(name, inner.input[i], (1, 0, 2)))
    for i, name in enumerate(node.output):
        if name:
            inner.output[i] = f"{name}.time_first"
            after.append(_transpose(inner.output[i], name, (1, 0, 2) if i else (2, 0, 1, 3)))
    return [*before, inner, *after]


def _transpose(name: str, out: str, order: tuple[int, ...]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [name], [out], out, perm=order)
