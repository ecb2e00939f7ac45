"""Named linear recurrences and running statistics, small, as people write them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MinGRU(nn.Module):
    """Feng et al. 2024: gates from the frame alone, in a plain loop."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new, self.head = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        z, new = torch.sigmoid(self.gate(x)), self.new(x)
        h, outputs = x.new_zeros(x.shape[0], 16), []
        for t in range(x.shape[1]):
            h = (1 - z[:, t]) * h + z[:, t] * new[:, t]
            outputs.append(h)
        return self.head(torch.stack(outputs, 1))


class LRU(nn.Module):
    """The linear recurrent unit (Orvieto et al. 2023), complex numbers as pairs."""

    def __init__(self) -> None:
        super().__init__()
        magnitude, phase = torch.rand(12) * 0.4 + 0.55, torch.rand(12) * math.pi
        self.real, self.imaginary = nn.Parameter(magnitude * phase.cos()), nn.Parameter(magnitude * phase.sin())
        self.inp, self.out, self.skip = nn.Linear(8, 24), nn.Linear(24, 8), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.inp(x).chunk(2, -1)
        re = im = x.new_zeros(x.shape[0], 12)
        outputs = []
        for t in range(x.shape[1]):
            re, im = self.real * re - self.imaginary * im + a[:, t], self.real * im + self.imaginary * re + b[:, t]
            outputs.append(torch.cat([re, im], -1))
        return self.out(torch.stack(outputs, 1)) + self.skip * x


class RWKV(nn.Module):
    """RWKV-4's time mixing (Peng et al. 2023): token shift, and a running average with a bonus for the present."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(3, 12))
        self.key, self.value, self.receptance, self.out = (nn.Linear(12, 12, bias=False) for _ in range(4))
        self.decay, self.bonus = nn.Parameter(torch.rand(12)), nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        k, v, r = (x * m + before * (1 - m) for m in self.mix)
        k, v, r = self.key(k), self.value(v), torch.sigmoid(self.receptance(r))
        a = b = x.new_zeros(x.shape[0], 12)
        top = x.new_full((x.shape[0], 12), -30.0)
        outputs = []
        for t in range(x.shape[1]):
            now = torch.maximum(top, self.bonus + k[:, t])
            past, present = torch.exp(top - now), torch.exp(self.bonus + k[:, t] - now)
            outputs.append((past * a + present * v[:, t]) / (past * b + present))
            now = torch.maximum(top - self.decay.exp(), k[:, t])
            past, present = torch.exp(top - self.decay.exp() - now), torch.exp(k[:, t] - now)
            a, b, top = past * a + present * v[:, t], past * b + present, now
        return self.out(r * torch.stack(outputs, 1))


class Mamba(nn.Module):
    """A Mamba block (Gu and Dao 2023): causal depthwise convolution, selective scan, gate."""

    def __init__(self, width: int = 12, states: int = 4):
        super().__init__()
        self.states = states
        self.inp, self.conv = nn.Linear(8, 2 * width), nn.Conv1d(width, width, 4, groups=width, padding=3)
        self.select, self.delta = nn.Linear(width, 2 * states + 2), nn.Linear(2, width)
        self.log_a, self.skip = nn.Parameter(torch.rand(width, states)), nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.inp(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        b, c, rank = self.select(u).split([self.states, self.states, 2], -1)
        delta = F.softplus(self.delta(rank))
        decay = torch.exp(delta.unsqueeze(-1) * -self.log_a.exp())
        drive = (delta * u).unsqueeze(-1) * b.unsqueeze(2)
        h, outputs = x.new_zeros(x.shape[0], u.shape[2], self.states), []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + drive[:, t]
            outputs.append((h * c[:, t].unsqueeze(1)).sum(-1))
        return self.out((torch.stack(outputs, 1) + self.skip * u) * F.silu(gate))


class RetNet(nn.Module):
    """Retention (Sun et al. 2023) in its recurrent form: a decaying sum of outer products."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 6, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        state, outputs = x.new_zeros(x.shape[0], 6, 6), []
        for t in range(x.shape[1]):
            state = 0.9 * state + k[:, t].unsqueeze(2) * v[:, t].unsqueeze(1)
            outputs.append((q[:, t].unsqueeze(1) @ state).squeeze(1))
        return self.norm(torch.stack(outputs, 1))


class LinearAttention(nn.Module):
    """Katharopoulos et al. 2020: causal, by running sums over the whole sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        outer = torch.cumsum(k.unsqueeze(-1) * v.unsqueeze(-2), 1)
        return (q.unsqueeze(-1) * outer).sum(-2) / (q * torch.cumsum(k, 1)).sum(-1, keepdim=True)


class DeltaNet(nn.Module):
    """The delta rule (Yang et al. 2024): each key's old value is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.beta = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, v, beta = self.q(x), self.v(x), torch.sigmoid(self.beta(x))
        k = F.normalize(self.k(x), dim=-1)
        state, outputs = x.new_zeros(x.shape[0], 6, 6), []
        for t in range(x.shape[1]):
            old = torch.einsum("bk,bkv->bv", k[:, t], state)
            state = state + torch.einsum("bk,bv->bkv", k[:, t], beta[:, t] * (v[:, t] - old))
            outputs.append(torch.einsum("bk,bkv->bv", q[:, t], state))
        return torch.stack(outputs, 1)


class QRNN(nn.Module):
    """The quasi-recurrent network (Bradbury et al. 2017): a causal convolution, then fo-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        z, f, o = self.conv(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2).chunk(3, -1)
        z, f, o = torch.tanh(z), torch.sigmoid(f), torch.sigmoid(o)
        c, outputs = x.new_zeros(x.shape[0], 12), []
        for t in range(x.shape[1]):
            c = f[:, t] * c + (1 - f[:, t]) * z[:, t]
            outputs.append(o[:, t] * c)
        return torch.stack(outputs, 1)


class RunningMean(nn.Module):
    """Cumulative mean subtraction of features, by a running sum and a count."""

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        return x - torch.cumsum(x, 1) / count[None, :, None]


class CumulativeLayerNorm(nn.Module):
    """Conv-TasNet's cLN (Luo and Mesgarani 2019): mean and variance of all features up to now."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.rand(8, 1)), nn.Parameter(torch.rand(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        count = torch.arange(1, x.shape[2] + 1, device=x.device, dtype=x.dtype) * x.shape[1]
        mean = torch.cumsum(x.sum(1), 1) / count
        variance = torch.cumsum(x.square().sum(1), 1) / count - mean.square()
        x = (x - mean.unsqueeze(1)) / torch.sqrt(variance.unsqueeze(1) + 1e-5)
        return (x * self.gain + self.bias).transpose(1, 2)


class PCEN(nn.Module):
    """Per-channel energy normalisation (Wang et al. 2017): an exponential average, from the first frame's value."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.abs()
        smooth, outputs = x[:, 0], []
        for t in range(x.shape[1]):
            smooth = 0.95 * smooth + 0.05 * x[:, t]
            outputs.append((x[:, t] / (0.01 + smooth) ** 0.9 + 2.0) ** 0.5 - 2.0**0.5)
        return torch.stack(outputs, 1)


class Biquad(nn.Module):
    """A second-order IIR filter on samples."""

    def forward(self, x: Tensor) -> Tensor:
        w1 = w2 = torch.zeros_like(x[:, 0])
        outputs = []
        for t in range(x.shape[1]):
            w0 = x[:, t] + 1.6 * w1 - 0.8 * w2
            outputs.append(0.05 * w0 + 0.1 * w1 + 0.05 * w2)
            w1, w2 = w0, w1
        return torch.stack(outputs, 1)
