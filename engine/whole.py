"""A graph of whole sequences from collected frames to outputs, and a decoder behind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .collected import Collected
from .errors import UndertowError
from .given import Given
from .index import Key
from .section import Section
from .single import Decoded
from .stage import Stage

if TYPE_CHECKING:
    from .sequences import Sequences


class Whole:
    """Frames are collected until their stream ends; then all of its outputs come at once."""

    def __init__(self, stage: Stage, sequences: "Sequences", decoded: Decoded | None):
        self.stage, self._sequences, self.decoded = stage, sequences, decoded
        self.spec, self.intake = stage.spec, stage.intake
        self.collected: Collected | None = sequences.frames
        self._gather = Gathering(sequences.frames, stage.section)

    @property
    def backend(self) -> str:
        return self._sequences.backend.name

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        return self._gather.refusals(keys, slots, counts)

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        self._gather.add(slots, counts, inputs, now)
        none, outputs = np.zeros_like(counts), self.stage.nothing()
        if self.decoded is None:
            return Given(outputs, none)
        return Given(outputs, none, self.decoded.events(slots, none, outputs, none, []))

    def seen(self, slots: np.ndarray) -> np.ndarray:
        return self.stage.section.frames[slots]

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        done, failed = self._sequences.finished(dict(enumerate(slots.tolist())))
        errors = {int(i): error for i, error in failed.items()}
        good = np.array([i for i in range(len(slots)) if i not in errors], np.int64)
        rows = np.zeros(len(slots), np.int64)
        rows[good] = [len(done[i][0]) for i in good.tolist()]
        outputs = [np.concatenate(p) for p in zip(*(done[i] for i in good.tolist()), strict=True)]
        outputs = outputs or self.stage.nothing()
        if self.decoded is None:
            return Given(outputs, rows), errors
        events = self.decoded.ended(slots[good], rows[good], outputs, np.zeros(len(good), np.int64))
        events.streams = good[events.streams]
        return Given(outputs, rows, events), errors


class Gathering:
    """Frames that wait for the ends of their streams, and the rows' counts of them."""

    def __init__(self, collected: Collected, section: Section):
        self._collected, self._section = collected, section

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        """The streams that may not collect so many frames more."""
        over = self._collected.over(slots, np.asarray(counts, np.int64)).tolist()
        return {keys[i]: self._collected.refusal(keys[i], int(slots[i]), int(counts[i])) for i in over}

    def add(self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int) -> None:
        """Each stream's next counts[i] rows of the inputs."""
        self._collected.add(slots, counts, inputs)
        self._section.frames[slots] += counts
        self._section.last_active[slots] = now
