"""`verify` of an encoder and its decoder: each backend of the engine beside a plain interpreter of both graphs, a stream at a time."""

from collections.abc import Callable, Iterable
from typing import Any

from ..engine.artifact import Artifact
from ..engine.errors import FrameError
from .parity import Comparison
from .real_sequences import real_sequences
from .seq2seq_parity import Task, compare, decoded_alone, sources_for, targets_for
from .sequences import draws

BACKENDS = ("engine:ort", "engine:numba")


def verified(artifact: Artifact, sources: Iterable[Any], progress: Callable[[str], None] | None) -> list[Comparison]:
    """The encoder's and the decoder's backends beside the graphs: random sources, and those given, with random tokens. Raises FrameError."""
    assert artifact.encoder is not None
    assert artifact.spec.encoder is not None
    whole, room = artifact.encoder.spec, artifact.spec.encoder.max_memory
    real = real_sequences(whole, sources)
    for place, source in enumerate(real):
        positions = whole.outputs_of(len(next(iter(source.values()))))
        if not 0 < positions <= room:
            raise FrameError(f"sequence {place}: is a source of {positions} positions, memory has room for 1 to {room}")
    tried = sources_for(artifact, draws(whole, artifact.encoder.model, {})) + real
    targets = targets_for(len(tried), draws(artifact.spec, artifact.model, {}))
    tasks = [Task(source, target) for source, target in zip(tried, targets, strict=True)]
    if progress:
        progress("both graphs as a plain interpreter runs them")
    return compare(artifact, tasks, decoded_alone(artifact, tasks), "both graphs, one stream alone", BACKENDS, progress)
