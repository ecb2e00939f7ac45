"""States that stay on a device: an array for each, `(max_streams, *shape)`, and which of a stream's two copies is the newer one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from .arena import address
from .artifact import Artifact
from .device_graphs import SLOTS, arena, changing, fetch_model, put_model, rows, written
from .errors import BackendError
from .ort_session import Provider, open_session
from .section import Section

_SAME, _HOST, _DEVICE = 0, 1, 2  # which copy of a slot's states is newer
_AT_ONCE = 4096  # streams whose rows are copied in one call, which bounds the device's memory for it


class DeviceStates:
    """The states of an arena's slots on a device; the arena's own rows follow when someone reads them.

    Of a slot that was opened, restored or forked the arena is newer, and `refresh` brings its row here; of a slot that was
    stepped the device is newer, and `pull` brings its states there. Counters and buffered frames are in the arena alone.
    """

    def __init__(
        self, artifact: Artifact, host: Section, providers: Sequence[Provider] | None, device: tuple[str, int]
    ):
        self._name, self._host, self._device = artifact.name, host, device
        self._kept = [s for s in artifact.spec.states if 0 not in s.shape]
        self._changing = changing(artifact.spec.states)
        try:
            self._values = {
                s.name: ort.OrtValue.ortvalue_from_shape_and_type([host.slots, *s.shape], s.dtype, *device)
                for s in artifact.spec.states
            }
        except Exception as error:  # onnxruntime's own errors share no public base
            raise BackendError(
                f"{self._name}: no room on device {device[0]}:{device[1]} for the states of {host.slots} streams, "
                f"{artifact.spec.state_bytes} bytes each ({error}); lower max_streams"
            ) from error
        self.fetching = open_session(fetch_model(self._kept), self._name, 1, providers)
        self.putting = open_session(put_model(self._kept), self._name, 1, providers)
        self._newer = np.zeros(host.slots, np.int8)
        host.follow(self)

    def bind(self, binding: ort.IOBinding) -> None:
        """Gives a step graph the arrays as its arenas, read and written."""
        for state in self._host.states:
            binding.bind_ortvalue_input(arena(state), self._values[state.name])
        for state in self._changing:
            binding.bind_ortvalue_output(written(state), self._values[state.name])

    def wrote(self, slot: int) -> None:
        """The arena's row of this slot is newer."""
        self._newer[slot] = _HOST

    def stepped(self, slots: np.ndarray) -> None:
        """The device's states of these slots are newer."""
        self._newer[slots] = _DEVICE

    def refresh(self, slots: np.ndarray) -> None:
        """Brings what is newer in the arena here."""
        for part in self._parts(slots, _HOST):
            self._put(part, {s.name: np.ascontiguousarray(self._host.column(s.name)[part]) for s in self._kept})
            self._newer[part] = _SAME

    def pull(self, slots: np.ndarray) -> None:
        """Brings what is newer here into the arena."""
        for part in self._parts(slots, _DEVICE):
            binding, made = self._fetch(part), {}
            for s in self._kept:
                made[s.name] = array = np.empty((len(part), *s.shape), s.dtype)
                binding.bind_output(rows(s), "cpu", 0, array.dtype, array.shape, address(array))
            self.fetching.run_with_iobinding(binding)
            for name, array in made.items():
                self._host.column(name)[part] = array
            self._newer[part] = _SAME

    def copy(self, slots: np.ndarray) -> dict[str, ort.OrtValue]:
        """The states of these slots, kept on the device."""
        binding = self._fetch(slots)
        for s in self._kept:
            binding.bind_output(rows(s), *self._device)
        self.fetching.run_with_iobinding(binding)
        return dict(zip((s.name for s in self._kept), binding.get_outputs(), strict=True))

    def put_back(self, slots: np.ndarray, copy: dict[str, ort.OrtValue]) -> None:
        """Makes these slots what they were when they were copied."""
        self._put(slots, copy)

    def _parts(self, slots: np.ndarray, newer: int) -> Iterator[np.ndarray]:
        chosen = np.ascontiguousarray(slots[self._newer[slots] == newer], np.int64)
        if self._kept:
            yield from (chosen[i : i + _AT_ONCE] for i in range(0, len(chosen), _AT_ONCE))

    def _fetch(self, slots: np.ndarray) -> ort.IOBinding:
        binding = self.fetching.io_binding()
        binding.bind_cpu_input(SLOTS, slots)
        for s in self._kept:
            binding.bind_ortvalue_input(arena(s), self._values[s.name])
        return binding

    def _put(self, slots: np.ndarray, values: dict[str, Any]) -> None:
        binding = self.putting.io_binding()
        binding.bind_cpu_input(SLOTS, slots)
        for s in self._kept:
            value = values[s.name]
            bind = binding.bind_cpu_input if isinstance(value, np.ndarray) else binding.bind_ortvalue_input
            bind(rows(s), value)
            binding.bind_ortvalue_input(arena(s), self._values[s.name])
            binding.bind_ortvalue_output(written(s), self._values[s.name])
        self.putting.run_with_iobinding(binding)
