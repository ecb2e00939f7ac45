"""The translator: bidirectional GRU encoder, additive attention, GRU decoder (Bahdanau, Cho, Bengio 2015, arXiv:1409.0473).

It is two modules, as it is exported: the encoder reads a whole sentence, the decoder makes one step. The decoder has two layers: the lower
one looks, the upper one is told what it found (as in Wu et al. 2016, arXiv:1609.08144), so that in training all steps of a layer go together.
"""

import torch
from torch import Tensor, nn

import undertow as ut

WIDTH, HIDDEN = 80, 104


class Dropout(nn.Module):
    """Leaves out the same numbers at every position of a sentence (Gal and Ghahramani 2016, arXiv:1512.05287): x (B, T, D)."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:, :1]), self.share)


class Encoder(nn.Module):
    """Pieces (B, T) -> at each position what both directions say and the piece itself (B, T, 2 * hidden + width), and what the backward
    direction says of the whole sentence (B, hidden)."""

    def __init__(self, embed: nn.Embedding, hidden: int, dropout: float):
        super().__init__()
        self.embed = embed
        self.gru = nn.GRU(embed.embedding_dim, hidden, batch_first=True, bidirectional=True)
        self.dropout = Dropout(dropout)

    def forward(self, pieces: Tensor) -> tuple[Tensor, Tensor]:
        given = self.dropout(self.embed(pieces))
        said, last = self.gru(given)
        return torch.cat([self.dropout(said), given], -1), last[1]

    def padded(self, pieces: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same for sentences of several lengths, padded at their ends: for training."""
        given = self.dropout(self.embed(pieces))
        packed = nn.utils.rnn.pack_padded_sequence(given, lengths, batch_first=True, enforce_sorted=False)
        said, last = self.gru(packed)
        said = nn.utils.rnn.pad_packed_sequence(said, batch_first=True)[0]
        return torch.cat([self.dropout(said), given], -1), last[1]


class Decoder(ut.DecoderModule):
    """One step: the last piece, the states and the sentence that was read -> scores of the next piece, the next states.

    The memory is what the encoder gives and, made of it once, the keys that the attention compares with the lower state. The pieces
    that it looks at also have a short way of their own to the scores, which rare words need (Nguyen and Chiang 2018, arXiv:1710.01329).
    """

    def __init__(self, embed: nn.Embedding, hidden: int, dropout: float):
        super().__init__()
        width = embed.embedding_dim
        self.hidden = hidden
        self.embed = embed
        self.key = nn.Linear(2 * hidden, hidden)
        self.start = nn.Linear(hidden, 2 * hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.lower = nn.GRU(width, hidden, batch_first=True)
        self.upper = nn.GRU(3 * hidden, hidden, batch_first=True)
        self.readout = nn.Linear(width + 3 * hidden, width)
        self.word = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(embed.num_embeddings))
        self.dropout = Dropout(dropout)

    def begin(self, encoded: tuple[Tensor, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        read, whole = encoded
        lower, upper = torch.tanh(self.start(whole)).chunk(2, -1)
        return {"read": read, "keys": self.key(read[..., : 2 * self.hidden])}, {"lower": lower, "upper": upper}

    def forward(
        self, token: Tensor, state: dict[str, Tensor], memory: dict[str, Tensor], mask: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """token (B,), states (B, hidden), memory (B, M, ..), mask (B, M) -> scores (B, V) and where it looked (B, M), the next states."""
        last = self.embed(token)
        lower = stepped(self.lower, last, state["lower"])
        looked = self.looked(lower[:, None], memory, mask)
        found = (looked @ memory["read"])[:, 0]
        upper = stepped(self.upper, torch.cat([lower, found[:, : 2 * self.hidden]], -1), state["upper"])
        return {"scores": self.scores(last, found, upper), "attention": looked[:, 0]}, {"lower": lower, "upper": upper}

    def all_steps(self, tokens: Tensor, encoded: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """The scores (B, U, V) after each of tokens (B, U): those that `over` gives, a layer at a time, for training."""
        memory, state = self.begin(encoded)
        last = self.dropout(self.embed(tokens))
        lower, _ = self.lower(last, state["lower"][None])
        found = self.looked(lower, memory, mask) @ memory["read"]
        upper, _ = self.upper(self.dropout(torch.cat([lower, found[..., : 2 * self.hidden]], -1)), state["upper"][None])
        return self.scores(last, found, upper)

    def looked(self, lower: Tensor, memory: dict[str, Tensor], mask: Tensor) -> Tensor:
        """The attention (B, U, M) of lower states (B, U, hidden)."""
        energy = self.energy(torch.tanh(memory["keys"][:, None] + self.query(lower)[:, :, None]))[..., 0]
        return torch.softmax(energy.masked_fill(~mask[:, None], -torch.inf), -1)

    def scores(self, last: Tensor, found: Tensor, upper: Tensor) -> Tensor:
        """(.., V): the output layer shares its weights with the embedding (Press and Wolf 2017, arXiv:1608.05859)."""
        said, pieces = found.tensor_split([2 * self.hidden], -1)
        told = torch.tanh(self.readout(self.dropout(torch.cat([last, said, upper], -1))))
        word = torch.tanh(pieces)
        word = word + torch.tanh(self.word(word))
        return nn.functional.linear(self.dropout(told + word), self.embed.weight, self.bias)


def stepped(layer: nn.GRU, given: Tensor, state: Tensor) -> Tensor:
    """The layer's state after one more step."""
    return torch.gru_cell(given, state, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)


class Translator(nn.Module):
    def __init__(self, pieces: int, width: int = WIDTH, hidden: int = HIDDEN, dropout: float = 0.25):
        super().__init__()
        embed = nn.Embedding(pieces, width)
        nn.init.normal_(embed.weight, std=width**-0.5)
        self.encoder = Encoder(embed, hidden, dropout)
        self.decoder = Decoder(embed, hidden, dropout)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Scores (B, U, V) of the piece after each of target (B, U), which begins with START, of padded sources: for training."""
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        return self.decoder.all_steps(target, self.encoder.padded(source, lengths), mask)
