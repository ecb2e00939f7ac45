"""A selective state space model, the block of Mamba."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import sequences, whole
from .convolution import CausalConv1d
from .scan import linear_scan


class SelectiveSSM(nn.Module):
    """Mamba's block: (B, T, features) -> (B, T, features), from a zero state.

    u, z = Win x; u = silu(causal depthwise convolution of u); dt = softplus(Wdt Wr u + bdt), B = Wb u, C = Wc u;
    h[t] = exp(dt[t] A) * h[t - 1] + dt[t] B[t] u[t], y[t] = C[t] h[t] + D u[t]; output Wout (y * silu(z)); A = -exp(log_a)
    (Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", arXiv:2312.00752, algorithm 2, figure 3).
    Delay: none. State: expand * features * (state_size + kernel_size - 1) numbers. While training it keeps h of every frame,
    B * T * expand * features * state_size numbers.
    """

    def __init__(
        self,
        features: int,
        *,
        state_size: int = 16,
        expand: int = 2,
        kernel_size: int = 4,
        rank: int | None = None,
        dt_range: tuple[float, float] = (1e-3, 1e-1),
    ):
        super().__init__()
        rank = math.ceil(features / 16) if rank is None else rank
        whole(
            "SelectiveSSM", features=features, state_size=state_size, expand=expand, kernel_size=kernel_size, rank=rank
        )
        low, high = dt_range
        if not 0 < low < high:
            raise ValueError(f"SelectiveSSM: dt_range is {dt_range}, expected two numbers, 0 < first < second")
        inner = expand * features
        self.features, self.sizes = features, [rank, state_size, state_size]
        self.enter = nn.Linear(features, 2 * inner, bias=False)
        self.convolution = CausalConv1d(inner, inner, kernel_size, groups=inner)
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt = nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, state_size + 1)).repeat(inner, 1))
        self.d = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, features, bias=False)
        with torch.no_grad():  # softplus(bias) is spread over dt_range, evenly in its logarithm
            dt = torch.exp(torch.rand(inner) * math.log(high / low) + math.log(low))
            self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        sequences("SelectiveSSM", x, self.features)
        u, z = self.enter(x).chunk(2, -1)
        u = F.silu(self.convolution(u))
        low, b, c = self.select(u).split(self.sizes, -1)
        dt = F.softplus(self.dt(low)).unsqueeze(-1)
        h = linear_scan(torch.exp(dt * -torch.exp(self.log_a)), dt * b.unsqueeze(-2) * u.unsqueeze(-1))
        y = (h * c.unsqueeze(-2)).sum(-1) + self.d * u
        return self.leave(y * F.silu(z))
