"""Runs a step graph on an ONNX Runtime execution provider: one call a wave, whatever the number of streams."""

from collections.abc import Mapping, Sequence

import numpy as np

from .artifact import Artifact
from .errors import BackendError
from .limits import index_limits
from .ort_session import Provider, open_session
from .ort_wave import hand_out, run_bound, wave_arrays
from .scheduler import waves
from .section import Section


class OrtBackend:
    """An inference session of the step graph, bound to a section of an arena: states are gathered into and scattered from fixed buffers."""

    name = "ort"

    def __init__(
        self, artifact: Artifact, section: Section, threads: int, providers: Sequence[Provider] | None, max_batch: int
    ):
        self.session = open_session(artifact.model, artifact.name, threads, providers)
        self.limits = index_limits(artifact)
        self._name, self._spec, self._section = artifact.name, artifact.spec, section
        self._max_batch = max_batch if self._spec.batchable else 1
        self._changing = [s for s in self._spec.states if s.next != s.name]
        self._states = {s.name: section.column(s.name) for s in self._changing}
        self._constant = {s.name: section.column(s.name) for s in self._spec.states if s.next == s.name}
        self._columns = list(self._states.values()) if self._constant else [section.rows]  # what a failed run puts back

    def run(
        self,
        slots: np.ndarray,
        first: np.ndarray,
        length: np.ndarray,
        valid: np.ndarray,
        now: int,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        """Steps stream i over rows first[i] .. first[i] + length[i] of the inputs, in order; the outputs get the same rows.

        Raises BackendError where ONNX Runtime fails; no stream has changed then.
        """
        before = [column[slots] for column in self._columns]
        held = _Held(self._constant)
        try:
            for t, chosen in waves(length, self._max_batch):
                left = valid[chosen] - t * self._spec.frames_per_step
                self._wave(slots[chosen], first[chosen] + t, left, inputs, outputs, held)
        except Exception as error:  # onnxruntime's own errors share no public base
            for column, rows in zip(self._columns, before, strict=True):
                column[slots] = rows
            raise BackendError(f"{self._name}: ONNX Runtime failed within a step: {error}") from error
        self._section.frames[slots] += valid
        self._section.last_active[slots] = now

    def _wave(
        self,
        slots: np.ndarray,
        rows: np.ndarray,
        valid: np.ndarray,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
        held: "_Held",
    ) -> None:
        spec = self._spec
        states = {name: column[slots] for name, column in self._states.items()}
        given, made = wave_arrays(spec, rows, valid, inputs, outputs, states | held.rows(slots))
        for state in self._changing:
            if state.next not in made and state.next not in given:
                made[state.next] = np.empty((len(rows), *state.shape), state.dtype)
        run_bound(self.session, self.session.io_binding(), given, made)
        results = given | made
        hand_out(spec, rows, results, outputs)
        for state in self._changing:
            self._states[state.name][slots] = results[state.next]


class _Held:
    """The rows of states that no step changes, such as a decoder's memory: gathered once for all waves of a run that step the same streams."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self._columns, self._slots = columns, np.zeros(0, np.int64)
        self._rows: dict[str, np.ndarray] = {}

    def rows(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """By name, (B, *shape); of the first of the streams gathered before where it is those that are stepped."""
        if not self._columns:
            return {}
        count = len(slots)
        if not np.array_equal(slots, self._slots[:count]):
            self._slots = slots
            self._rows = {name: column[slots] for name, column in self._columns.items()}
        return {name: rows[:count] for name, rows in self._rows.items()}
