"""Four voices in, the chances of each voice's next token out: two layers of LSTM that hear the beat."""

import torch
from data import BEAT, TOKENS, VOICES
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class ChoraleNet(nn.Module):
    """Tokens (B, T) int64 of each voice -> logits (B, T, TOKENS) of what each sings next, from this and earlier rows alone.

    The place in the beat and in bars of three and four beats is counted by the network itself: a stream's first row is row 0.
    """

    def __init__(self, width: int = 32, hidden: int = 192, dropout: float = 0.3):
        super().__init__()
        self.embed = nn.ModuleList([nn.Embedding(TOKENS, width) for _ in VOICES])
        self.register_buffer("beats", places(), persistent=False)
        self.first = nn.LSTM(width * len(VOICES) + self.beats.shape[1], hidden, batch_first=True)
        self.second = nn.LSTM(hidden, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList([nn.Linear(hidden, TOKENS) for _ in VOICES])

    beats: Tensor

    def forward(self, soprano: Tensor, alto: Tensor, tenor: Tensor, bass: Tensor) -> dict[str, Tensor]:
        logits, _ = self.carry([soprano, alto, tenor, bass], torch.arange(soprano.shape[1]), None)
        return {f"next_{voice}": x for voice, x in zip(VOICES, logits, strict=True)}

    def carry(
        self, voices: list[Tensor], at: Tensor, state: tuple[State, State] | None
    ) -> tuple[list[Tensor], tuple[State, State]]:
        """(logits of each voice, state after the last row). at: the rows' numbers (T,)."""
        first, second = (None, None) if state is None else state
        beats = nn.functional.embedding(at % len(self.beats), self.beats)
        heard = [embed(tokens) for embed, tokens in zip(self.embed, voices, strict=True)]
        x = torch.cat([*heard, beats.expand(heard[0].shape[0], -1, -1)], -1)
        below, first = self.first(self.dropout(x), first)
        above, second = self.second(self.dropout(below), second)
        x = self.dropout(below + above)
        return [head(x) for head in self.heads], (first, second)


def places() -> Tensor:
    """(48, 11): what row t of a piece is in its beat, of four beats and of three, one-hot."""
    t = torch.arange(12 * BEAT)
    parts = [(t % BEAT, BEAT), (t // BEAT % 4, 4), (t // BEAT % 3, 3)]
    return torch.cat([nn.functional.one_hot(which, count) for which, count in parts], 1).float()
