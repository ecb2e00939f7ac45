"""One recording as it was heard: log-mel energies, the labels that were likely, and the text so far."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from data import RATE_HZ
from matplotlib.axes import Axes
from model import STEP
from streaming import Partial
from texts import LABELS

STEP_S = STEP / RATE_HZ


def draw(path: Path, energies: np.ndarray, outputs: np.ndarray, partials: list[Partial], truth: str) -> None:
    """energies (2 T, mels), outputs (T, labels) log-probabilities. Writes a PNG."""
    figure, (above, middle, below) = plt.subplots(
        3, 1, sharex=True, figsize=(10, 6.4), height_ratios=(2, 3, 3), layout="constrained"
    )
    end_s = len(outputs) * STEP_S
    above.imshow(energies.T, origin="lower", aspect="auto", extent=(0, end_s, 0, energies.shape[1]), cmap="magma")
    above.set(ylabel="mel", yticks=(), title=f"said: “{truth}”")
    _labels(middle, np.exp(outputs))
    _texts(below, partials)
    below.set(xlabel="seconds of the stream that were given", xlim=(0, end_s))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _labels(axes: Axes, likely: np.ndarray) -> None:
    """A curve for each label that is ever likely, its letter at its peaks; the blank in grey."""
    at = (np.arange(len(likely)) + 1) * STEP_S
    axes.plot(at, likely[:, 0], color="0.8", label="blank")
    for k in range(1, len(LABELS)):
        curve = likely[:, k]
        if curve.max() < 0.3:
            continue
        (line,) = axes.plot(at, curve)
        inner = np.r_[0, curve, 0]
        for peak in np.flatnonzero((curve > 0.3) & (curve >= inner[:-2]) & (curve > inner[2:])):
            axes.annotate(
                "␣" if LABELS[k] == " " else LABELS[k],
                (at[peak], curve[peak] + 0.02),
                ha="center",
                color=line.get_color(),
            )
    axes.set(ylabel="probability", ylim=(0, 1.15))


def _texts(axes: Axes, partials: list[Partial]) -> None:
    """The text so far, a line for each time that a word came or changed."""
    changed = [p for i, p in enumerate(partials) if i == 0 or p.text.split()[:-1] != partials[i - 1].text.split()[:-1]]
    shown = [*changed, partials[-1]] if partials else []
    for line, partial in enumerate(shown):
        axes.plot([0, partial.at_s], [-line, -line], color="0.85", zorder=0)
        axes.annotate(partial.text, (partial.at_s, -line), ha="right", va="bottom", fontsize=8)
    axes.set(yticks=(), ylim=(-len(shown), 1), ylabel="text so far")


def draw_delays(path: Path, late_ms: list[float]) -> None:
    """How many words appeared within so many ms of their end. Writes a PNG."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ordered = np.sort(late_ms)
    axes.step(ordered, (np.arange(len(ordered)) + 1) / len(ordered), where="post")
    for share in (0.5, 0.9):
        at = float(np.quantile(ordered, share))
        axes.plot(at, share, "o", color="C0")
        axes.annotate(f"{at:.0f} ms", (at, share), (8, -10), textcoords="offset points")
    axes.set(
        xlabel="ms of the stream from a word's end until it is heard and stays", ylabel="share of words", ylim=(0, 1.03)
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
