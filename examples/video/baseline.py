"""What thresholds reach on the same recordings: on the difference of frames, on the Laplacian's variance, on brightness.

These are the plain ways of such monitoring: a large difference is a cut, none is a freeze, one that stays large is a camera that moves; a
Laplacian that is much weaker than it was is defocus; a picture of one shade is covered; brightness that swings is flicker.
Zoom is never named: a difference does not tell it from a pan. The thresholds are the best that were found for training recordings.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from events import COVER, CUT, DEFOCUS, FLICKER, FREEZE, NORMAL, PAN, Recording, events_of
from scoring import Announced, changes, mean_f1, tallies

SPAN = 12  # frames that a frame is compared with


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In the order of the rules, the first of which that holds gives the label."""

    cut: float = 25  # mean difference of two frames, above, and `jump` times the largest in SPAN frames before
    jump: float = 2.5
    cover: float = 14  # deviation of a frame's pixels, below
    freeze: float = 0.2  # the difference, below
    flicker: float = 4  # median of how much brightness changed in SPAN frames before, above
    defocus: float = 0.35  # variance of the Laplacian over its largest in 5 * SPAN frames before, below
    pan: float = 7  # the least difference in half a SPAN, above
    lasts: int = 3  # frames that a label lasts before it is told


GRID = {
    "freeze": (0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4),
    "cut": (10, 15, 20, 25, 30, 40, 50, 60),
    "jump": (1, 1.5, 2, 2.5, 4),
    "cover": (6, 10, 14, 18, 24, 30),
    "flicker": (2, 3, 4, 6, 8, 12, 16, 24),
    "defocus": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "pan": (3, 4, 5, 6, 7, 8, 10, 14, 20, 28),
    "lasts": (1, 2, 3, 5, 8),
}


def measured(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Of each frame (T,), from it and those before it: difference, its largest and least before, deviation, swing, sharpness."""
    x = frames.astype(np.float32)
    difference = np.zeros(len(x))
    difference[1:] = np.abs(np.diff(x, axis=0)).mean((1, 2))
    difference[0] = 1  # nothing is known of it: neither a freeze nor a cut
    middle, around = x[:, 1:-1, 1:-1], x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    laplacian = (around - 4 * middle).var((1, 2))
    brightness = x.mean((1, 2))
    steps = np.abs(np.diff(brightness, prepend=brightness[:1]))
    return {
        "difference": difference,
        "largest": before(difference, SPAN, np.max),
        "least": np.minimum(difference, before(difference, SPAN // 2, np.min)),
        "deviation": x.std((1, 2)),
        "swing": before(steps, SPAN, np.median),
        "sharpness": laplacian / np.maximum(before(laplacian, 5 * SPAN, np.max), 1e-6),
    }


def before(values: np.ndarray, span: int, what: Callable[[np.ndarray], Any]) -> np.ndarray:
    """`what` of the `span` values before each, of fewer at the beginning."""
    return np.array([what(values[max(t - span, 0) : max(t, 1)]) for t in range(len(values))])


def labelled(seen: dict[str, np.ndarray], by: Thresholds) -> np.ndarray:
    """A label of each frame (T,); a cut lasts for as long as a label has to."""
    cut = (seen["difference"] > by.cut) & (seen["difference"] > by.jump * seen["largest"])
    rules = (
        (CUT, np.convolve(cut, np.ones(by.lasts))[: len(cut)] > 0),
        (COVER, seen["deviation"] < by.cover),
        (FREEZE, seen["difference"] < by.freeze),
        (FLICKER, seen["swing"] > by.flicker),
        (DEFOCUS, seen["sharpness"] < by.defocus),
        (PAN, seen["least"] > by.pan),
    )
    return np.select([holds for _, holds in rules], [label for label, _ in rules], NORMAL)


def announced(seen: list[dict[str, np.ndarray]], by: Thresholds) -> list[list[Announced]]:
    return [changes(labelled(one, by), by.lasts) for one in seen]


def chosen(recordings: list[Recording], rounds: int = 2) -> Thresholds:
    """The thresholds that are best on these recordings, one after the other, twice."""
    seen, truth = [measured(r.frames) for r in recordings], [events_of(r.labels) for r in recordings]
    best = Thresholds()
    for _ in range(rounds):
        for name in (f.name for f in fields(Thresholds)):
            tried = [replace(best, **{name: value}) for value in GRID[name]]
            best = max(tried, key=lambda by: mean_f1(tallies(truth, announced(seen, by))))
    return best
