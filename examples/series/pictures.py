"""Pictures: forecasts as they move, and the pressure with its scores."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from data import AHEAD
from weather import Forecasts

mpl.use("svg")
from matplotlib import pyplot as plt

INK, BAND, LINE = "#222222", "#2f7fb5", "#c2491d"
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "undertow",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def fans(found: Forecasts, key: str, path: Path, hours: tuple[int, ...] = (12, 42, 72, 102, 132)) -> None:
    """One week at a station: what was measured, and the day ahead as the stream said it at five of its hours."""
    i = next(i for i, w in enumerate(found.streams) if w.key == key)
    week = found.streams[i]
    begin = len(week.frames) - found.said.shape[1] - AHEAD
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    axis.plot(week.hours[begin:].astype("datetime64[s]"), week.frames[begin:, 0], color=INK, lw=1.2, label="measured")
    for hour in hours:
        said, at = found.said[i, hour], week.hours[begin + hour] + np.arange(1, AHEAD + 1)
        when = at.astype("datetime64[s]")
        axis.fill_between(
            when, said[:, 0], said[:, 4], color=BAND, alpha=0.18, lw=0, label="10 to 90 %" if hour == hours[0] else None
        )
        axis.fill_between(
            when, said[:, 1], said[:, 3], color=BAND, alpha=0.3, lw=0, label="25 to 75 %" if hour == hours[0] else None
        )
        axis.plot(when, said[:, 2], color=LINE, lw=1.2, label="median" if hour == hours[0] else None)
        axis.axvline(week.hours[begin + hour].astype("datetime64[s]"), color=INK, lw=0.6, ls=":")
    axis.set_ylabel("°C")
    axis.set_title(f"{key[:3]}, the next 24 hours as of five moments", loc="left", fontsize=10)
    axis.legend(frameon=False, ncols=4, loc="upper right", fontsize=8)
    axis.xaxis.set_major_formatter(mpl.dates.DateFormatter("%d %b"))
    _saved(figure, path)


def anomaly(
    series: np.ndarray, scores: np.ndarray, at: np.ndarray, odd: tuple[int, int], on: float, path: Path
) -> None:
    """Some frames around the anomaly: the pressure, and the score of each frame over all of the stream after the prefix."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 3.6), layout="constrained", height_ratios=(1, 1))
    part = slice(odd[0] - 500, odd[1] + 300)
    above.plot(np.arange(part.start, part.stop), series[part], color=INK, lw=0.9)
    above.axvspan(*odd, color=LINE, alpha=0.35, lw=0)
    above.set_ylabel("pressure")
    above.set_title("the series around its anomaly (marked), and every frame's score", loc="left", fontsize=10)
    below.plot(at, scores, color=BAND, lw=0.7)
    below.axhline(on, color=LINE, lw=0.8, ls="--")
    below.set(yscale="log", ylim=(0.01, None), ylabel="score", xlabel="frame")
    _saved(figure, path)


def _saved(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
