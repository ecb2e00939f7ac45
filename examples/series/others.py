"""The stocks and the blood pressure through the engine, beside torch and plain methods on the same data."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import coverage, pinball
from data import STOCKS_HELD_OUT, TRAINED_ON
from model import LEVELS, NextReturn, NextValue

import undertow as ut

STARTS = range(0, 800, 50)  # frames of the pressure at which its sixteen streams begin
NEAR = 100  # frames around the anomaly that count as found, as in the archive's own scoring
ON = 2.0  # the decoder's default: an error twice as large as the 99 % quantile of those before it
DECODE = {"type": "anomaly", "of": "prediction", "emit": "changes", "on": ON, "min_off": 50, "warm_up": 200}
AHEAD = 100


def stocks(model: Path, network: NextReturn, prices: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Next month's return of five stocks from 2008 on: the network's quantiles beside those of a random walk.

    The random walk's quantiles are those of all the stock's returns before 2008 about their mean, so its median says: as it is now.
    """
    returns = {name: np.diff(np.log(price)).astype(np.float32) for name, (_, price) in prices.items()}
    engine = ut.Engine(model, decode={"type": "quantiles", "levels": list(LEVELS)})
    events = engine.push_many({name: r[:, None] for name, r in returns.items()})
    said, torchs, walks, true = [], [], [], []
    for name, r in returns.items():
        at = np.flatnonzero(prices[name][0][1:] >= STOCKS_HELD_OUT)
        said.append(np.stack(list(events[name].values.values()), -1)[at - 1])
        torchs.append(whole(network, r[:, None])[at - 1])
        known = r[: at[0]].astype(float)
        walks.append(np.repeat(np.quantile(known - known.mean(), LEVELS)[None], len(at), 0))
        true.append(r[at].astype(float))
    ours, torchs, walk, y = (np.concatenate(p) for p in (said, np.sort(np.concatenate(torchs))[None], walks, true))
    low, high = difference(ours, walk, y)
    return {
        "months": len(y),
        "pinball": {
            "GRU, streamed": pinball(ours, y),
            "GRU, torch": pinball(torchs, y),
            "random walk": pinball(walk, y),
        },
        "coverage": {"GRU, streamed": coverage(ours, y), "random walk": coverage(walk, y)},
        "gain_over_random_walk_95": [low, high],
        "worst_difference_from_torch": float(np.abs(ours - torchs).max()),
    }


def difference(ours: np.ndarray, walk: np.ndarray, y: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Between which the random walk's loss less ours lies in 95 % of resamplings of the months."""
    each = np.array([pinball(w, t) - pinball(o, t) for o, w, t in zip(ours, walk, y, strict=True)])
    means = np.random.default_rng(0).choice(each, (draws, len(each))).mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def blood_pressure(model: Path, network: NextValue, series: np.ndarray, odd: tuple[int, int]) -> dict[str, Any]:
    """Sixteen streams of the series from different beginnings: where they alarm and score highest, and where plain methods look."""
    streams = {start: series[start:, None] for start in STARTS}
    plain = ut.Engine(model).push_many(streams)
    scores = ut.Engine(model, decode=DECODE | {"emit": "every"}).push_many(streams)
    changes = ut.Engine(model, decode=DECODE).push_many(streams)
    alarms = [[start + e["begin"] for e in events if e["anomalous"]] for start, events in changes.items()]
    later = [[at for at in found if at >= TRAINED_ON] for found in alarms]
    peaks = [highest(e.values["score"], e.at + start) for start, e in scores.items()]
    looks = {"largest difference": largest_difference(series), "nearest neighbour": discord(series)}
    return {
        "streams": len(streams),
        "found_by": sum(any(near(at, odd) for at in found) for found in later),
        "highest_score_there": sum(near(at, odd) for at in peaks),
        "false_alarms": sum(not near(at, odd) for found in later for at in found),
        "first_alarm_after_frames": max(min(found) - odd[0] for found in later) if all(later) else None,
        "plain_methods_find_it": {name: near(at, odd) for name, at in looks.items()},
        "worst_difference_from_torch": max(
            float(np.abs(plain[s] - whole(network, x)).max()) for s, x in streams.items()
        ),
    }


def fed_back(model: Path, network: NextValue, series: np.ndarray, odd: tuple[int, int]) -> dict[str, Any]:
    """The next 100 frames as of each frame after the prefix that was trained on, up to the anomaly, each fed what was said of the one
    before: how far off they are, with what torch says in the same loop."""
    decode = {"type": "quantiles", "levels": [0.5], "ahead": AHEAD, "every": 10}
    events = ut.Engine(model, decode=decode).push("pressure", series[: odd[0] - AHEAD, None])
    later = events.at >= TRAINED_ON
    at, said = events.at[later], events.values["p50"][later]
    true = series[at[:, None] + np.arange(1, AHEAD + 1)]
    steps = (1, 10, 50, AHEAD)
    checked = [int(i) for i in np.linspace(0, len(at) - 1, 10)]
    alone = np.stack([by_hand(network, series[: at[i] + 1]) for i in checked])
    return {
        "mean_error_by_frames_ahead": {k: float(np.abs(said - true)[:, k - 1].mean()) for k in steps},
        "persistence": {k: float(np.abs(series[at] - true[:, k - 1]).mean()) for k in steps},
        "worst_difference_from_torch": float(np.abs(said[checked] - alone).max()),
    }


@torch.no_grad()
def by_hand(network: NextValue, seen: np.ndarray) -> np.ndarray:
    """(AHEAD,): torch's loop."""
    out, state = network.carry(torch.from_numpy(seen)[None, :, None], None)
    found = [out[:, -1:]]
    while len(found) < AHEAD:
        out, state = network.carry(found[-1], state)
        found.append(out)
    return torch.cat(found, 1)[0, :, 0].numpy()


@torch.no_grad()
def whole(network: torch.nn.Module, frames: np.ndarray) -> np.ndarray:
    """torch on the whole sequence."""
    return network(torch.from_numpy(frames)[None])[0].numpy()


def near(at: int, odd: tuple[int, int]) -> bool:
    return odd[0] - NEAR <= at <= odd[1] + NEAR


def highest(scores: np.ndarray, at: np.ndarray) -> int:
    """Where the score is highest after the prefix that was trained on."""
    later = at >= TRAINED_ON
    return int(at[later][scores[later].argmax()])


def largest_difference(series: np.ndarray) -> int:
    """Where two frames one after the other differ most, in deviations of the prefix's differences."""
    step = np.abs(np.diff(series))
    return TRAINED_ON + int(step[TRAINED_ON - 1 :].argmax())


def discord(series: np.ndarray, length: int = 100) -> int:
    """The middle of the window whose nearest window of the prefix, both made mean 0 and deviation 1, is farthest."""
    windows = np.lib.stride_tricks.sliding_window_view(series.astype(float), length)
    windows = (windows - windows.mean(1, keepdims=True)) / windows.std(1, keepdims=True)
    known, new = windows[: TRAINED_ON - length + 1], windows[TRAINED_ON:]
    nearest = np.concatenate([(part @ known.T).max(1) for part in np.array_split(new, 20)])
    return TRAINED_ON + int(nearest.argmin()) + length // 2
