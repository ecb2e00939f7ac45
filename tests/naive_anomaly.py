"""A slow, obvious anomaly decoder for one stream: it keeps every error and sorts them. The oracle of `engine/decoders/anomaly.py`."""

import math


def weighted_quantile(errors: list[float], quantile: float, half_life: float) -> float:
    """The smallest error at which the weights of those at or below it reach the share `quantile`; the latest error weighs 1."""
    weights = [0.5 ** ((len(errors) - 1 - i) / half_life) for i in range(len(errors))]
    wanted, below = quantile * sum(weights), 0.0
    for error, weight in sorted(zip(errors, weights, strict=True)):
        below += weight
        if below >= wanted:
            return error
    return max(errors)


def score_range(
    errors: list[float], error: float, quantile: float, half_life: float, accuracy: float
) -> tuple[float, float]:
    """Between which the score of `error` after `errors` may be: the quantile is right to `accuracy`, its share to rounding."""
    if not math.isfinite(error):
        return 1e6, 1e6
    if not errors or error == 0:
        return 0.0, 0.0
    high = weighted_quantile(errors, min(quantile + 1e-5, 1), half_life) * (1 + accuracy)
    low = weighted_quantile(errors, quantile - 1e-5, half_life) * (1 - accuracy)
    return min(error / high if high else 1e6, 1e6), min(error / low if low else 1e6, 1e6)


class NaiveHysteresis:
    """Scores one by one in; whether the stream is anomalous, and what changed, as (anomalous, begin, peak), or None."""

    def __init__(self, warm_up: int, on: float, off: float, min_on: int, min_off: int):
        self.warm_up, self.limits, self.least = warm_up, (on, off), (min_on, min_off)
        self.anomalous, self.waiting, self.peak = False, [], 0.0
        self.scores = 0

    def take(self, at: int, score: float) -> tuple[bool, int, float] | None:
        self.scores += 1
        turns = score < self.limits[1] if self.anomalous else score >= self.limits[0] and self.scores > self.warm_up
        self.waiting = [*self.waiting, (at, score)] if turns else []
        if self.anomalous:
            self.peak = max(self.peak, score)
        if len(self.waiting) < self.least[self.anomalous] or not turns:
            return None
        begin = self.waiting[0][0]
        if not self.anomalous:
            self.peak = max(s for _, s in self.waiting)
        self.anomalous, self.waiting = not self.anomalous, []
        return self.anomalous, begin, self.peak
