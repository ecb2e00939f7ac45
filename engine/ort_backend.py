"""Runs a step graph on an ONNX Runtime execution provider: one call a wave, whatever the number of streams."""

from collections.abc import Sequence

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
        self._states = {s.name: section.column(s.name) for s in self._spec.states}

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
        before = self._section.rows[slots]
        try:
            for t, chosen in waves(length, self._max_batch):
                self._wave(
                    slots[chosen], first[chosen] + t, valid[chosen] - t * self._spec.frames_per_step, inputs, outputs
                )
        except Exception as error:  # onnxruntime's own errors share no public base
            self._section.rows[slots] = before
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
    ) -> None:
        spec = self._spec
        states = {s.name: self._states[s.name][slots] for s in spec.states}
        given, made = wave_arrays(spec, rows, valid, inputs, outputs, states)
        for state in spec.states:
            if state.next not in made and state.next not in given:
                made[state.next] = np.empty((len(rows), *state.shape), state.dtype)
        run_bound(self.session, self.session.io_binding(), given, made)
        results = given | made
        hand_out(spec, rows, results, outputs)
        for state in spec.states:
            self._states[state.name][slots] = results[state.next]
