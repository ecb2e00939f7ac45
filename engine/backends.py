"""Which backend runs which batch size on this machine."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .arena import Arena
from .artifact import Artifact
from .errors import BackendError
from .numba_backend import NumbaBackend, seconds
from .section import Section

if TYPE_CHECKING:
    from .device_backend import DeviceBackend
    from .ort_backend import OrtBackend
    from .ort_session import Provider

Backend: TypeAlias = "NumbaBackend | OrtBackend | DeviceBackend"
_SIZES = (1, 16, 256)
_MARGIN = 0.8  # ONNX Runtime takes a batch size over where it needs less than this share of the compiled program's time


class Backends:
    """The chosen backends: sizes[i] is the smallest batch that runs on backends[i]."""

    def __init__(self, sizes: Sequence[int], backends: Sequence[Backend]):
        self.sizes, self.backends = sizes, backends
        self.limits: dict[str, int] = {}
        for name, limit in (pair for b in backends for pair in b.limits.items()):
            self.limits[name] = min(limit, self.limits.get(name, limit))
        self.name = (
            backends[0].name
            if len(backends) == 1
            else ", ".join(f"{b.name} from {s}" for s, b in zip(sizes, backends, strict=True))
        )

    @classmethod
    def elsewhere(cls, name: str, limits: dict[str, int]) -> "Backends":
        """Of a graph that is not stepped: what runs it is not among these."""
        found = cls([], [])
        found.name, found.limits = name, limits
        return found

    def at(self, count: int) -> Backend:
        """The backend of a batch of so many streams."""
        if len(self.backends) == 1:
            return self.backends[0]
        return self.backends[int(np.searchsorted(self.sizes, count, side="right")) - 1]

    @property
    def direct(self) -> NumbaBackend | None:
        """The compiled program, where it runs single frames."""
        first = self.backends[:1]
        return first[0] if first and isinstance(first[0], NumbaBackend) else None


def choose_backends(
    artifact: Artifact,
    section: Section,
    backend: str,
    providers: Sequence["Provider"] | None,
    threads: int,
    max_batch: int,
) -> Backends:
    """The backends for `backend` "numba", "ort" or "auto". Raises BackendError."""
    if backend not in ("auto", "numba", "ort"):
        raise BackendError(f"backend is {backend!r}, expected 'auto', 'numba' or 'ort'")
    if backend == "numba":
        if providers:
            raise BackendError(f"providers={list(providers)} is for ONNX Runtime; use backend='ort' or 'auto' with it")
        compiled = NumbaBackend(artifact, section, threads)
        return Backends([1], [compiled])
    from .ort_backend import OrtBackend  # ONNX Runtime is slow to import, and the compiled backend does without

    if backend == "ort":
        return Backends([1], [_on_onnx_runtime(artifact, section, threads, providers, max_batch)])
    ort = OrtBackend(artifact, section, threads, providers, max_batch)
    try:
        compiled = NumbaBackend(artifact, section, threads)
    except BackendError:
        return Backends([1], [ort])
    winners = _race(artifact, section.arena.max_streams, threads, providers, max_batch)
    sizes, chosen = [], []
    for size, faster in winners:
        pick = compiled if faster == "numba" else ort
        if not chosen or chosen[-1] is not pick:
            sizes.append(size)
            chosen.append(pick)
    return Backends(sizes, chosen)


def _on_onnx_runtime(
    artifact: Artifact, section: Section, threads: int, providers: Sequence["Provider"] | None, max_batch: int
) -> "OrtBackend | DeviceBackend":
    """States stay on the first provider's device, where it has one and the graph steps many streams at once."""
    from .device_backend import DeviceBackend
    from .ort_backend import OrtBackend
    from .ort_session import device_of

    device = device_of(providers)
    if device is None or not artifact.spec.states or not artifact.spec.batchable:
        return OrtBackend(artifact, section, threads, providers, max_batch)
    return DeviceBackend(artifact, section, threads, providers, max_batch, device)


def _race(
    artifact: Artifact, max_streams: int, threads: int, providers: Sequence["Provider"] | None, max_batch: int
) -> list[tuple[int, str]]:
    """The faster backend from each batch size on, measured on an arena of its own."""
    from .ort_backend import OrtBackend

    spec, winners = artifact.spec, []
    arena = Arena([spec], min(max_streams, _SIZES[-1]))
    section = arena.stages[0]
    both = (NumbaBackend(artifact, section, threads), OrtBackend(artifact, section, threads, providers, max_batch))
    for size in _SIZES:
        if size > arena.max_streams:
            break
        slots = np.arange(size)
        arena.rows[:size] = section.layout.initial(spec.states)
        k, m = spec.frames_per_step, spec.outputs_per_step
        inputs = [np.zeros((size, *((k,) if k > 1 else ()), *t.shape), t.dtype) for t in spec.inputs]
        outputs = [np.zeros((size, *((m,) if m > 1 else ()), *t.shape), t.dtype) for t in spec.outputs]
        ones = np.ones(size, np.int64)
        compiled, ort = (seconds(partial(b.run, slots, slots, ones, ones * k, 0, inputs, outputs)) for b in both)
        winners.append((size, "ort" if ort < _MARGIN * compiled else "numba"))
    return winners
