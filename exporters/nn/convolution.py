"""Convolution along time that reads the past, and no more of the future than it is told to."""

from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import sequences, whole


class CausalConv1d(nn.Conv1d):
    """nn.Conv1d along time with zeros before the first frame: (B, T, features) -> (B, T', channels), T' = ceil(T / stride).

    y[i] = bias + sum_k w[k] x[i * stride + lookahead - (kernel_size - 1 - k) * dilation], x being zero outside of the sequence
    (van den Oord et al. 2016, WaveNet, section 2.1). Weights, and their names in a checkpoint, are nn.Conv1d's.

    Delay: `lookahead` frames, none by default. State: (kernel_size - 1) * dilation frames of `features` numbers.
    """

    def __init__(
        self,
        features: int,
        channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        lookahead: int = 0,
    ):
        whole("CausalConv1d", features=features, channels=channels, kernel_size=kernel_size)
        whole("CausalConv1d", stride=stride, dilation=dilation, groups=groups)
        whole("CausalConv1d", 0, lookahead=lookahead)
        span = (kernel_size - 1) * dilation
        if lookahead > span:
            raise ValueError(
                f"CausalConv1d: lookahead is {lookahead} frames, expected at most the kernel's span, {span}"
            )
        if features % groups or channels % groups:
            raise ValueError(
                f"CausalConv1d: groups is {groups}, expected a divisor of features ({features}) and of channels ({channels})"
            )
        super().__init__(features, channels, kernel_size, stride=stride, dilation=dilation, groups=groups, bias=bias)
        self.lookahead, self.span = lookahead, span

    def forward(self, input: Tensor) -> Tensor:
        sequences("CausalConv1d", input, self.in_channels)
        padded = F.pad(input.transpose(1, 2), (self.span - self.lookahead, self.lookahead))
        return super().forward(padded).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, lookahead={self.lookahead}"
