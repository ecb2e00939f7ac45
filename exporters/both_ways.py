"""Bidirectional torch layers as single operators, one ONNX node a layer: for graphs that see whole sequences, or some frames ahead."""

from typing import Any

import onnxscript
import torch
from torch import Tensor, nn

from .recurrent_rule import LAYER_KEY

op: Any = onnxscript.opset18

# torch stacks the gates of LSTM as i, f, g, o and of GRU as r, z, n; ONNX as i, o, f, c and as z, r, h.
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


@torch.library.custom_op("undertow::bidirectional", mutates_args=())
def bidirectional(
    x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: list[Tensor], kind: str, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(y (T, B, 2 H), final h (2, B, H), final c, h where there is none) of one layer over x (T, B, F); initial states (2, B, H).

    weights: w_ih, w_hh and where there are biases b_ih, b_hh of the forward direction, then those of the reverse one.
    """
    zeros = x.new_zeros(2, x.shape[1], weights[1].shape[1])
    h, rest = zeros if h0 is None else h0.contiguous(), (len(weights) == 8, 1, 0.0, False, True, False)
    if kind == "lstm":
        y, hn, cn = torch.lstm(x, (h, zeros if c0 is None else c0.contiguous()), weights, *rest)
        return y, hn, cn
    y, hn = getattr(torch, kind)(x, h, weights, *rest)
    return y, hn, hn.clone()


@bidirectional.register_fake
def _(x, h0, c0, weights, kind, name):
    size = weights[1].shape[1]
    final = x.new_empty(2, x.shape[1], size)
    return x.new_empty(x.shape[0], x.shape[1], 2 * size), final, torch.empty_like(final)


def as_node(x: Any, ways: Any, h0: Any, c0: Any, kind: str, name: str) -> tuple[Any, Any, Any]:
    """(y (T, 2, B, H), final h, final c or None) of one ONNX node over x (T, B, F): gates in ONNX's order, directions stacked.

    ways: for each direction w_ih, w_hh, and b_ih, b_hh where there are biases.
    """
    size = int(ways[0][1].shape[1])
    rows = op.Constant(value_ints=[gate * size + i for gate in GATES[kind] for i in range(size)])
    lead = op.Constant(value_ints=[0])
    ways = [[op.Gather(weight, rows, axis=0) for weight in way] for way in ways]
    w, r = (op.Concat(*(op.Unsqueeze(way[i], lead) for way in ways), axis=0) for i in (0, 1))
    biases = [op.Unsqueeze(op.Concat(way[2], way[3], axis=0), lead) for way in ways if len(way) == 4]
    b = op.Concat(*biases, axis=0) if biases else None
    options: dict[str, Any] = {"hidden_size": size, "direction": "bidirectional"}
    if kind == "lstm":
        y, hn, cn = op.LSTM(x, w, r, b, None, h0, c0, **options)
    elif kind == "gru":
        (y, hn), cn = op.GRU(x, w, r, b, None, h0, **options, linear_before_reset=1), None
    else:
        activations = ["Relu" if kind == "rnn_relu" else "Tanh"] * 2
        (y, hn), cn = op.RNN(x, w, r, b, None, h0, **options, activations=activations), None
    node = y.producer()
    node.name = name
    node.metadata_props[LAYER_KEY] = name
    return y, hn, cn


def _to_onnx(x, h0, c0, weights, kind="", name=""):
    """The operator above as one ONNX node."""
    size, half = int(weights[1].shape[1]), len(weights) // 2
    y, hn, cn = as_node(x, (weights[:half], weights[half:]), h0, c0, kind, name)
    frames = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, 2 * size]))
    return frames, hn, hn if cn is None else cn


BOTH_WAYS = {torch.ops.undertow.bidirectional.default: _to_onnx}


def both_ways(module: nn.RNNBase, x: Tensor, hx: Any, name: str) -> Any:
    """What the bidirectional layer gives, by one operator for each layer of its stack."""
    kind = module.mode.lower()
    y = x.transpose(0, 1) if module.batch_first else x
    hs, cs = hx if kind == "lstm" and hx is not None else (hx, None)
    finals: list[tuple[Tensor, Tensor]] = []
    for k in range(module.num_layers):
        h0, c0 = (None if s is None else s[2 * k : 2 * k + 2] for s in (hs, cs))
        y, h, c = torch.ops.undertow.bidirectional(y, h0, c0, _weights(module, k), kind, f"{name}.l{k}")
        finals.append((h, c))
    y = y.transpose(0, 1) if module.batch_first else y
    h_n = torch.cat([h for h, _ in finals])
    return (y, (h_n, torch.cat([c for _, c in finals]))) if kind == "lstm" else (y, h_n)


def _weights(module: nn.RNNBase, k: int) -> list[Tensor]:
    names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
    return [getattr(module, f"{name}_l{k}{suffix}") for suffix in ("", "_reverse") for name in names]
