"""A row of a model's scores as log-probabilities."""

import math

import numpy as np

from .inner import inner

LOGITS, LOG_PROBABILITIES, PROBABILITIES = range(3)
FLOOR = -1000.0  # of what is impossible or not a number: so a search never runs out of hypotheses


@inner
def log_probabilities(row, kind, out):
    """out[v] = log-probability of label v, float64 (V,), at least FLOOR; returns the most probable label, the first of equals."""
    top = -np.inf
    for v in range(row.size):
        x = np.float64(row[v])
        if kind == PROBABILITIES:
            x = math.log(x) if x > 0.0 else FLOOR
        out[v] = x
        top = max(top, x)
    if kind == LOGITS:
        total = 0.0
        for v in range(row.size):
            total += math.exp(out[v] - top)
        top += math.log(total)
        for v in range(row.size):
            out[v] -= top
    best = 0
    for v in range(row.size):
        if not out[v] > FLOOR:
            out[v] = FLOOR
        if out[v] > out[best]:
            best = v
    return best


@inner
def log_sum(a, b):
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))
