"""Rows of recordings as batches of like length, with what is to be learnt of each."""

from collections.abc import Iterator

import numpy as np
import torch
from data import RATE_HZ, Utterance
from model import STEP
from texts import LABELS
from torch import Tensor
from variation import varied

SECONDS = 20  # of samples in a batch: about 5 rows
LATE = 3  # outputs that a label comes after its sound where its place is taught
BLANK = 0

Batch = tuple[Tensor, Tensor, list[str]]


def varied_batches(rows: list[list[Utterance]], generator: np.random.Generator) -> Iterator[Batch]:
    """(samples (B, T), outputs of each (B,), texts) of the rows as `variation.varied` has them, in random order."""
    for group in _groups([sum(len(u.samples) for u in row) for row in rows], generator):
        made = [varied(rows[i], generator) for i in group]
        samples = stacked([x for x, _ in made])
        yield samples, torch.tensor([-(-len(x) // STEP) for x, _ in made]), [t for _, t in made]


def placed_batches(chosen: list[Utterance], generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """(samples (B, T), the label of each output (B, T // STEP)) of utterances whose words' times are known."""
    for group in _groups([len(u.samples) for u in chosen], generator):
        samples = stacked([np.pad(chosen[i].samples, (0, LATE * STEP)) for i in group])
        labels = [placed(chosen[i], samples.shape[1] // STEP) for i in group]
        yield samples, torch.from_numpy(np.stack(labels))


def placed(utterance: Utterance, outputs: int) -> np.ndarray:
    """Labels (outputs,): a word's letters, a space before them, spread evenly over its time and LATE outputs on; blanks between words."""
    labels = np.full(outputs, BLANK)
    for word, span in zip(utterance.text.split(), utterance.spans, strict=True):
        begin, end = (s * RATE_HZ / STEP + LATE for s in span)
        at = np.arange(round(begin), min(round(end), outputs))
        letters = np.array([LABELS.index(c) for c in f" {word}"])
        which = ((at - begin) / (end - begin) * len(letters)).astype(int)
        labels[at] = letters[which.clip(0, len(letters) - 1)]
    return labels


def stacked(chosen: list[np.ndarray]) -> Tensor:
    """(B, T): whole steps, zeros behind the shorter ones."""
    samples = np.zeros((len(chosen), -(-max(map(len, chosen)) // STEP) * STEP), np.float32)
    for row, x in zip(samples, chosen, strict=True):
        row[: len(x)] = x
    return torch.from_numpy(samples)


def _groups(lengths: list[int], generator: np.random.Generator) -> Iterator[list[int]]:
    """Indices of about SECONDS of samples of like length, the groups in random order."""
    groups: list[list[int]] = [[]]
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i] * generator.uniform(0.9, 1.1)):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > SECONDS * RATE_HZ:
            groups.append([])
        groups[-1].append(i)
    for g in generator.permutation(len(groups)):
        yield groups[g]
