"""Runs a step graph on an ONNX Runtime execution provider: one call a wave, whatever the number of streams."""

from collections.abc import Sequence

import numpy as np

from .arena import Arena, address
from .artifact import Artifact
from .errors import BackendError
from .limits import index_limits
from .ort_session import Provider, open_session
from .scheduler import waves


class OrtBackend:
    """An inference session of the step graph, bound to an arena: states are gathered into and scattered from fixed buffers."""

    name = "ort"

    def __init__(
        self, artifact: Artifact, arena: Arena, threads: int, providers: Sequence[Provider] | None, max_batch: int
    ):
        self.session = open_session(artifact.model, artifact.name, threads, providers)
        self.limits = index_limits(artifact)
        self._name, self._spec, self._arena, self._max_batch = artifact.name, artifact.spec, arena, max_batch
        self._states = {s.name: arena.column(s.name) for s in self._spec.states}

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
        before = self._arena.rows[slots]
        try:
            for t, chosen in waves(length, self._max_batch):
                self._wave(
                    slots[chosen], first[chosen] + t, valid[chosen] - t * self._spec.frames_per_step, inputs, outputs
                )
        except Exception as error:  # onnxruntime's own errors share no public base
            self._arena.rows[slots] = before
            raise BackendError(f"{self._name}: ONNX Runtime failed within a step: {error}") from error
        self._arena.frames[slots] += valid
        self._arena.last_active[slots] = now

    def _wave(
        self,
        slots: np.ndarray,
        rows: np.ndarray,
        valid: np.ndarray,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        spec, binding = self._spec, self.session.io_binding()
        whole = len(rows) == len(inputs[0]) and rows[0] == 0 and bool((np.diff(rows) == 1).all())
        given = {t.name: x if whole else x[rows] for t, x in zip(spec.inputs, inputs, strict=True)}
        given |= {s.name: self._states[s.name][slots] for s in spec.states}
        if spec.valid_input:
            given[spec.valid_input] = np.clip(valid, 0, spec.frames_per_step)
        made: dict[str, np.ndarray] = {}  # without inputs that go through, which ONNX Runtime does not write
        for tensor, array in zip(spec.outputs, outputs, strict=True):
            if tensor.name not in given:
                made[tensor.name] = array if whole else np.empty((len(rows), *array.shape[1:]), array.dtype)
        for state in spec.states:
            if state.next not in made and state.next not in given:
                made[state.next] = np.empty((len(rows), *state.shape), state.dtype)
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        for name, array in made.items():  # ONNX Runtime writes them in place
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, address(array))
        self.session.run_with_iobinding(binding)
        results = given | made
        for tensor, array in zip(spec.outputs, outputs, strict=True):
            if results[tensor.name] is not array:
                array[rows] = results[tensor.name]
        for state in spec.states:
            self._states[state.name][slots] = results[state.next]
