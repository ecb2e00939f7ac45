"""Translation by torch alone, one sentence after the other: what the stream's answers are held against.

It takes any encoder and decoder that `ut.export_seq2seq` takes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import undertow as ut


@dataclass(frozen=True, slots=True)
class Found:
    """Pieces, `stop` last where the sentence ended, and the sum of their log-probabilities."""

    tokens: list[int]
    log_probability: float


@torch.no_grad()
def beam_search(
    encoder: nn.Module,
    decoder: ut.DecoderModule,
    source: Tensor,
    *,
    start: int,
    stop: int,
    max_steps: int,
    beam: int = 4,
    length_penalty: float = 1.0,
) -> Found:
    """The best translation of source (T,) that a beam of so many hypotheses finds.

    The log-probabilities are summed in float64. Each step keeps the `beam` best continuations; those among them that end are put aside, the next best take their places. The best is
    the one with the highest log-probability over ((5 + length) / 6) ** length_penalty (Wu et al. 2016, arXiv:1609.08144).
    """
    memory, state = _repeated(decoder.begin(encoder(source[None])), beam)
    mask = torch.ones(beam, _positions(memory), dtype=torch.bool)
    scores = torch.tensor([0.0] + [-torch.inf] * (beam - 1), dtype=torch.float64)  # one hypothesis to begin with
    live, last, found = [[] for _ in range(beam)], torch.full((beam,), start), []
    for n in range(1, max_steps + 1):
        out, state = decoder(last, state, memory, mask)
        total = scores[:, None] + logs_of(out)
        best = torch.topk(total.flatten(), 2 * beam)  # as many end at most as there are hypotheses
        kept = []
        for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            row, token = divmod(place, total.shape[1])
            tokens = [*live[row], token]
            if token == stop and rank < beam:
                found.append((score / penalty(n, length_penalty), Found(tokens, score)))
            elif token != stop and len(kept) < beam:
                kept.append((score, row, tokens))
        if n == max_steps:
            found += [(score / penalty(n, length_penalty), Found(tokens, score)) for score, _, tokens in kept]
        elif found and max(f[0] for f in found) >= kept[0][0] / penalty(max_steps, length_penalty):
            break  # what goes on can come to nothing better
        rows = torch.tensor([row for _, row, _ in kept])
        scores = torch.tensor([score for score, _, _ in kept], dtype=torch.float64)
        live, last = [tokens for _, _, tokens in kept], torch.tensor([tokens[-1] for _, _, tokens in kept])
        state = pytree.tree_map(lambda leaf, rows=rows: leaf[rows], state)
    return max(found, key=lambda f: f[0])[1]


def logs_of(out: Any) -> Tensor:
    """Log-probabilities (B, V) of what a decoder gives: the first of it is the scores, as for the engine."""
    return torch.log_softmax(pytree.tree_leaves(out)[0].double(), -1)


def penalty(length: int, power: float) -> float:
    return ((5 + length) / 6) ** power


@torch.no_grad()
def greedy(
    encoder: nn.Module, decoder: ut.DecoderModule, source: Tensor, *, start: int, stop: int, max_steps: int
) -> Found:
    """The likeliest piece at each step."""
    memory, state = decoder.begin(encoder(source[None]))
    mask = torch.ones(1, _positions(memory), dtype=torch.bool)
    tokens, sum_of_logs, last = [], 0.0, start
    while len(tokens) < max_steps and last != stop:
        out, state = decoder(torch.tensor([last]), state, memory, mask)
        logs = logs_of(out)[0]
        last = int(logs.argmax())
        tokens.append(last)
        sum_of_logs += float(logs[last])
    return Found(tokens, sum_of_logs)


def _repeated(begun: Any, times: int) -> Any:
    return pytree.tree_map(lambda leaf: leaf.expand(times, *leaf.shape[1:]), begun)


def _positions(memory: Any) -> int:
    return pytree.tree_leaves(memory)[0].shape[1]
