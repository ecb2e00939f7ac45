"""Recurrent torch layers as single operators: torch's own exporter unrolls them over time and pins the length.

While `single_operators(module)` is open, every nn.RNN, nn.LSTM and nn.GRU in `module` computes through one custom
operator a layer, and `TRANSLATIONS` turns that operator into one ONNX RNN, LSTM or GRU node. The node's name, and its
metadata entry `LAYER_KEY`, say which layer it is: `encoder.l0`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnxscript
import torch
from torch import Tensor, nn

from ..engine.errors import ExportError
from .both_ways import BOTH_WAYS, GATES, both_ways
from .nn import LatencyControlled, OverTime
from .nn.bidirectional import by_operators
from .projected import TRANSLATIONS as PROJECTED
from .projected import projected
from .recurrent_rule import LAYER_KEY

op: Any = onnxscript.opset18  # its annotations are of graphs that are traced, not of what a call gives here


@torch.library.custom_op("undertow::recurrent", mutates_args=())
def recurrent(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    kind: str,
    name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y (T, B, H), final h (B, H), final c (B, H); c is h where there is none) of one forward layer over x (T, B, F)."""
    zeros = x.new_zeros(1, x.shape[1], w_hh.shape[1])
    h = zeros if h0 is None else h0[None].contiguous()
    weights = [w_ih, w_hh] if b_ih is None or b_hh is None else [w_ih, w_hh, b_ih, b_hh]
    rest = (len(weights) == 4, 1, 0.0, False, False, False)
    if kind == "lstm":
        c = zeros if c0 is None else c0[None].contiguous()
        y, hn, cn = torch.lstm(x, (h, c), weights, *rest)
        return y, hn[0].clone(), cn[0].clone()
    y, hn = getattr(torch, kind)(x, h, weights, *rest)
    return y, hn[0].clone(), hn[0].clone()


@recurrent.register_fake
def _(x, h0, c0, w_ih, w_hh, b_ih, b_hh, kind, name):
    size = w_hh.shape[1]
    final = x.new_empty(x.shape[1], size)
    return x.new_empty(x.shape[0], x.shape[1], size), final, torch.empty_like(final)


def _to_onnx(x, h0, c0, w_ih, w_hh, b_ih, b_hh, kind="", name=""):
    """The operator above as one ONNX node, traced by torch's exporter."""
    size = int(w_hh.shape[1])
    rows = op.Constant(value_ints=[gate * size + i for gate in GATES[kind] for i in range(size)])
    lead, direction = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])

    def gates(weight: Any) -> Any:
        return op.Gather(weight, rows, axis=0)

    w, r = op.Unsqueeze(gates(w_ih), lead), op.Unsqueeze(gates(w_hh), lead)
    b = None if b_ih is None else op.Unsqueeze(op.Concat(gates(b_ih), gates(b_hh), axis=0), lead)
    h, cn = None if h0 is None else op.Unsqueeze(h0, lead), None
    if kind == "lstm":
        c = None if c0 is None else op.Unsqueeze(c0, lead)
        y, hn, cn = op.LSTM(x, w, r, b, None, h, c, hidden_size=size)
    elif kind == "gru":
        y, hn = op.GRU(x, w, r, b, None, h, hidden_size=size, linear_before_reset=1)
    else:
        y, hn = op.RNN(x, w, r, b, None, h, hidden_size=size, activations=["Relu" if kind == "rnn_relu" else "Tanh"])
    node = y.producer()
    node.name = name
    node.metadata_props[LAYER_KEY] = name
    final_h = op.Squeeze(hn, lead)
    return op.Squeeze(y, direction), final_h, final_h if cn is None else op.Squeeze(cn, lead)


TRANSLATIONS = {torch.ops.undertow.recurrent.default: _to_onnx} | BOTH_WAYS | PROJECTED


@contextmanager
def single_operators(root: nn.Module, ahead: bool = False) -> Iterator[None]:
    """While open, recurrent layers in `root` are single operators; afterwards the modules are as they were.

    ahead: the graph may see frames ahead, so bidirectional layers are taken too.
    """
    patched: list[tuple[nn.Module, Any]] = []
    try:
        for path, module in root.named_modules():
            forward = _forward_of(path, module, ahead)
            if forward is not None:
                patched.append((module, module.__dict__.get("forward")))
                module.forward = forward
        yield
    finally:
        for module, before in patched:
            del module.forward
            if before is not None:
                module.forward = before


def _forward_of(path: str, module: nn.Module, ahead: bool) -> Any:
    """What `module` computes instead of its own forward, or None where it is left alone."""
    if isinstance(module, LatencyControlled):
        return _latency_controlled(path or module.layer.mode.lower().split("_")[0], module)
    if isinstance(module, OverTime):
        return _over_time(path or "cell", module.cell)
    if not isinstance(module, nn.RNNBase):
        return None
    name, kind = _called(path, module), module.mode.lower()
    if type(module).forward not in (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward) or "forward" in module.__dict__:
        return _refusing(
            name, "its class overrides forward, so what it computes is not known; use nn.RNN, nn.LSTM or nn.GRU itself"
        )
    if module.bidirectional and not ahead:
        return _refusing(name, _BIDIRECTIONAL)
    if module.proj_size and module.bidirectional:
        return _refusing(name, f"it is bidirectional and has proj_size={module.proj_size}; use one of the two alone")
    if isinstance(module, nn.LSTM) and module.proj_size:
        return lambda x, hx=None: _projected(name, path or "lstm", module, x, hx)

    def forward(x: Any, hx: Any = None) -> Any:
        _check_input(name, module.weight_ih_l0, x)
        if module.bidirectional:
            return both_ways(module, x, hx, path or kind.split("_")[0])
        y = x.transpose(0, 1) if module.batch_first else x
        hs, cs = hx if kind == "lstm" and hx is not None else (hx, None)
        finals: list[tuple[Tensor, Tensor]] = []
        for k in range(module.num_layers):
            biases = (
                (getattr(module, f"bias_ih_l{k}"), getattr(module, f"bias_hh_l{k}")) if module.bias else (None, None)
            )
            weights = (getattr(module, f"weight_ih_l{k}"), getattr(module, f"weight_hh_l{k}"))
            h0, c0 = None if hs is None else hs[k], None if cs is None else cs[k]
            layer = f"{path or kind.split('_')[0]}.l{k}"
            y, h, c = torch.ops.undertow.recurrent(y, h0, c0, *weights, *biases, kind, layer)
            finals.append((h, c))
        y = y.transpose(0, 1) if module.batch_first else y
        h_n = torch.stack([h for h, _ in finals])
        return (y, (h_n, torch.stack([c for _, c in finals]))) if kind == "lstm" else (y, h_n)

    return forward


_BIDIRECTIONAL = (
    "it is bidirectional: the first frame's output needs the last frame; use a forward layer (bidirectional=False), "
    "lookahead=R (each output sees R frames more, and comes R frames late) or lookahead='all' (outputs come at a stream's end)"
)


def _projected(name: str, path: str, module: nn.LSTM, x: Any, hx: Any) -> Any:
    _check_input(name, module.weight_ih_l0, x)
    return projected(module, x, hx, path)


def _over_time(name: str, cell: nn.RNNCellBase) -> Any:
    """What OverTime(cell) computes, as one operator."""
    kind = {nn.LSTMCell: "lstm", nn.GRUCell: "gru"}.get(type(cell), f"rnn_{getattr(cell, 'nonlinearity', '')}")
    if kind.removeprefix("rnn_") not in ("lstm", "gru", "tanh", "relu"):
        return _refusing(
            _called(name, cell), "is not nn.RNNCell, nn.LSTMCell or nn.GRUCell itself, so what it computes is not known"
        )

    def forward(x: Tensor) -> Tensor:
        _check_input(_called(name, cell), cell.weight_ih, x)
        biases = (cell.bias_ih, cell.bias_hh)
        y, _, _ = torch.ops.undertow.recurrent(
            x.transpose(0, 1), None, None, cell.weight_ih, cell.weight_hh, *biases, kind, name
        )
        return y.transpose(0, 1)

    return forward


def _latency_controlled(name: str, module: LatencyControlled) -> Any:
    """What LatencyControlled(layer) computes, as one operator a layer."""

    def forward(x: Tensor) -> Tensor:
        _check_input(_called(name, module), module.layer.weight_ih_l0, x)
        return by_operators(module.layer, x, module.lookahead, name)

    return forward


def _called(path: str, module: nn.Module) -> str:
    return f"module '{path}' ({type(module).__name__})" if path else f"the module ({type(module).__name__})"


def _refusing(name: str, reason: str) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise ExportError(f"{name}: {reason}")

    return forward


def _check_input(name: str, weight: Any, x: Any) -> None:
    if isinstance(x, nn.utils.rnn.PackedSequence):
        raise ExportError(
            f"{name}: is given a PackedSequence; streams have no padding when they are stepped, so give it the plain tensor "
            "(skip pack_padded_sequence where the module is exported)"
        )
    if x.dim() != 3:
        raise ExportError(
            f"{name}: is given a tensor of shape {tuple(x.shape)}, expected 3 axes: batch, time and features"
        )
    if weight.dtype != torch.float32 or x.dtype != torch.float32:
        raise ExportError(
            f"{name}: computes {x.dtype} with {weight.dtype} weights, expected torch.float32; call module.float() and give a float32 example"
        )
