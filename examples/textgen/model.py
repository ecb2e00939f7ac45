"""The network: an embedding, residual LSTM layers, and the embedding again as the head."""

import torch
from torch import Tensor, nn

Carried = list[tuple[Tensor, Tensor]]  # of each layer its hidden and cell state, (1, B, WIDTH)


class FortuneNet(nn.Module):
    """Ids (B, T) -> logits (B, T, pieces) of the piece that comes next.

    Each layer reads the normed sum of the embedding and of all layers before it, and adds to it; the head sees the whole sum.
    """

    def __init__(self, pieces: int = 768, width: int = 160, layers: int = 2, rank: int = 64, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(pieces, rank)
        self.widen = nn.Linear(rank, width, bias=False)
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, rank, bias=False)
        self.bias = nn.Parameter(torch.zeros(pieces))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=rank**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.carry(ids, None)[0]

    def carry(self, ids: Tensor, state: Carried | None) -> tuple[Tensor, Carried]:
        """The logits, and the states after the last piece; `state` is what an earlier part of the same texts left."""
        x, after = self.dropout(self.widen(self.embedding(ids))), []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y, carried = layer(norm(x), None if state is None else state[i])
            x = x + self.dropout(y)
            after.append(carried)
        return self.narrow(self.last(x)) @ self.embedding.weight.T + self.bias, after
