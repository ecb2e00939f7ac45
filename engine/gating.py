"""A gate: which of a stream's frames go on to the stages behind it, told by a value of a stage that sees all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types

from .artifact import StateSpec, TensorSpec
from .cache import load_static
from .chain_config import Gate
from .ragged import ranges
from .section import Section

_STATES = ("open", "run", "run_place", "begin", "passed")


@dataclass(frozen=True, slots=True)
class Passages:
    """Stretches of frames that pass, those of one stream in order.

    streams: int64 (P,), index into the batch. first, stop: int64 (P,), from which frame of the stream to before which. ends: bool (P,), the gate
    closed behind the last of them. since: int64 (P,), the frame from which on the gate is open. known: int64 (P,), of one with which the
    gate opened the frame that did it, else -1.
    """

    streams: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    ends: np.ndarray
    since: np.ndarray
    known: np.ndarray

    def chosen(self, places: np.ndarray) -> "Passages":
        return Passages(*(getattr(self, name)[places] for name in self.__slots__))


def gate_states(inputs: Sequence[TensorSpec], held: int) -> tuple[StateSpec, ...]:
    """What a gate keeps in a row; held: of each input the last so many frames, which may still have to pass."""
    numbers = [StateSpec(f"gate.{name}", f"gate.{name}", (), "int64") for name in _STATES]
    rings = [StateSpec(f"gate.{t.name}", f"gate.{t.name}", (held, *t.shape), t.dtype) for t in inputs]
    return (*numbers, *rings)


class Gating:
    """A gate over the streams' rows. inputs: of the frames that pass, of which each stream's last `held` are kept."""

    def __init__(self, gate: Gate, inputs: Sequence[TensorSpec], kept: Section, held: int):
        self._gate, self._held = gate, held
        self._off = gate.on if gate.off is None else gate.off
        columns = kept.columns()
        self._numbers = [columns[f"gate.{name}"] for name in _STATES]
        self._rings = [columns[f"gate.{t.name}"] for t in inputs]
        self._open, self._begin = columns["gate.open"], columns["gate.begin"]

    def passages(
        self,
        slots: np.ndarray,
        counts: np.ndarray,
        seen: np.ndarray,
        rows: np.ndarray,
        scores: np.ndarray,
        places: np.ndarray,
        known: np.ndarray,
    ) -> Passages:
        """What passes of frames seen[i] .. seen[i] + counts[i] of each stream, and of those before that are held.

        scores: float32 (rows.sum(),), the watching stage's values; places: the frame that each answers; known: the frame with which it came.
        """
        most = len(slots) + len(scores)
        table, ends = np.empty((most, 5), np.int64), np.empty(most, np.bool_)
        count = compiled().gate(
            slots, counts, seen, rows, scores, places, known, np.float32(self._gate.on), np.float32(self._off),
            self._gate.min_on, self._gate.min_off, self._gate.before, *self._numbers, table, ends,
        )  # fmt: skip
        streams, first, stop, since, opened = (np.ascontiguousarray(c) for c in table[:count].T)
        return Passages(streams, first, stop, ends[:count], since, opened)

    def frames(
        self, passages: Passages, slots: np.ndarray, seen: np.ndarray, starts: np.ndarray, inputs: list[np.ndarray]
    ) -> list[np.ndarray]:
        """The frames of passages, end to end. inputs: the batch's, stream i's from row starts[i] on."""
        counts = passages.stop - passages.first
        stream = np.repeat(passages.streams, counts)
        frame = ranges(passages.first, counts)
        old, found = frame < seen[stream], []
        new = (starts[stream] + frame - seen[stream])[~old]
        for ring, array in zip(self._rings, inputs, strict=True):
            out = np.empty((len(frame), *array.shape[1:]), array.dtype)
            out[old] = ring[slots[stream[old]], frame[old] % self._held]
            out[~old] = array[new]
            found.append(out)
        return found

    def hold(self, slots: np.ndarray, counts: np.ndarray, seen: np.ndarray, inputs: list[np.ndarray]) -> None:
        """Keeps the last frames of the batch."""
        kept = np.minimum(counts, self._held)
        row, frame = ranges(np.cumsum(counts) - kept, kept), ranges(seen + counts - kept, kept)
        for ring, array in zip(self._rings, inputs, strict=True):
            ring[np.repeat(slots, kept), frame % self._held] = array[row]

    def open(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which streams' gates are open, bool (B,), and from which frame on, int64 (B,)."""
        return self._open[slots] > 0, self._begin[slots]


@njit(nogil=True)
def gate(
    slots, counts, seen, rows, scores, places, known, on, off, min_on, min_off, before, is_open, run, run_place, begin,
    passed, table, ends,
):  # fmt: skip
    """Moves each stream's gate over its scores; the passages. table (P, 5): stream, first, stop, since, known; ends (P,)."""
    made, row = 0, 0
    for i in range(len(slots)):
        s, opened = slots[i], np.int64(-1)
        at = seen[i]  # of an open gate, what has passed so far
        for r in range(row, row + rows[i]):
            if is_open[s] == 0:
                if not scores[r] >= on:
                    run[s] = 0
                    continue
                if run[s] == 0:
                    run_place[s] = places[r]
                run[s] += 1
                if run[s] >= min_on:
                    is_open[s], run[s] = 1, 0
                    begin[s] = max(run_place[s] - before, passed[s])
                    at, opened = begin[s], known[r]
            elif not scores[r] < off:
                run[s] = 0
            else:
                run[s] += 1
                if run[s] >= min_off:
                    stop = min(known[r] + 1, seen[i] + counts[i])
                    table[made] = (i, at, stop, begin[s], opened)
                    ends[made] = True
                    made += 1
                    is_open[s], run[s], passed[s], opened = 0, 0, stop, -1
        row += rows[i]
        if is_open[s] and (at < seen[i] + counts[i] or opened >= 0):
            table[made] = (i, at, seen[i] + counts[i], begin[s], opened)
            ends[made] = False
            made += 1
    return made


@cache
def compiled() -> Any:
    """The loop, compiled once a process."""
    i8, f4 = types.int64, types.float32
    column, row = types.Array(i8, 1, "A"), i8[::1]
    streams, watched = (row, row, row), (row, f4[::1], row, row)
    arguments = (*streams, *watched, f4, f4, i8, i8, i8, *(column,) * 5, i8[:, ::1], types.boolean[::1])
    return load_static([gate], {"gate": [arguments]})
