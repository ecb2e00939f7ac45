"""`[decode] type = "quantiles"`: forecasts as quantiles, for the steps that a model foretells, or for more by feeding back what it says."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import numpy as np

from ..artifact import StateSpec, TensorSpec
from ..errors import ConfigError
from ..ragged import ranges
from .choosing import chosen_output, not_in_chain
from .decoder import About, Decoder, Events, Outputs
from .feedback import Feedback, fed_inputs

Level = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Quantiles(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="quantiles"
):
    """A value for each level, `p10` of 0.1 and so on: one number an output of shape (Q,), (H,) numbers of one of (H, Q), H steps ahead.

    output: which one, where the model has several. levels: of its last axis, each higher than the one before.
    scale, offset: the output times scale plus offset is in the user's unit.
    Quantiles that cross are sorted, which takes them nearer to the true ones, never away (Chernozhukov, Fernández-Val, Galichon 2010).

    ahead: steps ahead, of an output (Q,) that is of the next step. A copy of the stream goes on by itself, with what it says fed back,
    and each value is (ahead,); the stream is not touched. feed: by input the level that is fed to it, in the model's own unit, or the
    name of an output; not needed where the model has one input, which gets the middle level. What is told of a later step are the
    quantiles after exactly this path of fed values, not after all that may come.
    every: only for each so-many-th output of a stream, the first one that has so many.
    """

    levels: Annotated[tuple[Level, ...], msgspec.Meta(min_length=1)]
    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    offset: float = 0.0
    ahead: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    feed: dict[str, str | Level] | None = None
    every: Annotated[int, msgspec.Meta(ge=1)] = 1

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model has not what it needs."""
        output = chosen_output("quantiles", about.spec, self.output)
        self._check(output)
        if self.ahead is None:
            return Forecasts(self, output, None)
        not_in_chain(f"ahead = {self.ahead}", about)
        if len(output.shape) != 1:
            raise ConfigError(
                f"[decode] ahead = {self.ahead}: output '{output.name}' has shape {output.shape}, expected ({len(self.levels)},): the next step's"
            )
        return Forecasts(
            self, output, Feedback(about.spec, self.ahead, fed_inputs(self.feed, about.spec, output, self.levels))
        )

    def _check(self, output: TensorSpec) -> None:
        if any(b <= a for a, b in pairwise(self.levels)):
            raise ConfigError(f"[decode] levels = {list(self.levels)}: expected each higher than the one before")
        if len(output.shape) not in (1, 2) or output.shape[-1] != len(self.levels):
            n = len(self.levels)
            raise ConfigError(
                f"[decode] levels: there are {n}, output '{output.name}' has shape {output.shape}, expected ({n},) or (steps, {n})"
            )
        if not np.isfinite([self.scale, self.offset]).all():
            raise ConfigError(f"[decode] scale = {self.scale}, offset = {self.offset}: expected finite numbers")
        if self.feed is not None and self.ahead is None:
            raise ConfigError(
                "[decode] feed: says what is fed back, which only ahead asks for; give ahead, or leave feed out"
            )


class Forecasts:
    """Each output by itself, in the user's unit; with `feedback` the outputs that come after it."""

    def __init__(self, config: Quantiles, output: TensorSpec, feedback: Feedback | None):
        self._config, self._output, self._feedback = config, output.name, feedback
        self._names = [f"p{round(100 * level, 6):g}" for level in config.levels]
        self._shape = output.shape if feedback is None else (feedback.ahead, *output.shape)
        count = [StateSpec("decode.count", "decode.count", (), "int64")]
        self.states: Sequence[StateSpec] = (
            *(count if config.every > 1 else ()),
            *(feedback.states if feedback else ()),
        )
        self.spare = feedback.spare if feedback else 0

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        rows = self._due(columns, outputs)
        values = outputs.values[self._output]
        given = (
            values[rows] if self._feedback is None else self._feedback.ahead_of(columns, outputs, rows, self._output)
        )
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)[rows]
        return Events(streams, rows, self._told(given))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        none = np.zeros(0, np.int64)
        return Events(none, none, self._told(np.zeros((0, *self._shape), np.float32)), none)

    def _due(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> np.ndarray:
        """Which rows are told of."""
        if self._config.every == 1:
            return np.arange(int(outputs.counts.sum()))
        count = columns["decode.count"]
        before = count[outputs.slots]
        place = ranges(before, outputs.counts)
        count[outputs.slots] = (before + outputs.counts) % self._config.every
        return np.flatnonzero((place + 1) % self._config.every == 0)

    def _told(self, given: np.ndarray) -> dict[str, Any]:
        with np.errstate(invalid="ignore", over="ignore"):  # of outputs that are not finite
            unit = np.sort(given * np.float32(self._config.scale) + np.float32(self._config.offset), axis=-1)
        return {name: np.ascontiguousarray(unit[..., i]) for i, name in enumerate(self._names)}
