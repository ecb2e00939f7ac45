"""`[decode] type = "labels"`: what each output says is there, smoothed, and when that changes."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numba import njit, types

from ..artifact import DType, StateSpec
from ..cache import load_static
from ..errors import ConfigError
from .choosing import chosen_labels, chosen_output, probabilities, seconds
from .decoder import About, Decoder, Events, Outputs, no_events

Scores = Literal["logits", "log-probabilities", "probabilities"]


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="labels"):
    """`label` and `confidence` of each output: the likeliest over the last axis, and its probability.

    output: which one, where the model has several. labels: in place of the artifact's. scores: what the output holds.
    half_life: probabilities are averaged over the stream so far, with weights that halve after so many outputs. min_duration: another label is taken
    over when it has been the likeliest for so many outputs one after the other; the first one at once.
    top: how many `labels` and `confidences` are told beside the label, the likeliest first.
    emit: an event for each output, or only where the label is another one than before; then `begin` is the output (or
    input frame, in a chain) from which on it was the likeliest, `begin_s` the same in seconds where the model's rate is known.
    """

    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    labels: list[str] | None = None
    scores: Scores = "logits"
    half_life: Annotated[float, msgspec.Meta(gt=0)] | None = None
    min_duration: Annotated[int, msgspec.Meta(ge=1)] = 1
    top: Annotated[int, msgspec.Meta(ge=1)] = 1
    emit: Literal["every", "changes"] = "every"

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model has not what it needs."""
        output = chosen_output("labels", about.spec, self.output)
        names = chosen_labels("labels", about.spec, output, self.labels)
        if self.top > len(names):
            raise ConfigError(f"[decode] top = {self.top}: there are {len(names)} labels")
        plain = self.half_life is None and self.min_duration == 1 and self.emit == "every"
        if plain:
            return PlainLabels(self, output.name, names)
        if len(output.shape) > 1:
            raise ConfigError(
                f"[decode] half_life, min_duration, emit: output '{output.name}' has shape {output.shape}, expected ({len(names)},)"
            )
        return SteadyLabels(self, output.name, names, about.place_s)


class PlainLabels:
    """Each output by itself."""

    states: Sequence[StateSpec] = ()
    spare = 0

    def __init__(self, config: Labels, output: str, labels: list[str]):
        self._config, self._output, self._labels = config, output, np.array(labels)

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        scores = outputs.values[self._output]
        best = scores.argmax(-1)
        values: dict[str, Any] = {"label": self._labels[best], "confidence": self._probability(scores, best)}
        if self._config.top > 1:
            values |= ranked(probabilities(scores, self._config.scores), self._labels, self._config.top)
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)
        return Events(streams, np.arange(len(scores)), values)

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        return self._none()

    def _none(self) -> Events:
        more = {"labels": ((self._config.top,), self._labels.dtype), "confidences": ((self._config.top,), "float32")}
        told = {"label": ((), self._labels.dtype), "confidence": ((), "float32")}
        return no_events(told | (more if self._config.top > 1 else {}))

    def _probability(self, scores: np.ndarray, best: np.ndarray) -> np.ndarray:
        top = np.take_along_axis(scores, best[..., None], -1)
        with np.errstate(invalid="ignore", over="ignore"):
            if self._config.scores == "logits":
                return (1 / np.exp(scores - top).sum(-1)).astype(np.float32)
            return (np.exp(top) if self._config.scores == "log-probabilities" else top)[..., 0].astype(np.float32)


def ranked(weights: np.ndarray, labels: np.ndarray, top: int) -> dict[str, np.ndarray]:
    """The `top` likeliest `labels` and their `confidences`; of equal ones the earlier label first."""
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :top]
    return {"labels": labels[order], "confidences": np.take_along_axis(weights, order, -1).astype(np.float32)}


class SteadyLabels:
    """Labels that are averaged, last for a while, or are told when they change."""

    spare = 0

    def __init__(self, config: Labels, output: str, labels: list[str], place_s: float | None):
        self._config, self._output, self._labels, self._place_s = config, output, np.array(labels), place_s
        self._decay = 0.0 if config.half_life is None else 0.5 ** (1 / config.half_life)
        kinds: tuple[tuple[str, tuple[int, ...], DType, float], ...] = (
            ("weight", (), "float64", 0.0),
            ("weights", (len(labels),), "float32", 0.0),
            ("run_begin", (), "int64", 0.0),
            ("run", (), "int64", 0.0),
            ("label", (), "int32", -1.0),
            ("likeliest", (), "int32", -1.0),
        )
        self.states = tuple(
            StateSpec(f"decode.{name}", f"decode.{name}", shape, dtype, initial)
            for name, shape, dtype, initial in kinds
        )

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        weights = np.ascontiguousarray(probabilities(outputs.values[self._output], self._config.scores), np.float32)
        label, begin = np.empty(len(weights), np.int32), np.empty(len(weights), np.int64)
        changed = np.empty(len(weights), np.bool_)
        states = [columns[s.name] for s in self.states]
        compiled().steady_labels(
            outputs.slots, outputs.counts, outputs.at, self._decay, self._config.min_duration, *states,
            weights, label, begin, changed,
        )  # fmt: skip
        rows = np.flatnonzero(changed) if self._config.emit == "changes" else np.arange(len(weights))
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)[rows]
        return Events(streams, rows, self._values(label[rows], begin[rows], weights[rows]))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        none = np.zeros(0, np.int64)
        weights = np.zeros((0, len(self._labels)), np.float32)
        return Events(none, none, self._values(none, none, weights), none)

    def _values(self, label: np.ndarray, begin: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        confidence = np.take_along_axis(weights, label[:, None].astype(np.int64), 1)[:, 0]
        values = {"label": self._labels[label], "confidence": confidence}
        if self._config.top > 1:
            values |= ranked(weights, self._labels, self._config.top)
        if self._config.emit == "changes":
            values |= {"begin": begin} | seconds(begin, self._place_s)
        return values


@njit(nogil=True)
def steady_labels(
    slots, counts, at, decay, min_duration,
    total, averages, run_begins, runs, labels, likeliests,
    weights, label, begin, changed,
):  # fmt: skip
    """weights (R, L): probabilities, averaged in place; label, begin, changed (R,): what is told of each output.

    The middle ones are columns of the arena: total, run_begins, runs, labels, likeliests (S,), averages (S, L).
    """
    row = 0
    for i in range(slots.size):
        slot = slots[i]
        for _ in range(counts[i]):
            total[slot] = decay * total[slot] + 1.0
            share = 1.0 / total[slot]
            best, top = 0, np.float32(-1)
            for k in range(weights.shape[1]):
                w = weights[row, k]
                if share < 1.0:
                    w = np.float32((1.0 - share) * averages[slot, k] + share * w)
                averages[slot, k] = w
                weights[row, k] = w
                if w > top:
                    best, top = k, w
            if best == likeliests[slot]:
                runs[slot] += 1
            else:
                likeliests[slot], runs[slot], run_begins[slot] = best, 1, at[row]
            first = labels[slot] < 0
            changed[row] = first or (best != labels[slot] and runs[slot] >= min_duration)
            if changed[row]:
                labels[slot] = best
            label[row] = labels[slot]
            begin[row] = run_begins[slot]
            row += 1


_I64, _I32, _F32, _F64 = types.int64, types.int32, types.float32, types.float64


def _column(kind: Any, rank: int = 1) -> types.Array:
    return types.Array(kind, rank, "A")


@cache
def compiled() -> Any:
    """The loop, compiled once a process."""
    whole = _I64[::1]
    signature = (
        whole, whole, whole, _F64, _I64,
        _column(_F64), _column(_F32, 2), _column(_I64), _column(_I64), _column(_I32), _column(_I32),
        _F32[:, ::1], _I32[::1], whole, types.boolean[::1],
    )  # fmt: skip
    return load_static([steady_labels], {"steady_labels": [signature]})
