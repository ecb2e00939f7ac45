"""Recurrent layers that are linear in their state, and so train without a loop over time."""

import math

import torch
from torch import Tensor, nn

from .arguments import sequences, whole
from .scan import complex_scan, linear_scan


class MinGRU(nn.Module):
    """The minimal gated recurrent unit: (B, T, features) -> (B, T, hidden), from a zero state.

    z[t] = sigmoid(Wz x[t] + bz), c[t] = Wc x[t] + bc, h[t] = (1 - z[t]) * h[t - 1] + z[t] * c[t]
    (Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201, section 3.1.2). Delay: none. State: `hidden` numbers.
    """

    def __init__(self, features: int, hidden: int, *, bias: bool = True):
        super().__init__()
        whole("MinGRU", features=features, hidden=hidden)
        self.features = features
        self.gate = nn.Linear(features, hidden, bias=bias)
        self.candidate = nn.Linear(features, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        sequences("MinGRU", x, self.features)
        z = torch.sigmoid(self.gate(x))
        return linear_scan(1 - z, z * self.candidate(x))


class LRU(nn.Module):
    """The linear recurrent unit: (B, T, features) -> (B, T, features), from a zero state of `hidden` complex numbers.

    h[t] = lambda * h[t - 1] + gamma * (B x[t]), y[t] = Re(C h[t]) + D * x[t], lambda = exp(-exp(nu) + i exp(theta))
    (Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences", arXiv:2303.06349, section 3).
    At first |lambda| is spread over radius[0] .. radius[1], its angle over 0 .. max_phase, and gamma = sqrt(1 - |lambda|^2).
    Delay: none. State: 2 * `hidden` numbers.
    """

    def __init__(
        self, features: int, hidden: int, *, radius: tuple[float, float] = (0.9, 0.999), max_phase: float = 2 * math.pi
    ):
        super().__init__()
        whole("LRU", features=features, hidden=hidden)
        low, high = radius
        if not 0 <= low < high < 1:
            raise ValueError(
                f"LRU: radius is {radius}, expected two numbers, 0 <= first < second < 1, for the state to fade"
            )
        if not max_phase > 0:
            raise ValueError(f"LRU: max_phase is {max_phase}, expected a positive angle in radians")
        self.features = features
        size = torch.sqrt(torch.rand(hidden) * (high**2 - low**2) + low**2).clamp(1e-6, 1 - 1e-6)
        self.nu = nn.Parameter(torch.log(-torch.log(size)))
        self.theta = nn.Parameter(torch.log(max_phase * torch.rand(hidden).clamp(min=1e-6)))
        self.gamma = nn.Parameter(0.5 * torch.log(1 - size**2))  # its logarithm
        self.b_re, self.b_im = (nn.Parameter(torch.randn(hidden, features) / math.sqrt(2 * features)) for _ in range(2))
        self.c_re, self.c_im = (nn.Parameter(torch.randn(features, hidden) / math.sqrt(hidden)) for _ in range(2))
        self.d = nn.Parameter(torch.randn(features))

    def forward(self, x: Tensor) -> Tensor:
        sequences("LRU", x, self.features)
        gamma = torch.exp(self.gamma)[:, None]
        driven = (x @ (gamma * self.b_re).T, x @ (gamma * self.b_im).T)
        re, im = complex_scan(self._decay(), driven)
        return re @ self.c_re.T - im @ self.c_im.T + self.d * x

    def _decay(self) -> tuple[Tensor, Tensor]:
        """lambda, computed in float64: what rounding changes of it is multiplied by the length of the memory, 1 / (1 - |lambda|)."""
        exact = torch.float32 if self.nu.device.type == "mps" else torch.float64
        size, angle = torch.exp(-torch.exp(self.nu.to(exact))), torch.exp(self.theta.to(exact))
        return (size * torch.cos(angle)).to(self.nu.dtype), (size * torch.sin(angle)).to(self.nu.dtype)
