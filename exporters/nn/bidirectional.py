"""Bidirectional layers whose reverse direction begins a bounded number of frames ahead.

Zhang et al. 2016, "Highway long short-term memory RNNs for distant speech recognition", arXiv:1510.08983, section 4, here with a window
for each frame in place of one for each chunk: an output depends on its own frame's surroundings alone, not on where chunks begin.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import sequences, whole

Weights = list[Tensor]  # w_ih, w_hh, and b_ih, b_hh where there are biases
_LAYERS = (nn.LSTM, nn.GRU, nn.RNN)


class LatencyControlled(nn.Module):
    """A bidirectional nn.LSTM, nn.GRU or nn.RNN that looks `lookahead` frames ahead: (B, T, features) -> (B, T, 2 * hidden).

    The forward direction is the layer's own. The reverse direction's output at frame t is that of the reverse layer run from frame
    min(t + lookahead, T - 1) down to t, from a zero state; with lookahead >= T - 1 it is the bidirectional layer itself. Layers of a
    stack feed each other, so their lookaheads add up. The weights, and dropout between layers, are the wrapped layer's.

    Delay: num_layers * lookahead frames. State: for each layer the forward state, and lookahead frames of its input.
    While training it holds lookahead + 1 copies of the input and runs that many steps for each frame.
    """

    def __init__(self, layer: nn.RNNBase, lookahead: int):
        super().__init__()
        whole("LatencyControlled", lookahead=lookahead)
        if type(layer) not in _LAYERS:
            raise ValueError(
                f"LatencyControlled: layer is a {type(layer).__name__}, expected an nn.LSTM, nn.GRU or nn.RNN"
            )
        wrong = {
            "bidirectional=False": not layer.bidirectional,
            "batch_first=False": not layer.batch_first,
            f"proj_size={layer.proj_size}": bool(layer.proj_size),
        }
        for name in (name for name, is_so in wrong.items() if is_so):
            raise ValueError(
                f"LatencyControlled: layer has {name}, expected bidirectional=True, batch_first=True, proj_size=0"
            )
        self.layer, self.lookahead = layer, lookahead

    def forward(self, x: Tensor) -> Tensor:
        return latency_controlled(self.layer, x, self.lookahead)

    def extra_repr(self) -> str:
        return f"lookahead={self.lookahead}"


def latency_controlled(layer: nn.RNNBase, x: Tensor, lookahead: int) -> Tensor:
    """What `LatencyControlled(layer, lookahead)` gives of x (B, T, features)."""
    sequences("latency_controlled", x, layer.input_size)
    kind = layer.mode.lower()
    if torch.compiler.is_exporting():
        return by_operators(layer, x, lookahead, kind.split("_")[0])
    for k in range(layer.num_layers):
        if k and layer.dropout:
            x = F.dropout(x, layer.dropout, layer.training)
        x = _one_layer(kind, x, *_weights(layer, k), lookahead)
    return x


def by_operators(layer: nn.RNNBase, x: Tensor, lookahead: int, name: str) -> Tensor:
    """The same in evaluation mode, each layer one operator that is called `<name>.l<k>`."""
    for k in range(layer.num_layers):
        forward, reverse = _weights(layer, k)
        x = torch.ops.undertow.latency_controlled(x, forward, reverse, layer.mode.lower(), lookahead, f"{name}.l{k}")
    return x


def _weights(layer: nn.RNNBase, k: int) -> tuple[Weights, Weights]:
    """Those of layer `k`, forward and reverse."""
    names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
    forward, reverse = ([getattr(layer, f"{name}_l{k}{suffix}") for name in names] for suffix in ("", "_reverse"))
    return forward, reverse


@torch.library.custom_op("undertow::latency_controlled", mutates_args=())
def _operator(x: Tensor, forward: Weights, reverse: Weights, kind: str, lookahead: int, name: str) -> Tensor:
    return _one_layer(kind, x, forward, reverse, lookahead)


@_operator.register_fake
def _(x, forward, reverse, kind, lookahead, name):
    return x.new_empty(x.shape[0], x.shape[1], 2 * forward[1].shape[1])


def _one_layer(kind: str, x: Tensor, forward: Weights, reverse: Weights, lookahead: int) -> Tensor:
    """Both directions of one layer, (B, T, 2 H). kind: lstm, gru, rnn_tanh or rnn_relu."""
    length = x.shape[1]
    if length == 0:
        return x.new_zeros(x.shape[0], 0, 2 * forward[1].shape[1])
    t = torch.arange(length, device=x.device)
    last = (t + lookahead).clamp(max=length - 1)
    order = (last[:, None] - torch.arange(min(lookahead, length - 1) + 1, device=x.device)).clamp(min=0)
    windows = x[:, order]  # (B, T, steps, F): for each frame those from the last of its window backwards
    states = _run(kind, windows.flatten(0, 1), reverse).unflatten(0, windows.shape[:2])
    return torch.cat([_run(kind, x, forward), states[:, t, last - t]], -1)


def _run(kind: str, x: Tensor, weights: Weights) -> Tensor:
    """One direction of one layer over x (B, T, F), from zero."""
    zeros = x.new_zeros(1, x.shape[0], weights[1].shape[1])
    start = (zeros, zeros) if kind == "lstm" else zeros
    return getattr(torch, kind)(x, start, weights, len(weights) == 4, 1, 0.0, False, False, True)[0]
