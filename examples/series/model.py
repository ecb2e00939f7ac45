"""Three small recurrent models. Each takes values in the user's units and gives them back in those; the scaling is inside."""

import torch
from torch import Tensor, nn

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


class Forecaster(nn.Module):
    """Quantiles of the next `ahead` temperatures: (B, T, 9) -> (B, T, ahead, 5), in °C, as of each hour.

    The past day is seen by a convolution, which is free to copy yesterday's curve; what came before is in the GRU.
    What they say is added to the present temperature.
    """

    def __init__(self, channels: int = 9, hidden: int = 64, past: int = 48, ahead: int = 24, span: int = 24):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.ahead, self.span = ahead, span
        self.past = nn.Conv1d(channels, past, span)
        self.gru = nn.GRU(channels + past, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden + past, ahead * len(LEVELS))

    mean: Tensor
    scale: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        x = nn.functional.pad(self.scaled(frames).transpose(1, 2), (self.span - 1, 0))
        return self.answer(frames, x, None)[0]

    def scaled(self, frames: Tensor) -> Tensor:
        return (frames - self.mean) * self.scale

    def answer(self, frames: Tensor, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: the scaled frames (B, 9, span - 1 + T), with the day before them. Also the state after the last."""
        past = self.past(x).transpose(1, 2)
        hidden, last = self.gru(torch.cat([x[:, :, self.span - 1 :].transpose(1, 2), torch.relu(past)], 2), state)
        change = self.head(self.dropout(torch.cat([hidden, past], 2))).unflatten(2, (self.ahead, len(LEVELS)))
        return frames[:, :, :1, None] + change / self.scale[0], last

    def carry(self, frames: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`forward` of a window of a longer sequence, and the state for the next one: the last day's frames, and the GRU's."""
        x = self.scaled(frames).transpose(1, 2)
        before, hidden = (x.new_zeros(*x.shape[:2], self.span - 1), None) if state is None else state
        x = torch.cat([before, x], 2)
        out, hidden = self.answer(frames, x, hidden)
        return out, (x[:, :, -self.span + 1 :].detach(), hidden.detach())


class NextValue(nn.Module):
    """The next value of a series: (B, T, 1) -> (B, T, 1). hidden: units of its GRU."""

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    mean: Tensor
    scale: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        return self.carry(frames, None)[0]

    def carry(self, frames: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, last = self.gru((frames - self.mean) * self.scale, state)
        return frames + self.head(hidden) / self.scale, last.detach()


class NextReturn(nn.Module):
    """Quantiles of a stock's next monthly log return from those so far: (B, T, 1) -> (B, T, 5)."""

    def __init__(self, hidden: int = 8):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, len(LEVELS))

    scale: Tensor

    def forward(self, returns: Tensor) -> Tensor:
        return self.head(self.dropout(self.gru(returns * self.scale)[0])) / self.scale


def pinball(forecast: Tensor, truth: Tensor) -> Tensor:
    """The quantile loss of each: forecast (..., 5) for LEVELS, truth (...)."""
    error = truth[..., None] - forecast
    levels = error.new_tensor(LEVELS)
    return torch.maximum(levels * error, (levels - 1) * error)
