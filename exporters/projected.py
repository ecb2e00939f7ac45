"""nn.LSTM with proj_size, which ONNX has no operator for, as torch.scan over its cell: exported as an ONNX Scan."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]


def projected(module: nn.LSTM, x: Tensor, hx: Pair | None) -> tuple[Tensor, Pair]:
    """What the module computes: (B, T, F) to (B, T, P) where it is batch first, (T, B, F) to (T, B, P) where not."""
    y = x.transpose(0, 1) if module.batch_first else x
    finals = []
    for k in range(module.num_layers):
        h = y.new_zeros(y.shape[1], module.proj_size) if hx is None else hx[0][k]
        c = y.new_zeros(y.shape[1], module.hidden_size) if hx is None else hx[1][k]
        (h, c), y = _layer(module, k, y, h, c)
        finals.append((h, c))
    h_n, c_n = (torch.stack([pair[i] for pair in finals]) for i in range(2))
    return y.transpose(0, 1) if module.batch_first else y, (h_n, c_n)


def _layer(module: nn.LSTM, k: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Pair, Tensor]:
    given: Any = [getattr(module, f"{name}_l{k}") for name in ("weight_ih", "weight_hh", "weight_hr")]
    w_ih, w_hh, w_hr = given
    b_ih, b_hh = (getattr(module, f"{name}_l{k}") if module.bias else None for name in ("bias_ih", "bias_hh"))

    def cell(state: Pair, gates: Tensor) -> tuple[Pair, Tensor]:
        h, c = state
        i, f, g, o = (gates + F.linear(h, w_hh, b_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = F.linear(torch.sigmoid(o) * torch.tanh(c), w_hr)
        return (h, c), h.clone()

    return scan(cell, (h.clone(), c.clone()), F.linear(x, w_ih, b_ih))
