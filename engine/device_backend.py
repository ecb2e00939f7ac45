"""Runs a step graph where the states lie on the provider's device: frames go there, outputs come back, states stay."""

from collections.abc import Sequence

import numpy as np

from .artifact import Artifact
from .device_graphs import SLOTS, step_model
from .device_states import DeviceStates
from .errors import BackendError
from .limits import index_limits
from .ort_session import Provider, open_session
from .ort_wave import hand_out, run_bound, wave_arrays
from .scheduler import waves
from .section import Section


class DeviceBackend:
    """An inference session of the step graph over states on a device; one call a wave, in which all streams step or none."""

    name = "ort"

    def __init__(
        self,
        artifact: Artifact,
        section: Section,
        threads: int,
        providers: Sequence[Provider] | None,
        max_batch: int,
        device: tuple[str, int],
    ):
        self.session = open_session(step_model(artifact), artifact.name, threads, providers)
        self.states = DeviceStates(artifact, section, providers, device)
        self.limits = index_limits(artifact)
        self._name, self._spec, self._section, self._max_batch = artifact.name, artifact.spec, section, max_batch
        self._binding = self.session.io_binding()
        self.states.bind(self._binding)

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
        moving = slots[length > 0]
        try:
            self.states.refresh(moving)
            self._steps(moving, slots, first, length, valid, inputs, outputs)
        except Exception as error:  # onnxruntime's own errors share no public base
            raise BackendError(f"{self._name}: ONNX Runtime failed within a step: {error}") from error
        self.states.stepped(moving)
        self._section.frames[slots] += valid
        self._section.last_active[slots] = now

    def _steps(
        self,
        moving: np.ndarray,
        slots: np.ndarray,
        first: np.ndarray,
        length: np.ndarray,
        valid: np.ndarray,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        """All waves, or none: a wave that fails has changed nothing, and those before it are undone."""
        k = self._spec.frames_per_step
        many = len(moving) > self._max_batch or int(length.max(initial=0)) > 1
        before = self.states.copy(moving) if many else None
        try:
            for t, chosen in waves(length, self._max_batch):
                self._wave(slots[chosen], first[chosen] + t, valid[chosen] - t * k, inputs, outputs)
        except Exception:
            if before is not None:
                self.states.put_back(moving, before)
            raise

    def _wave(
        self,
        slots: np.ndarray,
        rows: np.ndarray,
        valid: np.ndarray,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        given, made = wave_arrays(self._spec, rows, valid, inputs, outputs, {SLOTS: slots})
        run_bound(self.session, self._binding, given, made)
        hand_out(self._spec, rows, given | made, outputs)
