"""Normalisation by what the stream has shown so far."""

import torch
from torch import Tensor, nn

from .arguments import sequences, whole
from .scan import linear_scan


class RunningNorm(nn.Module):
    """Each feature less its running mean, over its running deviation: (B, T, features) -> (B, T, features).

    With weight n[t] = decay * n[t - 1] + 1, g = 1 / n[t] and k = decay * n[t - 1] / n[t] = 1 - g, from n = mean = var = 0:
    mean[t] = mean[t - 1] + g (x[t] - mean[t - 1]), var[t] = k (var[t - 1] + g (x[t] - mean[t - 1])^2),
    y[t] = (x[t] - mean[t]) / sqrt(var[t] + eps) (* weight + bias).
    decay=1 counts all frames alike (Welford 1962; a stream's n stops at 2^24, where float32 counts no further); below 1 it forgets with a time constant of 1 / (1 - decay) frames (West 1979, weights decay^(t - i)), unbiased from the first
    frame on. The frame itself is in its mean, so the first output is 0 (or bias).
    Delay: none. State: 2 * features + 1 numbers.
    """

    def __init__(self, features: int, *, decay: float = 1.0, eps: float = 1e-5, affine: bool = False):
        super().__init__()
        whole("RunningNorm", features=features)
        if not 0 < decay <= 1:
            raise ValueError(
                f"RunningNorm: decay is {decay}, expected more than 0 and at most 1, which forgets nothing"
            )
        if not eps > 0:
            raise ValueError(f"RunningNorm: eps is {eps}, expected a positive number")
        self.features, self.decay, self.eps = features, float(decay), eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        sequences("RunningNorm", x, self.features)
        exporting = torch.compiler.is_exporting()
        mean, var = torch.ops.undertow.running_moments(x, self.decay) if exporting else moments(x, self.decay)
        y = (x - mean) / torch.sqrt(var + self.eps)
        return y if self.weight is None or self.bias is None else y * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.features}, decay={self.decay}, eps={self.eps}"


def moments(x: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Running mean and variance (B, T, F) of each feature; see `RunningNorm`."""
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    before = torch.arange(x.shape[1], device=x.device, dtype=exact)
    kept = before if decay == 1 else decay * (1 - decay**before) / (1 - decay)
    share, rest = ((v / (kept + 1)).to(x.dtype)[None, :, None] for v in (torch.ones_like(kept), kept))
    mean = linear_scan(rest, share * x)
    old = torch.cat([torch.zeros_like(mean[:, :1]), mean[:, :-1]], 1)
    return mean, linear_scan(rest, rest * share * (x - old).square())


@torch.library.custom_op("undertow::running_moments", mutates_args=())
def _moments(x: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    return moments(x, decay)


@_moments.register_fake
def _(x, decay):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
