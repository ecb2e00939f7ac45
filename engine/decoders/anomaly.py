"""`[decode] type = "anomaly"`: how large an error is beside those so far, and where a stream begins and ends to be anomalous.

What is kept of the errors is DDSketch (Masson, Rim, Lee 2019): weights in bins whose limits grow by a factor, so that a quantile is
right to within 5 % of itself, over the bins' range of eight decimal orders. New errors weigh more and more (forward decay, Cormode
et al. 2009), which forgets the old ones exactly, so it follows a drift; P² (Jain, Chlamtac 1985) is smaller, but its outer markers
never forget, and nothing bounds its error.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numba import njit, types

from ..artifact import StateSpec, StepSpec, TensorSpec
from ..cache import load_static
from ..errors import ConfigError
from .choosing import chosen, chosen_output, not_in_chain, seconds
from .decoder import About, Decoder, Events, Outputs

Count = Annotated[int, msgspec.Meta(ge=1)]


class Anomaly(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="anomaly"):
    """`score` of each output: its error over the running `quantile` of the stream's errors before it (1: as large); and `anomalous`.

    of: "score": the output is an error itself, one value, where less than 0 counts as 0. "prediction": it is the next frame of `input`, and
    the error is the mean absolute difference between the two; a stream's first frame was not predicted and has no event.
    output, input: which ones, where the model has several.
    half_life: an error's weight among the others halves after so many. warm_up: so many are only learned from.
    on, min_on: anomalous from scores of `on` or above, `min_on` times one after the other; off, min_off: until scores below `off`
    (`on`, where not given), `min_off` times one after the other.
    emit: an event for each error, or only where it becomes anomalous or ceases to be, then with `begin`: the first output (or input
    frame, in a chain) of those that decided it, `begin_s` the same in seconds where the model's rate is known, and `peak`: the highest
    score of what begins or ends. A stream that ends anomalous has that event at its end.
    Scores end at a million; that of an error that is not finite is a million, and it is not learned from.
    """

    of: Literal["score", "prediction"] = "score"
    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    input: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.99
    half_life: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    warm_up: Count = 100
    on: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    off: Annotated[float, msgspec.Meta(gt=0)] | None = None
    min_on: Count = 1
    min_off: Count = 1
    emit: Literal["every", "changes"] = "every"

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model has not what it needs."""
        output = chosen_output("anomaly", about.spec, self.output)
        if self.off is not None and self.off > self.on:
            raise ConfigError(f"[decode] off = {self.off} and on = {self.on}: expected off at or below on")
        if self.of == "prediction":
            not_in_chain("of = 'prediction'", about)
            return Anomalies(self, output, about.place_s, predicted_input(self.input, about.spec, output).name)
        if self.input is not None:
            raise ConfigError(f"[decode] input = {self.input!r}: only of = 'prediction' compares with an input")
        if math.prod(output.shape) != 1:
            raise ConfigError(
                f"[decode] of = 'score': output '{output.name}' has shape {output.shape}, expected one value; "
                "where it predicts the next frame of an input, of = 'prediction'"
            )
        return Anomalies(self, output, about.place_s, None)


def predicted_input(name: str | None, spec: StepSpec, output: TensorSpec) -> TensorSpec:
    """The input of this name, or the only one, whose next frame the output can be. Raises ConfigError."""
    found = chosen("of = 'prediction'", "input", spec.inputs, name)
    if (found.dtype, math.prod(found.shape)) != (output.dtype, math.prod(output.shape)):
        raise ConfigError(
            f"[decode] of = 'prediction': output '{output.name}' is {output.dtype} {output.shape}, "
            f"input '{found.name}' is {found.dtype} {found.shape}; expected the same number of float32 values"
        )
    if not spec.at_once:
        kind = (
            "of whole sequences"
            if spec.sequence
            else f"with {spec.frames_per_step} frames a step and delay {spec.delay}"
        )
        raise ConfigError(
            f"[decode] of = 'prediction': the model is one {kind}; each frame has to have its output at once"
        )
    return found


BINS = 192
ACCURACY = 0.05
_GROWTH = math.log((1 + ACCURACY) / (1 - ACCURACY))
_MIDDLE = math.log(
    2 / (1 + math.exp(-_GROWTH))
)  # from a bin's lower limit to its value, so that both limits are 5 % off
_TINY, _TOP = 1e-30, 1e6
_HEAVY = 2.0**20  # a weight at which all are made light again
_NOWHERE = 1 << 20  # the base of bins that never held anything

_STATES = (
    ("seen", "int64", 0), ("run", "int64", 0), ("run_begin", "int64", 0), ("last", "int64", 0), ("weight", "float64", 0),
    ("base", "int32", _NOWHERE), ("place", "int32", -1), ("zeros", "float32", 0), ("run_peak", "float32", 0),
    ("peak", "float32", 0), ("on", "int8", 0),
)  # fmt: skip


class Anomalies:
    """Over the streams' rows. input: whose next frame the output is; None: the output is the error."""

    spare = 0

    def __init__(self, config: Anomaly, output: TensorSpec, place_s: float | None, input: str | None):
        self._config, self._output, self._place_s, self._input = config, output.name, place_s, input
        self._size = math.prod(output.shape)
        self._limits = (
            0.5 ** (1 / config.half_life), config.quantile, config.warm_up + (input is not None),
            config.on, config.on if config.off is None else config.off, config.min_on, config.min_off,
        )  # fmt: skip
        self.states = (
            *(StateSpec(f"decode.{n}", f"decode.{n}", (), dtype, initial) for n, dtype, initial in _STATES),  # pyright: ignore[reportArgumentType]
            StateSpec("decode.bins", "decode.bins", (BINS,), "float32"),
            *([StateSpec("decode.prediction", "decode.prediction", (self._size,), "float32")] if input else []),
        )

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        errors = self._errors(columns, outputs)
        score, peak = (np.zeros(len(errors), np.float32) for _ in range(2))
        anomalous, changed = (np.zeros(len(errors), np.int8) for _ in range(2))
        begin = np.zeros(len(errors), np.int64)
        states = [columns[s.name] for s in self.states[: len(_STATES) + 1]]
        compiled().anomalies(
            outputs.slots, outputs.counts, outputs.at, *self._limits, *states, errors, score, anomalous, changed, begin, peak
        )  # fmt: skip
        rows = np.flatnonzero(errors != -1 if self._config.emit == "every" else changed)
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)[rows]
        return Events(streams, rows, self._told(score[rows], anomalous[rows] == 1, begin[rows], peak[rows]))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        wanted = columns["decode.on"][slots] == 1 if self._config.emit == "changes" else np.zeros(len(slots), np.bool_)
        streams = np.flatnonzero(wanted)
        ends, peak = columns["decode.last"][slots[streams]] + 1, columns["decode.peak"][slots[streams]]
        none = np.zeros(len(streams))
        return Events(streams, np.full(len(streams), -1), self._told(none.astype(np.float32), none > 0, ends, peak))

    def _errors(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> np.ndarray:
        """float32 (R,); -1 where there is none."""
        given = outputs.values[self._output].reshape(-1, self._size)
        if self._input is None:
            return np.maximum(given[:, 0], np.float32(0))
        errors = np.empty(len(given), np.float32)
        if not len(given):
            return errors
        frames = np.ascontiguousarray(outputs.frames[self._input]).reshape(-1, self._size)
        compiled().differences(
            outputs.slots, outputs.counts, columns["decode.seen"], columns["decode.prediction"], given, frames, errors
        )
        return errors

    def _told(
        self, score: np.ndarray, anomalous: np.ndarray, begin: np.ndarray, peak: np.ndarray
    ) -> dict[str, np.ndarray]:
        if self._config.emit == "every":
            return {"score": score, "anomalous": anomalous}
        return {"anomalous": anomalous, "begin": begin} | seconds(begin, self._place_s) | {"peak": peak}


@njit(nogil=True)
def differences(slots, counts, seen, predictions, outputs, frames, errors):
    """errors[r] = mean |frames[r] - the output before it|, (R,), -1 of a stream's first; outputs, frames (R, N).

    seen (S,), predictions (S, N): columns of the arena; the last output stays there.
    """
    row, size = 0, outputs.shape[1]
    for i in range(slots.size):
        slot = slots[i]
        for k in range(counts[i]):
            if k == 0 and seen[slot] == 0:
                errors[row] = np.float32(-1)
            else:
                total = 0.0
                for n in range(size):
                    before = predictions[slot, n] if k == 0 else outputs[row - 1, n]
                    total += abs(np.float64(frames[row, n]) - np.float64(before))
                errors[row] = np.float32(total / size)
            row += 1
        if counts[i]:
            for n in range(size):
                predictions[slot, n] = outputs[row - 1, n]


@njit(nogil=True)
def place_of(quantile, zeros, bins):
    """The bin in which the weighted quantile is; -1: it is zero."""
    total = np.float64(zeros)
    for b in range(bins.size):
        total += bins[b]
    wanted, below = quantile * total, np.float64(zeros)
    place = -1
    while below < wanted:
        place += 1
        below += bins[place]
    return place


@njit(nogil=True)
def shift(bins, by):
    """Moves what is in the bins `by` places up; what would leave them at an end stays in the last bin there."""
    last = bins.size - 1
    if by > 0:
        for b in range(last, -1, -1):
            weight = bins[b]
            bins[b] = 0
            bins[min(b + by, last)] += weight
    else:
        for b in range(bins.size):
            weight = bins[b]
            bins[b] = 0
            bins[max(b + by, 0)] += weight


@njit(nogil=True)
def learn(error, slot, decay, quantile, weights, bases, places, zeros, bins):
    """Adds one error to a stream's bins, and moves them where the quantile came to be at their end."""
    room = bins[slot]
    weights[slot] = 1.0 if weights[slot] == 0 else weights[slot] / decay
    if weights[slot] > _HEAVY:
        for b in range(room.size):
            room[b] /= weights[slot]
        zeros[slot] /= weights[slot]
        weights[slot] = 1.0
    if error < _TINY:
        zeros[slot] += weights[slot]
        bin = np.int64(_NOWHERE)
    else:
        bin = np.int64(math.floor(math.log(error) / _GROWTH))
    while True:
        bases[slot] = bin - room.size // 2 if bases[slot] == _NOWHERE and bin != _NOWHERE else bases[slot]
        spot = min(max(bin - bases[slot], 0), room.size - 1)
        kept = room[spot]
        room[spot] += weights[slot] if bin != _NOWHERE else 0.0
        places[slot] = place_of(quantile, zeros[slot], room)
        if 0 < places[slot] < room.size - 1 or places[slot] < 0:
            return
        room[spot] = kept
        by = room.size // 4 if places[slot] == 0 else -(room.size // 4)
        shift(room, by)
        bases[slot] -= by


@njit(nogil=True)
def score_of(error, weight, base, place):
    """The error over the quantile that is in this place."""
    if not math.isfinite(error):
        return _TOP
    if weight == 0 or error < _TINY:
        return 0.0
    if place < 0:
        return _TOP
    return min(error / math.exp((place + base) * _GROWTH + _MIDDLE), _TOP)


@njit(nogil=True)
def anomalies(
    slots, counts, at, decay, quantile, warm_up, on, off, min_on, min_off,
    seen, runs, run_begins, lasts, weights, bases, places, zeros, run_peaks, peaks, ons, bins,
    errors, score, anomalous, changed, begin, peak,
):  # fmt: skip
    """errors (R,), below 0 where there is none -> score, anomalous, changed, begin, peak (R,) of each.

    The middle ones are columns of the arena, (S,), bins (S, BINS). A run is of errors that ask for the other state.
    """
    row = 0
    for i in range(slots.size):
        slot = slots[i]
        for _ in range(counts[i]):
            error = np.float64(errors[row])
            lasts[slot] = at[row]
            seen[slot] += 1
            if error < 0:
                row += 1
                continue
            s = score_of(error, weights[slot], bases[slot], places[slot])
            score[row] = s
            if math.isfinite(error):
                learn(error, slot, decay, quantile, weights, bases, places, zeros, bins)
            is_on = ons[slot] == 1
            turns = s < off if is_on else s >= on and seen[slot] > warm_up
            if turns:
                if runs[slot] == 0:
                    run_begins[slot], run_peaks[slot] = at[row], 0
                runs[slot] += 1
                run_peaks[slot] = max(run_peaks[slot], score[row])
            else:
                runs[slot] = 0
            if is_on:
                peaks[slot] = max(peaks[slot], score[row])
            if turns and runs[slot] >= (min_off if is_on else min_on):
                if not is_on:
                    peaks[slot] = run_peaks[slot]
                ons[slot], runs[slot] = 0 if is_on else 1, 0
                changed[row], begin[row], peak[row] = 1, run_begins[slot], peaks[slot]
            anomalous[row] = ons[slot]
            row += 1


def _column(kind: Any, rank: int = 1) -> types.Array:
    return types.Array(kind, rank, "A")


@cache
def compiled() -> Any:
    """The loops, compiled once a process."""
    i64, f64, i8, i32, f32 = types.int64, types.float64, types.int8, types.int32, types.float32
    whole, flat = i64[::1], f32[::1]
    found = (
        whole, whole, whole, f64, f64, i64, f64, f64, i64, i64,
        *[_column(kind) for kind in (i64, i64, i64, i64, f64, i32, i32, f32, f32, f32, i8)], _column(f32, 2),
        flat, flat, i8[::1], i8[::1], whole, flat,
    )  # fmt: skip
    apart = (whole, whole, _column(i64), _column(f32, 2), f32[:, ::1], f32[:, ::1], flat)
    return load_static([anomalies, differences], {"anomalies": [found], "differences": [apart]})
