"""Named networks with attention, small, as people write them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def band(length: int, left: int, right: int, device: torch.device) -> Tensor:
    """bool (T, T): which frames each frame sees."""
    at = torch.arange(length, device=device)
    ahead = at[None, :] - at[:, None]
    return (ahead >= -left) & (ahead <= right)


class SlidingWindow(nn.Module):
    """Self-attention over the last frames (Longformer's local attention), by scaled_dot_product_attention."""

    def __init__(self, left: int, right: int = 0, width: int = 16, heads: int = 4):
        super().__init__()
        self.left, self.right, self.heads = left, right, heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def positioned(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        q, k = self.positioned(q, k)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=band(t, self.left, self.right, x.device))
        return self.out(seen.transpose(1, 2).reshape(b, t, width))


class Rotary(SlidingWindow):
    """Mistral's attention in small: a sliding window with rotary positions (Su et al. 2021)."""

    def positioned(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        half = q.shape[-1] // 2
        speed = 10_000.0 ** (-torch.arange(half, device=q.device) / half)
        angle = torch.arange(q.shape[2], device=q.device)[:, None] * speed
        cos, sin = angle.cos(), angle.sin()

        def turned(x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        return turned(q), turned(k)


class ALiBi(nn.Module):
    """Attention with linear biases (Press et al. 2022), over the last frames."""

    def __init__(self, left: int = 10, width: int = 16, heads: int = 4):
        super().__init__()
        self.left, self.heads = left, heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("slope", 2.0 ** -torch.arange(1, heads + 1)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        at = torch.arange(t, device=x.device)
        behind = (at[:, None] - at[None, :]).float()
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads) - self.slope * behind
        scores = scores.masked_fill(~band(t, self.left, 0, x.device), -math.inf)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, width))


class Multihead(nn.Module):
    """nn.MultiheadAttention with a mask: of the last frames, or of all frames so far (left=None)."""

    def __init__(self, left: int | None = None, right: int = 0, width: int = 16):
        super().__init__()
        self.left, self.right, self.attention = left, right, nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        left = x.shape[1] if self.left is None else self.left
        hidden = ~band(x.shape[1], left, self.right, x.device)
        return self.attention(x, x, x, attn_mask=hidden, need_weights=False)[0]


class Block(nn.Module):
    """A transformer block, norm first."""

    def __init__(self, attention: nn.Module, width: int = 16):
        super().__init__()
        self.attention, self.first, self.second = attention, nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.feed(self.second(x))


class Conformer(nn.Module):
    """A conformer block (Gulati et al. 2020): half feed-forward, windowed attention, convolution module, half feed-forward."""

    def __init__(self, width: int = 16, kernel: int = 7, causal: bool = True):
        super().__init__()
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, width)) for _ in range(2)
        )
        self.norm, self.attention = nn.LayerNorm(width), SlidingWindow(8, 0 if causal else 2)
        self.pads = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.conv_norm, self.wide = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depthwise, self.batch_norm = nn.Conv1d(width, width, kernel, groups=width), nn.BatchNorm1d(width)
        self.narrow, self.last = nn.Conv1d(width, width, 1), nn.LayerNorm(width)

    def convolved(self, x: Tensor) -> Tensor:
        y = F.glu(self.wide(self.conv_norm(x).transpose(1, 2)), 1)
        y = self.narrow(F.silu(self.batch_norm(self.depthwise(F.pad(y, self.pads)))))
        return y.transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.feeds[0](x)
        x = x + self.attention(self.norm(x))
        x = x + self.convolved(x)
        return self.last(x + 0.5 * self.feeds[1](x))


class SpeechEncoder(nn.Module):
    """Whisper's encoder in small: two convolutions, the second of stride 2, then blocks of windowed attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(8, 16, 3, padding=1), nn.GELU(), nn.Conv1d(16, 16, 3, stride=2, padding=1), nn.GELU()
        )
        self.blocks = nn.Sequential(Block(SlidingWindow(12)), Block(SlidingWindow(12)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x.transpose(1, 2)).transpose(1, 2))


class Pooled(nn.Module):
    """ECAPA-TDNN's squeeze and excitation (Desplanques et al. 2020): a gate from the mean over the whole recording."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv1d(8, 16, 3, padding=1), nn.Sequential(nn.Linear(16, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x.transpose(1, 2)))
        return (x * self.gate(x.mean(2)).unsqueeze(2)).transpose(1, 2)
