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
        counts = [self._spec.outputs_of(len(s[0])) for s in sequences]
        made = self.padded(sequences)
        return [[y[row, :count].copy() for y in made] for row, count in enumerate(counts)]

    def padded(self, sequences: list[list[np.ndarray]]) -> list[np.ndarray]:
        """Of each output the rows of all sequences, (B, T', *out), of which a sequence's own are the first `outputs_of` its length.

        sequences: as for `run`, of a group. Raises BackendError.
        """
        spec, lengths = self._spec, np.array([len(s[0]) for s in sequences], np.int64)
        given = {}
        for i, tensor in enumerate(spec.inputs):
            given[tensor.name] = batch = np.zeros((len(sequences), lengths.max(), *tensor.shape), tensor.dtype)
            for row, sequence in zip(batch, sequences, strict=True):
                row[: len(sequence[i])] = sequence[i]
        if spec.lengths_input:
            given[spec.lengths_input] = lengths
        try:
            made = [np.asarray(y) for y in self.session.run([t.name for t in spec.outputs], given)]
        except Exception as error:  # onnxruntime's own errors share no public base
            raise BackendError(f"{self._name}: ONNX Runtime failed on {_told(lengths)}: {error}") from error
        for tensor, y in zip(spec.outputs, made, strict=True):
            self._check_rows(tensor.name, y, spec.outputs_of(int(lengths.max())))
        return made

    def _check_rows(self, name: str, y: np.ndarray, count: int) -> None:
        if y.shape[1] < count or (y.shape[1] > count and not self._spec.lengths_input):
            raise BackendError(
                f"{self._name}: output '{name}' has {y.shape[1]} rows, the metadata says {count}; export the model again"
            )


def _told(lengths: np.ndarray) -> str:
    return f"{len(lengths)} sequences of {lengths.min()} .. {lengths.max()} frames"
