"""One step graph from frames to outputs, and a decoder behind it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .artifact import StepSpec
from .collected import Collected
from .decoders import Decoder, Events, Outputs
from .decoders.decoder import joined
from .errors import UndertowError
from .given import Given
from .index import Key
from .ragged import ranges
from .section import Section
from .stage import Stage

if TYPE_CHECKING:
    from .numba_backend import NumbaBackend
    from .reading import Reader


class Decoded:
    """A decoder and its section of the rows. stage: what gives the outputs."""

    def __init__(self, decoder: Decoder, section: Section, stage: Stage):
        self.decoder, self.section, self.columns, self.stage = decoder, section, section.columns(), stage

    def events(
        self,
        slots: np.ndarray,
        rows: np.ndarray,
        outputs: list[np.ndarray],
        before: np.ndarray,
        inputs: list[np.ndarray],
    ) -> Events:
        """What the decoder makes of rows[i] outputs of each stream. before: outputs that each had given before these, int64 (B,)."""
        spec = self.stage.spec
        at = ranges(before, rows)
        frames = dict(zip((t.name for t in spec.inputs), inputs, strict=True)) if spec.at_once and inputs else {}
        events = self.decoder.events(self.columns, outputs_of(spec, slots, rows, outputs, at, frames, self.stage))
        events.at = at[events.rows]
        return events

    def ended(self, slots: np.ndarray, rows: np.ndarray, outputs: list[np.ndarray], before: np.ndarray) -> Events:
        """What it makes of streams' last outputs, and of their ends."""
        events = self.events(slots, rows, outputs, before, [])
        last = self.decoder.finish(self.columns, np.ascontiguousarray(slots))
        last.at = (before + rows - 1)[last.streams]
        return joined([events, last])


def outputs_of(
    spec: StepSpec,
    slots: np.ndarray,
    rows: np.ndarray,
    outputs: list[np.ndarray],
    at: np.ndarray,
    frames: Mapping[str, np.ndarray],
    stage: Stage,
) -> Outputs:
    """For a decoder, whose loops take arrays without gaps."""
    values = {t.name: np.ascontiguousarray(y) for t, y in zip(spec.outputs, outputs, strict=True)}
    return Outputs(np.ascontiguousarray(slots), np.ascontiguousarray(rows), values, at, frames, stage)


class Single:
    """A step graph. reader: its encoder, where it has one; then streams begin with a source, see `Engine.read`."""

    collected: Collected | None = None

    def __init__(self, stage: Stage, decoded: Decoded | None, reader: "Reader | None"):
        self.stage, self.decoded, self.reader = stage, decoded, reader
        self.spec, self.intake = stage.spec, stage.intake

    @property
    def backend(self) -> str:
        return self.stage.backends.name

    @property
    def direct(self) -> "NumbaBackend | None":
        """The compiled program, where nothing stands between it and a frame of any stream."""
        plain = self.decoded is None and self.reader is None and not self.stage.backends.limits
        return self.stage.backends.direct if plain else None

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        if self.reader is None:
            return {}
        lengths = self.stage.section.column(self.reader.spec.length)
        return self.reader.refusals(keys, np.where(slots >= 0, lengths[slots], 0))

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        outputs, rows = self.stage.advance(slots, counts, inputs, now)
        if self.decoded is None:
            return Given(outputs, rows)
        before = self.stage.ready(self.stage.section.frames[slots]) - rows
        return Given(outputs, rows, self.decoded.events(slots, rows, outputs, before, inputs))

    def seen(self, slots: np.ndarray) -> np.ndarray:
        return self.stage.section.frames[slots]

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        before = self.stage.ready(self.stage.section.frames[slots])
        tails = [self.stage.flush(slot, now) for slot in slots.tolist()] or [self.stage.nothing()]
        rows = np.array([len(tail[0]) for tail in tails[: len(slots)]], np.int64)
        outputs = [np.concatenate(parts) for parts in zip(*tails, strict=True)]
        if self.decoded is None:
            return Given(outputs, rows), {}
        return Given(outputs, rows, self.decoded.ended(slots, rows, outputs, before)), {}
