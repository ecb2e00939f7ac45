"""Runs a graph of whole sequences on ONNX Runtime: ragged streams together, padded where the graph takes their lengths."""

from collections.abc import Iterator, Sequence

import numpy as np

from .artifact import Artifact
from .errors import BackendError
from .limits import index_limits
from .ort_session import Provider, open_session

_PADDED_BYTES = 64 * 2**20  # of the frames of one call
_SHORTEST = 0.5  # of the longest sequence of one call


class SequenceBackend:
    """An inference session of the graph."""

    name = "ort"

    def __init__(self, artifact: Artifact, threads: int, providers: Sequence[Provider] | None, max_batch: int):
        self.session = open_session(artifact.model, artifact.name, threads, providers)
        self.limits = index_limits(artifact)
        self._name, self._spec = artifact.name, artifact.spec
        self._max_batch = max_batch if artifact.spec.batchable else 1

    def groups(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Sequences that go through the graph together: of one length, or where it takes lengths of alike ones."""
        order = np.argsort(-lengths, kind="stable")
        frame = max(1, sum(int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in self._spec.inputs))
        shortest = _SHORTEST if self._spec.lengths_input else 1.0
        begin = 0
        while begin < len(order):
            longest = int(lengths[order[begin]])
            most = max(1, min(self._max_batch, _PADDED_BYTES // (frame * max(longest, 1))))
            size = int((lengths[order[begin : begin + most]] >= shortest * longest).sum())
            yield order[begin : begin + size]
            begin += size

    def run(self, sequences: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        """For each sequence, an array (T, *frame) for each input, T > 0, its outputs. Raises BackendError."""
        spec, lengths = self._spec, np.array([len(s[0]) for s in sequences], np.int64)
        given = {}
        for i, tensor in enumerate(spec.inputs):
            given[tensor.name] = batch = np.zeros((len(sequences), lengths.max(), *tensor.shape), tensor.dtype)
            for row, sequence in zip(batch, sequences, strict=True):
                row[: len(sequence[i])] = sequence[i]
        if spec.lengths_input:
            given[spec.lengths_input] = lengths
        try:
            made = self.session.run([t.name for t in spec.outputs], given)
        except Exception as error:  # onnxruntime's own errors share no public base
            raise BackendError(f"{self._name}: ONNX Runtime failed on {_told(lengths)}: {error}") from error
        return [
            [
                self._cut(t.name, np.asarray(y)[row], spec.outputs_of(int(n)))
                for t, y in zip(spec.outputs, made, strict=True)
            ]
            for row, n in enumerate(lengths)
        ]

    def _cut(self, name: str, y: np.ndarray, count: int) -> np.ndarray:
        if len(y) < count or (len(y) > count and not self._spec.lengths_input):
            raise BackendError(
                f"{self._name}: output '{name}' has {len(y)} rows, the metadata says {count}; export the model again"
            )
        return y[:count].copy()


def _told(lengths: np.ndarray) -> str:
    return f"{len(lengths)} sequences of {lengths.min()} .. {lengths.max()} frames"
