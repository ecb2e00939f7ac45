"""Whole sequences through a step artifact: as plainly as can be, and through the engine as it is used."""

from typing import Any, cast

import numpy as np
import onnxruntime

from ..engine.artifact import Artifact, TensorSpec
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
    spec, k = artifact.spec, artifact.spec.frames_per_step
    lengths = np.array([len(next(iter(s.values()))) for s in sequences])
    totals = [spec.outputs_of(n) if n else 0 for n in lengths]
    hidden = spec.delay * spec.outputs_per_step // k
    counts = np.array([-(-(total + hidden) // spec.outputs_per_step) if total else 0 for total in totals])
    states = {s.name: np.stack([s.initial_value()] * len(sequences)) for s in spec.states}
    given: list[dict[str, list[np.ndarray]]] = [{o.name: [] for o in spec.outputs} for _ in sequences]
    wanted = [o.name for o in spec.outputs] + [s.next for s in spec.states]
    for t in range(counts.max(initial=0)):
        alive = np.flatnonzero(counts > t)
        feed = {i.name: np.stack([_block(sequences[row][i.name], t, k) for row in alive]) for i in spec.inputs}
        if spec.valid_input:
            feed[spec.valid_input] = np.clip(lengths[alive] - t * k, 0, k)
        made = session.run(wanted, feed | {name: array[alive] for name, array in states.items()})
        results = {name: np.asarray(array) for name, array in zip(wanted, made, strict=True)}
        for s in spec.states:
            states[s.name][alive] = results[s.next]
        for at, row in enumerate(alive):
            for o in spec.outputs:
                block = results[o.name][at]
                given[row][o.name].append(block if spec.outputs_per_step > 1 else block[None])
    return [
        {o.name: _ready(one[o.name], o, hidden, total) for o in spec.outputs}
        for one, total in zip(given, totals, strict=True)
    ]


def _block(sequence: np.ndarray, t: int, k: int) -> np.ndarray:
    """Step t's frames; zeros after the end."""
    frames = sequence[t * k : (t + 1) * k]
    blank = np.zeros((k - len(frames), *sequence.shape[1:]), sequence.dtype)
    block = np.concatenate([frames, blank])
    return block if k > 1 else block[0]


def _ready(blocks: list[np.ndarray], tensor: TensorSpec, hidden: int, total: int) -> np.ndarray:
    """A stream's outputs, without those that answer to no frame."""
    none = np.zeros((0, *tensor.shape), tensor.dtype)
    return np.concatenate([none, *blocks])[hidden : hidden + total]


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
    for row, length in enumerate(lengths):
        if not length:
            continue
        tail = engine.close(row)
        for name in names:
            given[row][name].append(tail[name] if len(names) > 1 else tail)
    blank = {o.name: np.zeros((0, *o.shape), o.dtype) for o in artifact.spec.outputs}
    return [{name: np.concatenate([blank[name], *parts]) for name, parts in one.items()} for one in given]
