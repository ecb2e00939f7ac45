"""What a stream's source makes of it, where the model has an encoder: ragged sources go through it together, and fill memory and states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .artifact import Artifact
from .errors import BackendError, FrameError, UndertowError
from .frames import Intake
from .index import Key
from .ort_session import Provider
from .sequence_backend import SequenceBackend

Column = Callable[[str], np.ndarray]  # a state's view (slots, *shape)
Begin = Callable[[np.ndarray], None]  # makes slots, int64, those of streams that have seen nothing


class Reader:
    """The encoder of an engine's model."""

    def __init__(self, artifact: Artifact, threads: int, providers: Sequence[Provider] | None, max_batch: int):
        assert artifact.encoder is not None
        assert artifact.spec.encoder is not None
        self.spec, self.whole = artifact.spec.encoder, artifact.encoder.spec
        self._backend = SequenceBackend(artifact.encoder, threads, providers, max_batch)
        self.intake = Intake(self.whole, self._backend.limits)

    def checked(self, sources: Mapping[Key, Any]) -> tuple[dict[Key, list[np.ndarray]], dict[Key, UndertowError]]:
        """Each source that the encoder takes and memory has room for, an array `(T, *frame)` for each input; and the errors of the others."""
        columns, errors, _ = self.intake.chunks(sources)
        keys, good = [key for key in sources if key not in errors], {}
        for key, *arrays in zip(keys, *columns, strict=True):
            count = self.whole.outputs_of(len(arrays[0]))
            if 0 < count <= self.spec.max_memory:
                good[key] = arrays
            else:
                errors[key] = self._refusal(key, count)
        return good, errors

    def fill(
        self, sources: Sequence[list[np.ndarray]], slots: np.ndarray, begin: Begin, column: Column
    ) -> tuple[np.ndarray, dict[int, BackendError]]:
        """Begins each slot with its checked source: how many positions it has, and the errors, by place, of those that the encoder
        fails on, whose slots are not touched. Sources of about one length go through it together."""
        counts = np.array([self.whole.outputs_of(len(s[0])) for s in sources], np.int64)
        errors: dict[int, BackendError] = {}
        for group in self._backend.groups(np.array([len(s[0]) for s in sources], np.int64)):
            for part, made in self._through(sources, group, errors):
                begin(slots[part])
                self._fill(slots[part], made, counts[part], column)
        return counts, errors

    def _through(
        self, sources: Sequence[list[np.ndarray]], group: np.ndarray, errors: dict[int, BackendError]
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """What the encoder gives for a group; where it fails, for each alone, so that only those fail that are to blame."""
        try:
            yield group, self._backend.padded([sources[i] for i in group.tolist()])
        except BackendError as error:
            if len(group) == 1:
                errors[int(group[0])] = error
                return
            for i in range(len(group)):
                yield from self._through(sources, group[i : i + 1], errors)

    def _fill(self, slots: np.ndarray, made: list[np.ndarray], counts: np.ndarray, column: Column) -> None:
        given = dict(zip((t.name for t in self.whole.outputs), made, strict=True))
        longest = int(counts.max(initial=0))
        real = np.arange(longest) < counts[:, None]
        for output, state in self.spec.memory:
            y = given[output][:, :longest]
            column(state)[slots, :longest] = np.where(
                real.reshape(*real.shape, *(1,) * (y.ndim - 2)), y, y.dtype.type(0)
            )
        for output, state in self.spec.initial:
            column(state)[slots] = given[output][np.arange(len(slots)), counts - 1]
        column(self.spec.length)[slots] = counts

    def _refusal(self, key: Key, count: int) -> FrameError:
        if not count:
            return FrameError(f"stream {key!r}: its source is too short for a position of memory; give it more frames")
        return FrameError(
            f"stream {key!r}: its source has {count} positions, memory has room for {self.spec.max_memory}; "
            "cut the source, or export the model with a larger max_memory"
        )

    def too_long(self, keys: Sequence[Key], lengths: np.ndarray) -> dict[Key, UndertowError]:
        """The errors of streams whose sources, by their numbers of frames, memory has no room for."""
        counts = [self.whole.outputs_of(length) for length in lengths.tolist()]
        return {keys[i]: self._refusal(keys[i], n) for i, n in enumerate(counts) if n > self.spec.max_memory}

    def refusals(self, keys: Sequence[Key], filled: np.ndarray) -> dict[Key, UndertowError]:
        """The errors of streams, by their memory's length, that have read no source."""
        return {
            keys[i]: FrameError(f"stream {keys[i]!r}: has read no source; give it one with engine.read first")
            for i in np.flatnonzero(filled == 0).tolist()
        }
