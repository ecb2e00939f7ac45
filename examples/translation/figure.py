"""A picture of where the decoder looked: one panel a sentence, a column for each English piece, a row for each French one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True, slots=True)
class Looked:
    """english (S,), french (F,): the pieces as they are written. attention: (F, S), each row sums to 1."""

    english: list[str]
    french: list[str]
    attention: np.ndarray


def draw(sentences: Sequence[Looked], path: Path) -> None:
    """Writes the picture; the panels are as wide as their sentences are long."""
    widths = [max(4, len(s.english)) for s in sentences]
    figure, panels = plt.subplots(
        1, len(sentences), figsize=(0.32 * sum(widths) + 1.3 * len(sentences), 4.6), width_ratios=widths, squeeze=False
    )
    for panel, s in zip(panels[0], sentences, strict=True):
        panel.imshow(s.attention, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        panel.set_xticks(range(len(s.english)), s.english, rotation=60, ha="left")
        panel.set_yticks(range(len(s.french)), s.french)
        panel.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0, labelsize=9)
        for side in panel.spines.values():
            side.set_color("#bbbbbb")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
