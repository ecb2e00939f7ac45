"""A recurrent cell along time."""

import torch
from torch import Tensor, nn


class OverTime(nn.Module):
    """nn.RNNCell, nn.LSTMCell or nn.GRUCell applied along time: (B, T, F) -> (B, T, H), from a zero state.

    Does what a Python loop over frames does, with the cell's own weights; `undertow export` takes both, and this in less time.
    """

    def __init__(self, cell: nn.RNNCellBase):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1)
