"""Streams of a graph of whole sequences: their frames are collected, and go through the graph together when they end."""

from collections.abc import Mapping, Sequence

import numpy as np

from .artifact import Artifact
from .collected import Collected
from .errors import BackendError, UndertowError
from .index import Key
from .ort_session import Provider
from .sequence_backend import SequenceBackend

Rows = list[np.ndarray]  # for each output (T', *out)


class Sequences:
    """The collected frames of an engine's streams, and the backend that they go through."""

    def __init__(
        self,
        artifact: Artifact,
        threads: int,
        providers: Sequence[Provider] | None,
        max_batch: int,
        limits: tuple[int, int],
    ):
        self.spec, self.frames = artifact.spec, Collected(artifact.spec, *limits)
        self.backend = SequenceBackend(artifact, threads, providers, max_batch)

    @staticmethod
    def check_backend(artifact: Artifact, backend: str) -> None:
        """Raises BackendError where another backend was asked for."""
        if backend not in ("auto", "ort"):
            raise BackendError(
                f"{artifact.name}: maps whole sequences, which ONNX Runtime alone runs; backend is {backend!r}, use 'ort' or 'auto'"
            )

    def finished(self, slots: Mapping[Key, int]) -> tuple[dict[Key, Rows], dict[Key, UndertowError]]:
        """All outputs of each stream, which goes on collecting, and the error of those that failed."""
        keys, places = list(slots), np.array(list(slots.values()), np.int64)
        lengths = self.frames.counts[places]
        done: dict[Key, Rows] = {}
        errors: dict[Key, UndertowError] = {}
        answering = [i for i, n in enumerate(lengths.tolist()) if n and self.spec.outputs_of(n)]
        for key in keys:
            done[key] = [np.zeros((0, *t.shape), t.dtype) for t in self.spec.outputs]
        for group in self.backend.groups(lengths[answering]):
            chosen = [answering[i] for i in group]
            self._run([keys[i] for i in chosen], places[chosen], done, errors)
        return {key: rows for key, rows in done.items() if key not in errors}, errors

    def _run(self, keys: list[Key], slots: np.ndarray, done: dict[Key, Rows], errors: dict[Key, UndertowError]) -> None:
        """One group; where it fails each stream alone, so that only those fail that are to blame."""
        ends = np.cumsum(self.frames.counts[slots])[:-1]
        columns = [np.split(array, ends) for array in self.frames.read(slots)]
        try:
            done.update(zip(keys, self.backend.run([list(c) for c in zip(*columns, strict=True)]), strict=True))
        except BackendError as error:
            if len(keys) == 1:
                errors[keys[0]] = error
                return
            for i, key in enumerate(keys):
                self._run([key], slots[i : i + 1], done, errors)
