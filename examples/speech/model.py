"""The recogniser: raw samples at 8 kHz in, log-probabilities of 28 characters and the blank out, every 32 ms."""

import numpy as np
import torch
from data import RATE_HZ
from texts import LABELS
from torch import Tensor, nn

from undertow.exporters.nn import CausalConv1d, LogMel

STEP = 256  # samples, 32 ms: two frames of the log-mel front end, one output


class Recogniser(nn.Module):
    """(B, T) samples in -1 .. 1 -> (B, ceil(T / step), 29): an output depends on its `step` samples and earlier ones alone.

    The training set's mean and deviation of the log-mel energies are part of the module.
    """

    def __init__(
        self, mels: int = 32, channels: int = 96, hidden: int = 168, dropout: float = 0.2, step: int = STEP
    ) -> None:
        super().__init__()
        self.features = LogMel(RATE_HZ, window_length=step, hop_length=step // 2, n_mels=mels, low_hz=60, floor=1e-7)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("scale", torch.ones(mels))
        self.first = CausalConv1d(mels, channels, 3)
        self.second = CausalConv1d(channels, 128, 4, stride=2)
        self.norm = nn.LayerNorm(128)
        self.lstm = nn.LSTM(128, hidden, 2, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, len(LABELS))

    def forward(self, samples: Tensor) -> Tensor:
        return self.recognise(self.scaled(samples))

    def scaled(self, samples: Tensor) -> Tensor:
        """Log-mel energies (B, T', mels) of mean 0 and deviation 1 over the training set."""
        return (self.features(samples) - self.mean) * self.scale

    def recognise(self, features: Tensor) -> Tensor:
        """From `scaled` energies: for training, which masks some of them."""
        hidden = torch.relu(self.second(torch.relu(self.first(features))))
        hidden, _ = self.lstm(self.dropout(self.norm(hidden)))
        return torch.log_softmax(self.head(self.dropout(hidden)), -1)


@torch.no_grad()
def outputs_of(model: Recogniser, samples: np.ndarray) -> np.ndarray:
    """torch's outputs (T, 29) for one whole recording."""
    return model(torch.from_numpy(samples)[None])[0].numpy()


def padded(samples: np.ndarray) -> np.ndarray:
    """Whole steps, at least half a second of silence behind what was there."""
    count = -(-(len(samples) + RATE_HZ // 2) // STEP) * STEP
    return np.pad(samples, (0, count - len(samples)))
