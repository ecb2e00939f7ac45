"""The activity recogniser: raw frames in, a score for each activity out, at every frame."""

import torch
from torch import Tensor, nn


class ActivityNet(nn.Module):
    """(B, T, 6) -> (B, T, 7) log-probabilities; the output at a frame depends on this and earlier frames alone.

    The training set's mean and deviation are part of the module, so that a model in service cannot be fed features
    that were made in another way than in training.
    """

    def __init__(self, channels: int = 6, hidden: int = 48, layers: int = 2, labels: int = 7):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.gru = nn.GRU(channels, hidden, layers, batch_first=True, dropout=0.3)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, labels)

    mean: Tensor
    scale: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        return self.carry(frames, None)[0]

    def carry(self, frames: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log-probabilities, state after the last frame), from `state`: for training on windows of long recordings."""
        hidden, last = self.gru((frames - self.mean) * self.scale, state)
        return torch.log_softmax(self.head(self.dropout(self.norm(hidden))), -1), last
