"""The weather's weeks through the engine, beside torch and the baselines on the same hours."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import a_day_ago, coverage, persistence, pinball, regression, with_errors
from data import AHEAD, DAY, WARM_UP, WEEK, Station, Week, split, truth, weeks
from model import LEVELS, Forecaster

import undertow as ut

TIMED = 1008  # streams at once: 28 of each of the 36 weeks, which begin 20 hours apart
DECODE = {"type": "quantiles", "levels": list(LEVELS)}
NAMES = [f"p{100 * level:g}" for level in LEVELS]


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Of each stream the quantiles (WEEK, AHEAD, 5) as of each scored hour, from the engine; and what came, (WEEK, AHEAD)."""

    streams: list[Week]
    said: np.ndarray
    truth: np.ndarray


def streamed(model: Path, everything: list[Station]) -> Forecasts:
    """All held-out weeks at once, a day's chunk at a time, each warmed up on the four weeks before it."""
    streams = [w for s in everything for w in weeks(s)]
    engine = ut.Engine(model, max_streams=len(streams), decode=DECODE)
    days = []
    for t in range(0, WARM_UP + WEEK, DAY):
        events = engine.push_many({w.key: w.frames[t : t + DAY] for w in streams})
        days.append([np.stack([events[w.key].values[n] for n in NAMES], -1) for w in streams])
    said = np.concatenate(days[WARM_UP // DAY :], axis=1)
    return Forecasts(streams, said, np.stack([truth(w.frames)[WARM_UP : WARM_UP + WEEK] for w in streams]))


@torch.no_grad()
def by_torch(model: Forecaster, streams: list[Week]) -> np.ndarray:
    """The same quantiles of whole sequences, sorted."""
    frames = torch.from_numpy(np.stack([w.frames for w in streams]))
    return np.sort(model(frames)[:, WARM_UP : WARM_UP + WEEK].numpy(), axis=-1)


def table(found: Forecasts, torchs: np.ndarray, everything: list[Station]) -> dict[str, dict[str, float]]:
    """Pinball loss, coverage of 10..90 %, and the mean error of the median, of each way of forecasting."""
    ways = {"GRU, streamed": found.said, "GRU, torch": torchs}
    for name, point in (("persistence", persistence), ("a day ago", a_day_ago)):
        ways[name] = per_station(found, everything, lambda known, own, point=point: with_errors(point, known, own))
    ways["statsmodels SARIMAX"] = per_station(found, everything, regression)
    return {
        name: {
            "pinball": pinball(said, found.truth),
            "coverage": coverage(said, found.truth),
            "median_error": float(np.abs(said[..., 2] - found.truth).mean()),
            "pinball_by_hours_ahead": {
                h: round(pinball(said[:, :, h - 1], found.truth[:, :, h - 1]), 4) for h in (1, 6, 12, 24)
            },
        }
        for name, said in ways.items()
    }


def per_station(found: Forecasts, everything: list[Station], forecast: Any) -> np.ndarray:
    """forecast(what is known before the held-out time, streams) of each station, in the streams' order."""
    parts = []
    for station in everything:
        own = [w for w in found.streams if w.key.startswith(station.name)]
        parts.append(forecast(split(station)[0], own))
    return np.concatenate(parts)


def timed(model: Path, streams: list[Week], steps: int = 300) -> dict[str, float]:
    """How fast 1,008 streams go, an hour of each at a time, decoding included."""
    engine = ut.Engine(model, max_streams=TIMED, decode=DECODE)
    offsets = [20 * i for i in range(TIMED // len(streams))]
    frames = np.stack(
        [w.frames[o : o + steps] for w in streams for o in offsets if o + steps <= WARM_UP + WEEK + AHEAD], 1
    )
    keys, seconds = list(range(frames.shape[1])), []
    for each in frames:
        begin = time.perf_counter()
        engine.step(keys, each)
        seconds.append(time.perf_counter() - begin)
    warm = seconds[20:]
    return {
        "streams": len(keys),
        "steps_per_s": round(len(keys) * len(warm) / sum(warm)),
        "p99_step_ms": round(float(np.percentile(warm, 99)) * 1e3, 3),
    }
