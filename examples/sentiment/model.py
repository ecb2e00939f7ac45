"""The two networks: one that says after every word what it thinks so far, and one that reads the whole sentence both ways first."""

import torch
from torch import Tensor, nn


class Words(nn.Module):
    """Marks of words (B, T, MARKS), ids of a table with 0 for none, -> (B, T, width): the sum of each word's vectors."""

    def __init__(self, table: int, width: int, dropout: float):
        super().__init__()
        self.table = nn.Embedding(table, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.table.weight, std=0.1)
        with torch.no_grad():
            self.table.weight[0] = 0

    def forward(self, marks: Tensor) -> Tensor:
        return self.dropout(self.table(marks).sum(2))


class LiveSentiment(nn.Module):
    """Marks (B, T, MARKS) -> rating (B, T): after each word that of the sentence so far, in the raters' scale of -4 to 4."""

    def __init__(self, table: int = 8192, width: int = 32, hidden: int = 64, dropout: float = 0.0):
        super().__init__()
        self.words = Words(table, width, dropout)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)

    def forward(self, marks: Tensor) -> Tensor:
        return self.head(self.dropout(self.gru(self.words(marks))[0])).squeeze(2)


class WholeSentiment(nn.Module):
    """Marks (B, T, MARKS) -> rating (B,) of whole sentences: a bidirectional GRU, and attention that weighs its words."""

    def __init__(self, table: int = 8192, width: int = 32, hidden: int = 48, dropout: float = 0.0):
        super().__init__()
        self.words = Words(table, width, dropout)
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Sequential(nn.Linear(2 * hidden, 32), nn.Tanh(), nn.Linear(32, 1))
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, marks: Tensor) -> Tensor:
        read, weights = self.read(marks)
        return self.head(self.dropout((read * weights).sum(1))).squeeze(1)

    def read(self, marks: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 2 x hidden) and how much each word counts, (B, T, 1), which sums to 1."""
        read = self.gru(self.words(marks))[0]
        return read, self.attention(read).softmax(1)
