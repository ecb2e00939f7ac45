"""Self-attention within a window of frames."""

import torch
from torch import Tensor, nn

from .arguments import sequences, whole


class WindowedAttention(nn.Module):
    """Multi-head attention of each frame to those from `left` before to `right` after it: (B, T, features) -> (B, T, features).

    out[t] = Wo concat_h sum_s softmax_s(q[t] . k[s] / sqrt(d) + r[h, s - t]) v[s], over t - left <= s <= t + right within the
    sequence (Vaswani et al. 2017, arXiv:1706.03762, section 3.2; the window: Beltagy et al. 2020, arXiv:2004.05150). r is 0, or with
    relative_bias=True a learned number for each head and distance (Raffel et al. 2020, arXiv:1910.10683, section 2.1).
    rotary=True turns pairs of q and k by angles that grow with the frame's place, so that q . k depends on the distance
    (Su et al. 2021, arXiv:2104.09864, section 3.2.2); angles are float32, so places count exactly up to 2^24 frames only.

    Delay: `right` frames. State: keys and values of left + right frames, 2 * (left + right) * features numbers.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        left: int,
        right: int = 0,
        relative_bias: bool = False,
        rotary: bool = False,
        rotary_base: float = 10_000.0,
        bias: bool = True,
    ):
        super().__init__()
        whole("WindowedAttention", features=features, heads=heads)
        whole("WindowedAttention", 0, left=left, right=right)
        if features % heads:
            raise ValueError(f"WindowedAttention: features is {features}, expected a multiple of heads, {heads}")
        if rotary and (features // heads) % 2:
            raise ValueError(
                f"WindowedAttention: a head has {features // heads} features, expected an even number for rotary=True"
            )
        if not rotary_base > 1:
            raise ValueError(f"WindowedAttention: rotary_base is {rotary_base}, expected more than 1")
        self.features, self.heads, self.left, self.right = features, heads, left, right
        self.rotary, self.rotary_base = rotary, rotary_base
        self.enter = nn.Linear(features, 3 * features, bias=bias)
        self.leave = nn.Linear(features, features, bias=bias)
        self.relative = nn.Parameter(torch.zeros(heads, left + right + 1)) if relative_bias else None

    def forward(self, x: Tensor) -> Tensor:
        sequences("WindowedAttention", x, self.features)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.enter(x).chunk(3, -1))
        if self.rotary:
            q, k = rotated(q, self.rotary_base), rotated(k, self.rotary_base)
        place = torch.arange(x.shape[1], device=x.device)
        distance = place[None, :] - place[:, None]
        outside = (distance < -self.left) | (distance > self.right)
        scores = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)
        if self.relative is not None:
            scores = scores + self.relative[:, (distance + self.left).clamp(0, self.left + self.right)]
        weights = torch.softmax(scores.masked_fill(outside, -torch.inf), -1)
        return self.leave((weights @ v).transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        return f"{self.features}, heads={self.heads}, left={self.left}, right={self.right}, rotary={self.rotary}"


def rotated(x: Tensor, base: float) -> Tensor:
    """(.., T, d), features i and i + d / 2 of frame t turned by the angle t * base^(-2 i / d)."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[-2], device=x.device).to(x.dtype)[:, None] * frequency
    cos, sin = torch.cos(angle), torch.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
