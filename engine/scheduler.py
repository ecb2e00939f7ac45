"""Ragged work in, batches out."""

from collections.abc import Iterator

import numpy as np


def waves(length: np.ndarray, max_batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """(t, streams) until stream i was given length[i] times: frame t of each of at most `max_batch` streams.

    A stream is at most once in a batch and its frames come in order; no stream waits for another's backlog, since
    every stream that has a frame t gets it before any stream gets its frame t + 1.
    """
    order = np.argsort(-length, kind="stable")
    longest = int(length.max(initial=0))
    active = len(length) - np.searchsorted(length[order[::-1]], np.arange(longest), side="right")
    for t in range(longest):
        for begin in range(0, int(active[t]), max_batch):
            yield t, order[begin : min(begin + max_batch, int(active[t]))]
