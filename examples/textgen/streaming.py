"""Held-out texts as live streams: every engine step takes one piece of each text that is not through yet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from model import FortuneNet
from pieces import END

import undertow as ut


@dataclass(frozen=True, slots=True)
class Streamed:
    """logits: of each text (pieces + 1, V), of what comes next. seconds: of each step of the engine. frames: steps of all streams."""

    logits: list[np.ndarray]
    seconds: list[float]
    frames: int


def streamed(engine: ut.Engine, texts: Sequence[list[int]]) -> Streamed:
    """All texts at once, one piece a step, each after an END."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    lengths = np.array([len(texts[i]) + 1 for i in order])
    ids = np.zeros((len(texts), lengths[0]), np.int64)
    for row, i in enumerate(order):
        ids[row, : lengths[row]] = [END, *texts[i]]
    logits = [np.empty((n, engine.spec.outputs[0].shape[0]), np.float32) for n in lengths]
    seconds = []
    for t in range(lengths[0]):
        live = int((lengths > t).sum())
        begin = time.perf_counter()
        values, _ = engine.step(order[:live], ids[:live, t])
        seconds.append(time.perf_counter() - begin)
        for row in range(live):
            logits[row][t] = values[row]
    engine.close_many(order)
    back = np.argsort(order)
    return Streamed([logits[i] for i in back], seconds, int(lengths.sum()))


def bits(logits: np.ndarray, text: list[int]) -> np.ndarray:
    """What each piece and the end cost, (pieces + 1,)."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    chosen = shifted[np.arange(len(logits)), [*text, END]]
    return (np.log(np.exp(shifted).sum(1)) - chosen) / np.log(2)


@torch.no_grad()
def worst_difference(
    model: FortuneNet, texts: Sequence[list[int]], found: Sequence[np.ndarray]
) -> tuple[float, list[float]]:
    """The largest difference between the streams' logits and torch's on each whole text, and torch's bits of each text."""
    worst, spent = 0.0, []
    for text, given in zip(texts, found, strict=True):
        expected = model(torch.tensor([[END, *text]]))[0].numpy()
        worst = max(worst, float(np.abs(expected - given).max()))
        spent.append(float(bits(expected, text).sum()))
    return worst, spent
