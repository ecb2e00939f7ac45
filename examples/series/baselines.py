"""Forecasts without a network, as quantiles at the same hours: persistence, the hour a day ago, and a model of statsmodels.

The first two take as their uncertainty the errors that they made before the held-out time, for each number of hours ahead apart;
a regression with autoregressive errors brings its own.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from data import AHEAD, DAY, WARM_UP, WEEK, Station, Week, truth
from model import LEVELS

DEVIATIONS = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


def pinball(forecast: np.ndarray, true: np.ndarray) -> float:
    """Mean quantile loss: forecast (..., 5) for LEVELS, true (...)."""
    error, levels = true[..., None] - forecast, np.array(LEVELS)
    return float(np.maximum(levels * error, (levels - 1) * error).mean())


def coverage(forecast: np.ndarray, true: np.ndarray) -> float:
    """How often the truth is from the 10 % to the 90 % quantile."""
    return float(((forecast[..., 0] <= true) & (true <= forecast[..., -1])).mean())


def persistence(temperature: np.ndarray) -> np.ndarray:
    """(T - DAY + 1, AHEAD): as it is now; from the first hour on that has a day before it."""
    return np.repeat(temperature[DAY - 1 :, None], AHEAD, 1)


def a_day_ago(temperature: np.ndarray) -> np.ndarray:
    """(T - DAY + 1, AHEAD): as it was at that hour a day before."""
    return np.lib.stride_tricks.sliding_window_view(temperature, DAY)


def with_errors(point: Callable[[np.ndarray], np.ndarray], known: Station, streams: list[Week]) -> np.ndarray:
    """Quantiles (streams, WEEK, AHEAD, 5) of the scored hours: the point forecast and the quantiles of its errors in `known`."""
    past = known.frames[:, 0].astype(float)
    errors = truth(known.frames)[DAY - 1 :] - point(past)[:-AHEAD]
    spread = np.quantile(errors, LEVELS, axis=0).T
    found = [point(w.frames[:-AHEAD, 0].astype(float))[-WEEK:] for w in streams]
    return np.stack(found)[..., None] + spread


def regression(known: Station, streams: list[Week]) -> np.ndarray:
    """Quantiles (streams, WEEK, AHEAD, 5) by SARIMAX: three autoregressive terms about a mean day of two harmonics.

    Fitted on `known`; for each stream the filter runs over its frames anew.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    fitted = SARIMAX(known.frames[:, 0].astype(float), harmonics(known.hours), order=(3, 0, 0), trend="c").fit(
        disp=False, cov_type="none"
    )
    found = [
        looking_ahead(fitted.apply(w.frames[:, 0].astype(float), harmonics(w.hours)).filter_results) for w in streams
    ]
    return np.stack(found)[:, WARM_UP : WARM_UP + WEEK]


def looking_ahead(filtered: Any) -> np.ndarray:
    """(T - AHEAD, AHEAD, 5): the normal distributions that a filtered state space model says of the hours after each.

    What `get_prediction(at + 1, at + AHEAD, dynamic=0)` of each hour says, which would filter everything again for each.
    """
    move, see = filtered.transition[..., 0], filtered.design[0, :, 0]
    noise = filtered.selection[..., 0] @ filtered.state_cov[..., 0] @ filtered.selection[..., 0].T
    count = filtered.nobs - AHEAD
    mean, spread = filtered.filtered_state[:, :count].T, np.moveaxis(filtered.filtered_state_cov, 2, 0)[:count]
    found = np.empty((count, AHEAD, len(LEVELS)))
    for ahead in range(AHEAD):
        mean = mean @ move.T + filtered.state_intercept[:, 0]
        spread = move @ spread @ move.T + noise
        level = mean @ see + filtered.obs_intercept[0, ahead + 1 :][:count]
        deviation = np.sqrt(np.einsum("i,tij,j->t", see, spread, see) + filtered.obs_cov[0, 0, 0])
        found[:, ahead] = level[:, None] + deviation[:, None] * DEVIATIONS
    return found


def harmonics(hours: np.ndarray) -> np.ndarray:
    """(T, 4): two circles a day."""
    part = (hours - hours.astype("datetime64[D]")).astype(float)[:, None] / 24 * np.array([1, 2])
    return np.concatenate([np.sin(2 * np.pi * part), np.cos(2 * np.pi * part)], 1)
