"""How far an engine is from torch on the module itself: any length, any chunks, both ends. Independent of the certificate."""

import numpy as np
import torch
from torch import nn

from undertow.engine import Engine
from undertow.engine.artifact import Artifact

from .architectures import Architecture

Outputs = dict[str, np.ndarray]  # (T', *out) by name


def worst_error(architecture: Architecture, artifact: Artifact, backend: str, seed: int) -> float:
    """The worst absolute error over streams of few and of many frames, in chunks of random sizes, all in one engine."""
    rng = np.random.default_rng(seed)
    module, spec = architecture.module(), artifact.spec
    lengths = _lengths(architecture, artifact, rng)
    given = _streamed(architecture, artifact, backend, lengths, rng)
    worst = 0.0
    for length, got in zip(lengths, given, strict=True):
        expected = _whole(architecture, module, length)
        for output in spec.outputs:
            wanted = expected.get(output.name, np.zeros((0, *output.shape), output.dtype))
            if got[output.name].shape != wanted.shape:
                return float("inf")
            worst = max(worst, float(np.abs(got[output.name] - wanted).max(initial=0.0)))
    return worst


def _lengths(architecture: Architecture, artifact: Artifact, rng: np.random.Generator) -> list[int]:
    """One, two and three frames, those around the first output, and random ones; multiples where the module takes no other."""
    spec = artifact.spec
    first = next(n for n in range(1, 10_000) if spec.outputs_of(n))
    wanted = {1, 2, 3, max(1, first - 1), first, first + 1, spec.delay + 1, 50}
    wanted |= {int(n) for n in rng.integers(4, 8 * spec.frames_per_step + 40, 3)}
    multiple = architecture.multiple
    return sorted({-(-n // multiple) * multiple for n in wanted})


def _streamed(
    architecture: Architecture, artifact: Artifact, backend: str, lengths: list[int], rng: np.random.Generator
) -> list[Outputs]:
    engine = Engine(artifact, backend=backend, max_streams=len(lengths))
    names = [o.name for o in artifact.spec.outputs]
    blank = {o.name: np.zeros((0, *o.shape), o.dtype) for o in artifact.spec.outputs}
    given: list[dict[str, list[np.ndarray]]] = [{n: [blank[n]] for n in names} for _ in lengths]
    whole = [architecture.frames(length) for length in lengths]
    at = [0] * len(lengths)

    def keep(row: int, made: object) -> None:
        for name in names:
            given[row][name].append(made[name] if isinstance(made, dict) else np.asarray(made))

    while any(a < n for a, n in zip(at, lengths, strict=True)):
        chunks = {}
        for row, length in enumerate(lengths):
            size = min(int(rng.integers(0, 3 * artifact.spec.frames_per_step + 6)), length - at[row])
            if size:
                cut = {n: a[at[row] : at[row] + size] for n, a in whole[row].items()}
                chunks[row] = cut if len(cut) > 1 else next(iter(cut.values()))
                at[row] += size
        for row, made in engine.push_many(chunks).items():
            keep(int(row), made)
    for row in range(len(lengths)):
        keep(row, engine.close(row))
    return [{name: np.concatenate(parts) for name, parts in one.items()} for one in given]


def _whole(architecture: Architecture, module: nn.Module, length: int) -> Outputs:
    """What the module gives for the whole sequence; nothing where it fails on so few frames.

    Where a bounded future or past was asked for: every output from the frames that it may see.
    """
    before, after = architecture.reach
    if before is None and after is None:
        return _of(architecture, module, 0, length, length)
    parts: list[Outputs] = []
    for t in range(length):
        begin = 0 if before is None else max(0, t - before)
        end = length if after is None else min(length, t + after + 1)
        made = _of(architecture, module, begin, end, length)
        parts.append({name: array[t - begin : t - begin + 1] for name, array in made.items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _of(architecture: Architecture, module: nn.Module, begin: int, end: int, length: int) -> Outputs:
    inputs = architecture.inputs(1, length, seed=length)
    cut = [t.narrow(architecture.time_axis, begin, end - begin) for t in inputs.values()]
    try:
        with torch.no_grad():
            outputs = architecture.frame_outputs(module(*cut))
    except RuntimeError:  # a kernel is longer than the sequence
        return {}
    batch = 0 if architecture.time_axis else 1
    return {n: np.moveaxis(t.numpy(), (batch, architecture.output_axis), (0, 1))[0] for n, t in outputs.items()}
