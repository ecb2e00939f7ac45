"""Whole sequences through a step artifact, as plainly as can be."""

from collections.abc import Collection, Mapping

import numpy as np
import onnxruntime

from ..engine.artifact import Artifact, TensorSpec
from .sequences import Sequence
from .worlds import plain_session

Outputs = list[dict[str, np.ndarray]]  # for each sequence, for each output (T, *out)
Begins = Collection[
    Mapping[str, np.ndarray]
]  # for each sequence, states that it begins with, by name; others as the artifact says


def stepped_alone(artifact: Artifact, sequences: list[Sequence], begins: Begins | None = None) -> Outputs:
    """Each sequence by itself, frame by frame, in ONNX Runtime as a plain interpreter; in one run where the graph takes it whole."""
    if artifact.spec.sequence:
        return whole(artifact, sequences)
    session, each = plain_session(artifact.model), begins or [{} for _ in sequences]
    return [_stepped(session, artifact, [s], [begin])[0] for s, begin in zip(sequences, each, strict=True)]


def whole(artifact: Artifact, sequences: list[Sequence]) -> Outputs:
    """Each sequence by itself through a graph of whole sequences."""
    spec, session, given = artifact.spec, plain_session(artifact.model), []
    for sequence in sequences:
        length = len(next(iter(sequence.values())))
        if not length or not spec.outputs_of(length):
            given.append({o.name: np.zeros((0, *o.shape), o.dtype) for o in spec.outputs})
            continue
        feed = {name: array[None] for name, array in sequence.items()}
        feed |= {spec.lengths_input: np.array([length])} if spec.lengths_input else {}
        made = session.run([o.name for o in spec.outputs], feed)
        given.append({o.name: np.asarray(y)[0] for o, y in zip(spec.outputs, made, strict=True)})
    return given


def stepped_together(artifact: Artifact, sequences: list[Sequence], begins: Begins | None = None) -> Outputs:
    """All sequences as one batch, frame by frame, in ONNX Runtime, if the graph takes one; a sequence that is over leaves it. Whole ones run alone."""
    if artifact.spec.sequence:
        return whole(artifact, sequences)
    if not artifact.spec.batchable:
        return stepped_alone(artifact, sequences, begins)
    return _stepped(plain_session(artifact.model), artifact, sequences, begins or [{} for _ in sequences])


def _stepped(
    session: onnxruntime.InferenceSession, artifact: Artifact, sequences: list[Sequence], begins: Begins
) -> Outputs:
    spec, k = artifact.spec, artifact.spec.frames_per_step
    lengths = np.array([len(next(iter(s.values()))) for s in sequences])
    stepped = lengths if spec.valid_input else lengths - lengths % k  # only who knows what is real steps over a part
    totals = [spec.outputs_of(n) if n else 0 for n in stepped]
    hidden = spec.delay * spec.outputs_per_step // k
    counts = np.array([-(-(total + hidden) // spec.outputs_per_step) if total else 0 for total in totals])
    states = {s.name: np.stack([begin.get(s.name, s.initial_value()) for begin in begins]) for s in spec.states}
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
