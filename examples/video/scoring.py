"""How right the answers are: by frame, by event, and how late."""

from dataclasses import dataclass, field

import numpy as np
from events import LABELS, NORMAL, Event

TOLERANCE = 5  # frames after an event's end, or before its begin, that an announcement still counts in


@dataclass(frozen=True, slots=True)
class Announced:
    """At frame `known` it was told that `label` is there."""

    label: int
    known: int


@dataclass(slots=True)
class Tally:
    """Of one label: events that were announced, announcements of nothing, events that were missed, and delays in frames."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    delays: list[int] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


def tallies(truth: list[list[Event]], announced: list[list[Announced]]) -> list[Tally]:
    """One for each label, over recordings. An event is announced once: a second announcement of it is one of nothing."""
    counts = [Tally() for _ in LABELS]
    for events, told in zip(truth, announced, strict=True):
        found: set[int] = set()
        for one in told:
            if one.label == NORMAL:
                continue
            hit = next((i for i, e in enumerate(events) if i not in found and _tells_of(one, e)), None)
            if hit is None:
                counts[one.label].wrong += 1
            else:
                found.add(hit)
                counts[one.label].right += 1
                counts[one.label].delays.append(one.known - events[hit].begin)
        for i, e in enumerate(events):
            counts[e.label].missed += i not in found
    return counts


def _tells_of(one: Announced, event: Event) -> bool:
    return one.label == event.label and event.begin - TOLERANCE <= one.known < event.end + TOLERANCE


def mean_f1(counts: list[Tally]) -> float:
    """Of events, over the seven labels."""
    return float(np.mean([t.f1 for t in counts[NORMAL + 1 :]]))


def changes(guess: np.ndarray, least: int) -> list[Announced]:
    """What is told of labels (T,) frame by frame: another label than before when it came `least` times one after the other; the first at once."""
    told: list[Announced] = []
    run, before = 0, -1
    for t, label in enumerate(guess.tolist()):
        run = run + 1 if label == before else 1
        before = label
        if not told or (label != told[-1].label and run >= least):
            told.append(Announced(label, t))
    return told


def held(told: list[Announced], length: int) -> np.ndarray:
    """The label that holds at each frame (length,), by what was told."""
    labels = np.zeros(length, np.int64)
    for one in told:
        labels[one.known :] = one.label
    return labels
