"""A piano roll: what Bach wrote, and what the network made of the same beginning."""

from pathlib import Path

import matplotlib
import numpy as np
from data import VOICES
from matplotlib import pyplot
from sounding import notes

COLOURS = ("#b2182b", "#ef8a62", "#67a9cf", "#2166ac")


def piano_rolls(rolls: dict[str, np.ndarray], given: int, bar: int, path: Path) -> None:
    """A panel for each title with its rows (T, 4); the first `given` rows are shaded, lines stand at bars."""
    matplotlib.use("agg")
    length = max(map(len, rolls.values()))
    figure, panels = pyplot.subplots(len(rolls), 1, figsize=(10, 2.6 * len(rolls)), sharex=True, layout="constrained")
    for panel, (title, rows) in zip(np.atleast_1d(panels), rolls.items(), strict=True):
        for name, colour, voice in zip(VOICES, COLOURS, rows.T, strict=True):
            sung = notes(voice)
            begins, lengths = [b for b, _, _ in sung], [e - b - 0.25 for b, e, _ in sung]
            panel.barh([p for _, _, p in sung], lengths, 0.8, begins, color=colour, label=name)
        panel.axvspan(0, given, color="0.93", zorder=0)
        panel.set_xticks(np.arange(0, length + 1, bar), np.arange(1, length // bar + 2))
        panel.grid(axis="x", linewidth=0.4)
        panel.set(title=title, ylabel="MIDI pitch", xlim=(0, length))
    panel.set_xlabel("bar")
    panel.legend(ncols=4, loc="lower right", fontsize=7)
    figure.savefig(path)
    pyplot.close(figure)
