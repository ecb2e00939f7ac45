"""Held-out sentences as live streams, a word a step; and as whole sequences, which are answered when they end."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from model import LiveSentiment, WholeSentiment

import undertow as ut


def live_scores(engine: ut.Engine, texts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
    """The score after each word of each text (words, MARKS), all texts at once; and the seconds of each step."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found = [np.empty(len(t), np.float32) for t in texts]
    seconds = []
    for t in range(len(texts[order[0]])):
        live = [i for i in order if len(texts[i]) > t]
        words = np.stack([texts[i][t] for i in live])
        begin = time.perf_counter()
        values, _ = engine.step(live, words)
        seconds.append(time.perf_counter() - begin)
        for i, value in zip(live, values.tolist(), strict=True):
            found[i][t] = value
    engine.close_many(order)
    return found, seconds


def whole_scores(engine: ut.Engine, texts: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The score of each text, and the seconds that the streams took to end, all together."""
    engine.push_many(dict(enumerate(texts)))
    begin = time.perf_counter()
    found = engine.close_many(range(len(texts)))
    return np.array([found[i].item() for i in range(len(texts))], np.float32), time.perf_counter() - begin


@torch.no_grad()
def torch_scores(
    live: LiveSentiment, whole: WholeSentiment, texts: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """What torch says of each text by itself: after each word, and in the end."""
    given = [torch.from_numpy(t)[None] for t in texts]
    return [live(t)[0].numpy() for t in given], np.array([whole(t).item() for t in given], np.float32)
