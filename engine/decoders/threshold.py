"""`[decode] type = "threshold"`: where a value begins and ends to be high, or low: speech, alarms."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from numba import njit, types

from ..artifact import StateSpec, TensorSpec
from ..cache import load_static
from ..errors import ConfigError
from .choosing import chosen_output, seconds
from .decoder import About, Decoder, Events, Outputs

Outputs_ = Annotated[int, msgspec.Meta(ge=1)]


class Threshold(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="threshold"
):
    """An event where a value has been at `on` or above for `min_on` outputs, and one where it has then been below `off` for `min_off`.

    output: which one, where the model has several. value: of an output with several values the index of this one, or its label.
    off: `on` where not given. below: it is on where the value is at `on` or below, and off above `off`.
    names: of the two events. `event`: the name; `begin`: the first output (or input frame, in a chain) of those that decided it,
    `begin_s` in seconds where the model's rate is known; `duration`: of the second event, from the first one's begin to its own, in
    outputs (frames); `confidence`: the value's mean, of the first event over the outputs that decided it, of the second over `duration`.
    A stream that ends while it is on has the second event at its end.
    """

    on: float
    off: float | None = None
    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    value: int | str | None = None
    below: bool = False
    min_on: Outputs_ = 1
    min_off: Outputs_ = 1
    names: tuple[str, str] = ("start", "end")

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model has not what it needs."""
        output = chosen_output("threshold", about.spec, self.output)
        off = self.on if self.off is None else self.off
        if math.isnan(self.on) or math.isnan(off):
            raise ConfigError(
                f"[decode] off = {off} and on = {self.on}: expected numbers that a value can be compared with"
            )
        if (off > self.on) != self.below and off != self.on:
            raise ConfigError(
                f"[decode] off = {off} and on = {self.on}: expected off {'at or above' if self.below else 'at or below'} on"
            )
        return OnAndOff(self, output, _place(self, output.shape, about), off, about.place_s)


def _place(config: Threshold, shape: tuple[int, ...], about: About) -> int:
    """Which of the output's values it is."""
    size, value = int(np.prod(shape)), config.value
    if value is None:
        if size != 1:
            raise ConfigError(
                f"[decode] type = 'threshold': the output has shape {shape}; say which of its values with value = an index, or a label"
            )
        return 0
    labels = list(about.spec.labels or ())
    if isinstance(value, str):
        if value not in labels or len(labels) != size:
            raise ConfigError(f"[decode] value = {value!r} is no label of the model, which has {labels}")
        return labels.index(value)
    if not 0 <= value < size:
        raise ConfigError(
            f"[decode] value = {value}: the output has {size} values, expected an index from 0 to {size - 1}"
        )
    return value


_STATES = (("sum", "float64"), ("begin", "int64"), ("run_sum", "float64"), ("run_begin", "int64"), ("run", "int64"),
           ("outputs", "int64"), ("last", "int64"), ("on", "int8"))  # fmt: skip


class OnAndOff:
    """Hysteresis over the streams' rows."""

    spare = 0
    states = tuple(StateSpec(f"decode.{n}", f"decode.{n}", (), dtype) for n, dtype in _STATES)  # pyright: ignore[reportArgumentType]

    def __init__(self, config: Threshold, output: TensorSpec, place: int, off: float, place_s: float | None):
        self._output, self._size = output.name, int(np.prod(output.shape))
        self._place, self._place_s = place, place_s
        sign = -1.0 if config.below else 1.0
        self._limits = (sign, sign * config.on, sign * off, config.min_on, config.min_off)
        self._names = np.array(config.names)

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        values = outputs.values[self._output]
        values = np.ascontiguousarray(values.reshape(len(values), self._size)[:, self._place])
        what, begin, duration = np.full(len(values), -1, np.int8), *(np.zeros(len(values), np.int64) for _ in range(2))
        confidence = np.zeros(len(values), np.float32)
        states = [columns[s.name] for s in self.states]
        compiled().on_and_off(
            outputs.slots, outputs.counts, outputs.at, *self._limits, *states, values, what, begin, duration, confidence
        )
        rows = np.flatnonzero(what >= 0)
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)[rows]
        return Events(streams, rows, self._told(what[rows], begin[rows], duration[rows], confidence[rows]))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        column = {s.name.removeprefix("decode."): columns[s.name] for s in self.states}
        streams = np.flatnonzero(column["on"][slots] == 1)
        on = slots[streams]
        end = column["last"][on] + 1
        dips = column["run"][on]  # a last one that did not last belongs to what is on
        total = column["sum"][on] + np.where(dips > 0, column["run_sum"][on], 0)
        mean = (total / (column["outputs"][on] + dips)).astype(np.float32)
        values = self._told(np.ones(len(on), np.int8), end, end - column["begin"][on], mean)
        return Events(streams, np.full(len(on), -1), values)

    def _told(
        self, what: np.ndarray, begin: np.ndarray, duration: np.ndarray, confidence: np.ndarray
    ) -> dict[str, np.ndarray]:
        told = {"event": self._names[what], "begin": begin} | seconds(begin, self._place_s)
        told["duration"] = duration
        if self._place_s is not None:
            told["duration_s"] = duration * self._place_s
        return told | {"confidence": confidence}


@njit(nogil=True)
def on_and_off(
    slots, counts, at, sign, on, off, min_on, min_off,
    sums, begins, run_sums, run_begins, runs, outputs, lasts, ons,
    values, what, begin, duration, confidence,
):  # fmt: skip
    """values (R,) -> what (R,): 0 it begins, 1 it ends, -1 neither; begin, duration, confidence (R,) of those.

    The middle ones are columns of the arena, (S,). A run is of outputs that ask for the other state, one after the other.
    """
    row = 0
    for i in range(slots.size):
        slot = slots[i]
        for _ in range(counts[i]):
            x = np.float64(values[row])
            is_on = ons[slot] == 1
            turns = sign * x < off if is_on else sign * x >= on
            if turns:
                if runs[slot] == 0:
                    run_begins[slot], run_sums[slot] = at[row], 0.0
                runs[slot] += 1
                run_sums[slot] += x
            elif runs[slot] > 0:
                if is_on:  # the values of a dip that did not last belong to what is on
                    sums[slot] += run_sums[slot]
                    outputs[slot] += runs[slot]
                runs[slot] = 0
            if is_on and not turns:
                sums[slot] += x
                outputs[slot] += 1
            if turns and not is_on and runs[slot] >= min_on:
                what[row], begin[row] = 0, run_begins[slot]
                confidence[row] = run_sums[slot] / runs[slot]
                begins[slot], sums[slot], outputs[slot] = run_begins[slot], run_sums[slot], runs[slot]
                ons[slot], runs[slot] = 1, 0
            elif turns and is_on and runs[slot] >= min_off:
                what[row], begin[row], duration[row] = 1, run_begins[slot], run_begins[slot] - begins[slot]
                confidence[row] = sums[slot] / outputs[slot]
                ons[slot], runs[slot] = 0, 0
            lasts[slot] = at[row]
            row += 1


@cache
def compiled() -> Any:
    """The loop, compiled once a process."""
    i64, f64 = types.int64, types.float64
    columns = [types.Array(kind, 1, "A") for kind in (f64, i64, f64, i64, i64, i64, i64, types.int8)]
    signature = (
        i64[::1], i64[::1], i64[::1], f64, f64, f64, i64, i64, *columns,
        types.float32[::1], types.int8[::1], i64[::1], i64[::1], types.float32[::1],
    )  # fmt: skip
    return load_static([on_and_off], {"on_and_off": [signature]})
