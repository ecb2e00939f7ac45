"""Whole sequences through the engine as it is used: concurrent streams, their frames arriving in several kinds of chunks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import Engine
from ..engine.artifact import Artifact
from .sequences import Sequence
from .stepping import Outputs

LONGEST_CHUNK = 8

Cut = Callable[[int], int]  # how many frames come next, of so many that are left


def cuts() -> dict[str, Cut]:
    """The ways to cut a sequence, by name. Random chunks may be empty, and are the same ones every time."""
    rng = np.random.default_rng(0)
    return {
        "whole": lambda left: left,
        "one by one": lambda left: 1,
        "random chunks": lambda left: min(int(rng.integers(0, LONGEST_CHUNK + 1)), left),
    }


def stepped_by_engine(artifact: Artifact, sequences: list[Sequence], backend: str) -> dict[str, Outputs]:
    """By the name of the cut, what the sequences give as concurrent streams of one engine. Raises BackendError."""
    engine = Engine(artifact, backend=backend, max_streams=max(1, len(sequences)))
    return {name: kept_in_order(engine, sequences, cut) for name, cut in cuts().items()}


def kept_in_order(engine: Engine, sequences: list[Sequence], cut: Cut) -> Outputs:
    """What the sequences give, cut so, as the streams 0, 1, .. of the engine, which are closed at their ends."""
    names = [o.name for o in engine.spec.outputs]
    given: list[dict[str, list[np.ndarray]]] = [
        {o.name: [np.zeros((0, *o.shape), o.dtype)] for o in engine.spec.outputs} for _ in sequences
    ]

    def keep(row: Any, outputs: Any) -> None:
        for name in names:
            given[row][name].append(outputs[name] if len(names) > 1 else outputs)

    lengths = [len(next(iter(s.values()))) for s in sequences]
    done, begun = [0] * len(sequences), set[int]()
    while any(at < n for at, n in zip(done, lengths, strict=True)):
        chunks = {}
        for row, sequence in enumerate(sequences):
            if size := cut(lengths[row] - done[row]) if done[row] < lengths[row] else 0:
                chunk = {name: array[done[row] : done[row] + size] for name, array in sequence.items()}
                chunks[row] = chunk if len(chunk) > 1 else next(iter(chunk.values()))
                done[row] += size
        begun.update(chunks)
        for row, outputs in engine.push_many(chunks).items():
            keep(row, outputs)
    tails = engine.close_many(begun)
    for row in begun:
        keep(row, tails[row])
    return [{name: np.concatenate(parts) for name, parts in one.items()} for one in given]
