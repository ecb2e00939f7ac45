"""nn.LSTM with proj_size, for which ONNX has no operator: one operator a layer, and an ONNX Scan over its cell."""

from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .recurrent_rule import LAYER_KEY

op: Any = onnxscript.opset18

_CELL = """cell (float[] h, float[] c, float[] given, float[] w_hh, float[] w_hr) => (float[] h_next, float[] c_next, float[] y) {
    back = MatMul (h, w_hh)
    gates = Add (given, back)
    i, f, g, o = Split <axis = -1, num_outputs = 4> (gates)
    write = Sigmoid (i)
    keep = Sigmoid (f)
    show = Sigmoid (o)
    fresh = Tanh (g)
    kept = Mul (keep, c)
    written = Mul (write, fresh)
    c_next = Add (kept, written)
    squashed = Tanh (c_next)
    shown = Mul (show, squashed)
    h_next = MatMul (shown, w_hr)
    y = Identity (h_next)
}"""


@torch.library.custom_op("undertow::projected_lstm", mutates_args=())
def projected_lstm(
    gates: Tensor, h: Tensor, c: Tensor, w_hh: Tensor, w_hr: Tensor, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(y (T, B, P), final h (B, P), final c (B, H)) of one layer. gates (T, B, 4 H): what the frames and both biases give of i, f, g, o."""
    ys, h, c = [], h.clone(), c.clone()
    for given in gates:
        i, f, g, o = (given + h @ w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = (torch.sigmoid(o) * torch.tanh(c)) @ w_hr.T
        ys.append(h)
    return torch.stack(ys), h.clone(), c


@projected_lstm.register_fake
def _(gates, h, c, w_hh, w_hr, name):
    return gates.new_empty(gates.shape[0], gates.shape[1], w_hr.shape[0]), torch.empty_like(h), torch.empty_like(c)


def _to_onnx(gates, h, c, w_hh, w_hr, name=""):
    """The operator above as a Scan, traced by torch's exporter."""
    graph = ir.serde.deserialize_graph(onnx.parser.parse_graph(_CELL))
    for inner, weight in zip(graph.inputs[3:], (w_hh, w_hr), strict=True):
        ir.convenience.replace_all_uses_with(inner, op.Transpose(weight, perm=[1, 0]))
    del graph.inputs[3:]
    node = op.Scan(h, c, gates, body=graph, num_scan_inputs=1).producer()
    node.resize_outputs(3)
    node.name = node.metadata_props[LAYER_KEY] = name
    for value in node.outputs:
        value.dtype = ir.DataType.FLOAT
    return node.outputs[2], node.outputs[0], node.outputs[1]


TRANSLATIONS = {torch.ops.undertow.projected_lstm.default: _to_onnx}


def projected(module: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor] | None, path: str) -> Any:
    """What the module gives: (B, T, P) where it is batch first, (T, B, P) where not, and its last states."""
    y = x.transpose(0, 1) if module.batch_first else x
    finals = []
    for k in range(module.num_layers):
        w_ih, w_hh, w_hr = (getattr(module, f"{name}_l{k}") for name in ("weight_ih", "weight_hh", "weight_hr"))
        bias = getattr(module, f"bias_ih_l{k}") + getattr(module, f"bias_hh_l{k}") if module.bias else None
        h = y.new_zeros(y.shape[1], module.proj_size) if hx is None else hx[0][k]
        c = y.new_zeros(y.shape[1], module.hidden_size) if hx is None else hx[1][k]
        gates = F.linear(y, w_ih, bias)
        y, h, c = torch.ops.undertow.projected_lstm(gates, h, c, w_hh, w_hr, f"{path}.l{k}")
        finals.append((h, c))
    y = y.transpose(0, 1) if module.batch_first else y
    return y, tuple(torch.stack([pair[i] for pair in finals]) for i in range(2))
