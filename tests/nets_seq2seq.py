"""Encoders and decoders of the tests, and torch's own loops over them: one source at a time, nothing padded."""

import numpy as np
import torch
from torch import nn

import undertow as ut

TOKENS, SAID = 23, 19  # of the source, of the target
START, STOP = 1, 2
ROOM = 30


class AdditiveEncoder(nn.Module):
    """Both ways; the last states of both make the decoder's first."""

    def __init__(self, size=12):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8)
        self.gru = nn.GRU(8, size, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * size, size)

    def forward(self, source):
        out, h = self.gru(self.embedding(source))
        return out, torch.tanh(self.bridge(torch.cat([h[0], h[1]], -1)))


class AdditiveDecoder(ut.DecoderModule):
    """Bahdanau et al. 2015, whose keys are made once."""

    def __init__(self, size=12):
        super().__init__()
        self.embedding = nn.Embedding(SAID, 8)
        self.key, self.query, self.score = nn.Linear(2 * size, size), nn.Linear(size, size), nn.Linear(size, 1)
        self.cell, self.out = nn.GRUCell(8 + 2 * size, size), nn.Linear(3 * size, SAID)

    def begin(self, encoded):
        values, h = encoded
        return {"values": values, "keys": self.key(values)}, h

    def forward(self, token, state, memory, mask):
        scores = self.score(torch.tanh(memory["keys"] + self.query(state)[:, None])).squeeze(-1)
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        context = torch.einsum("bm,bmd->bd", weights, memory["values"])
        h = self.cell(torch.cat([self.embedding(token), context], -1), state)
        return self.out(torch.cat([h, context], -1)), h


class DotEncoder(nn.Module):
    """Forward only, two layers."""

    def __init__(self, size=10):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(TOKENS, 6), nn.LSTM(6, size, 2, batch_first=True)

    def forward(self, source):
        out, (h, c) = self.lstm(self.embedding(source))
        return out, (h[-1], c[-1])


class DotDecoder(ut.DecoderModule):
    """Luong et al. 2015: attention after the cell, whose context goes into the next step; begins as the encoder ended."""

    def __init__(self, size=10):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(SAID, 6), nn.LSTMCell(6 + size, size)
        self.mixed, self.out = nn.Linear(2 * size, size), nn.Linear(size, SAID)

    def begin(self, encoded):
        out, (h, c) = encoded
        return out, {"cell": (h, c), "fed": torch.zeros_like(h)}

    def forward(self, token, state, memory, mask):
        h, c = self.cell(torch.cat([self.embedding(token), state["fed"]], -1), state["cell"])
        scores = torch.matmul(memory, h[..., None]).squeeze(-1) / h.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        context = torch.matmul(weights[:, None], memory).squeeze(1)
        fed = torch.tanh(self.mixed(torch.cat([h, context], -1)))
        return {"scores": self.out(fed), "attention": weights}, {"cell": (h, c), "fed": fed}


class SpeechEncoder(nn.Module):
    """Frames of features, a convolution that halves their number: sources of one length go through it together."""

    def __init__(self, size=9):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(5, size, 3, stride=2, padding=1), nn.GRU(size, size, batch_first=True)

    def forward(self, frames):
        return self.gru(torch.relu(self.conv(frames.transpose(1, 2)).transpose(1, 2)))[0]


class CoverageDecoder(ut.DecoderModule):
    """What was attended to before lowers the scores (Tu et al. 2016): a state with a number for each position, beside one of the whole source."""

    def __init__(self, size=9):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(SAID, 4), nn.GRUCell(4 + size, size)
        self.first, self.out = nn.Linear(size, size), nn.Linear(size, SAID)

    def begin(self, encoded):
        first = torch.tanh(self.first(encoded.mean(1)))
        return (encoded,), [first, torch.zeros_like(encoded[..., 0])]

    def forward(self, token, state, memory, mask):
        h, covered = state
        scores = (memory[0] * h[:, None]).sum(-1) - covered
        weights = torch.softmax(torch.where(mask, scores, -torch.inf), -1)
        h = self.cell(torch.cat([self.embedding(token), (weights[..., None] * memory[0]).sum(1)], -1), h)
        return self.out(h), [h, covered + weights]


def pair(kind, seed=2):
    """(encoder, decoder) with weights large enough that tokens differ."""
    torch.manual_seed(seed)
    made = {"additive": (AdditiveEncoder, AdditiveDecoder), "dot": (DotEncoder, DotDecoder)}
    made["coverage"] = (SpeechEncoder, CoverageDecoder)
    both = tuple(part() for part in made[kind])
    with torch.no_grad():
        for part in both:
            for weight in part.parameters():
                weight.mul_(2.5)
    return both


def sources(kind, count, seed=0, longest=ROOM):
    """Ragged random sources, the longest one that memory takes among them."""
    rng = np.random.default_rng(seed)
    lengths = [longest, 1, *rng.integers(1, longest + 1, count)][:count]
    if kind == "coverage":
        return [rng.normal(size=(2 * n, 5)).astype(np.float32) for n in lengths]
    return [rng.integers(0, TOKENS, n) for n in lengths]


class ByTorch:
    """One source decoded by torch: `step(token, state)` for the searches of `naive_seq2seq`."""

    def __init__(self, encoder, decoder, source):
        self.decoder = decoder.eval()
        with torch.no_grad():
            self.memory, self.first = decoder.begin(encoder.eval()(torch.from_numpy(source)[None]))
        leaf = self.memory
        while not isinstance(leaf, torch.Tensor):
            leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
        self.mask = torch.ones(leaf.shape[:2], dtype=torch.bool)

    def step(self, token, state):
        """Scores (V,), and the next state."""
        with torch.no_grad():
            out, after = self.decoder(torch.tensor([int(token)]), state, self.memory, self.mask)
        return (out["scores"] if isinstance(out, dict) else out)[0].numpy(), after

    def forced(self, tokens):
        """Scores (T, V) where these tokens are given."""
        scores, state = [], self.first
        for token in tokens:
            found, state = self.step(token, state)
            scores.append(found)
        return np.stack(scores)
