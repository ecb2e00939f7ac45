"""Whole sequences through a step artifact: as plainly as can be, and through the engine as it is used."""

from typing import Any, cast

import numpy as np
import onnxruntime

from ..engine.artifact import Artifact
from .sequences import Sequence
from .worlds import plain_session

Outputs = list[dict[str, np.ndarray]]  # for each sequence, for each output (T, *out)


def stepped_alone(artifact: Artifact, sequences: list[Sequence]) -> Outputs:
    """Each sequence by itself, frame by frame, in ONNX Runtime as a plain interpreter."""
    session = plain_session(artifact.model)
    return [_stepped(session, artifact, [sequence])[0] for sequence in sequences]


def stepped_together(artifact: Artifact, sequences: list[Sequence]) -> Outputs:
    """All sequences as one batch, frame by frame, in ONNX Runtime; a sequence that is over leaves the batch."""
    return _stepped(plain_session(artifact.model), artifact, sequences)


def _stepped(session: onnxruntime.InferenceSession, artifact: Artifact, sequences: list[Sequence]) -> Outputs:
    spec = artifact.spec
    lengths = np.array([len(next(iter(s.values()))) for s in sequences])
    states = {s.name: np.stack([s.initial_value()] * len(sequences)) for s in spec.states}
    given: list[dict[str, list[np.ndarray]]] = [{o.name: [] for o in spec.outputs} for _ in sequences]
    wanted = [o.name for o in spec.outputs] + [s.next for s in spec.states]
    for t in range(lengths.max(initial=0)):
        alive = np.flatnonzero(lengths > t)
        feed = {i.name: np.stack([sequences[row][i.name][t] for row in alive]) for i in spec.inputs}
        made = session.run(wanted, feed | {name: array[alive] for name, array in states.items()})
        results = {name: np.asarray(array) for name, array in zip(wanted, made, strict=True)}
        for s in spec.states:
            states[s.name][alive] = results[s.next]
        for at, row in enumerate(alive):
            for o in spec.outputs:
                given[row][o.name].append(results[o.name][at])
    return [{name: np.stack(frames) for name, frames in one.items()} for one in given]


def stepped_by_engine(artifact: Artifact, sequences: list[Sequence], backend: str) -> Outputs:
    """All sequences as concurrent streams of an engine, cut into chunks of random lengths. Raises BackendError."""
    from ..engine import Engine

    engine = Engine(artifact, backend=backend, max_streams=len(sequences))
    rng = np.random.default_rng(0)
    lengths = [len(next(iter(s.values()))) for s in sequences]
    done = [0] * len(sequences)
    names = [o.name for o in artifact.spec.outputs]
    given: list[dict[str, list[np.ndarray]]] = [{name: [] for name in names} for _ in sequences]
    while any(at < n for at, n in zip(done, lengths, strict=True)):
        chunks = {}
        for row, sequence in enumerate(sequences):
            size = min(int(rng.integers(0, 9)), lengths[row] - done[row])
            if size:
                cut = {name: array[done[row] : done[row] + size] for name, array in sequence.items()}
                chunks[row] = cut if len(cut) > 1 else next(iter(cut.values()))
                done[row] += size
        for row, outputs in cast(dict[int, Any], engine.push_many(chunks)).items():
            for name in names:
                given[row][name].append(outputs[name] if len(names) > 1 else outputs)
    return [{name: np.concatenate(parts) for name, parts in one.items()} for one in given]
