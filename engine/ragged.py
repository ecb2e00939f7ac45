"""Streams of different lengths that lie end to end in one array."""

import numpy as np


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Where each stream's rows begin, int64 (B,)."""
    return np.cumsum(counts) - counts


def ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, .. counts[0] of them, then those of the next: int64 (counts.sum(),)."""
    return np.arange(int(counts.sum())) + np.repeat(first - starts_of(counts), counts)
