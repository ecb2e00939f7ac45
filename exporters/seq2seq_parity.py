"""How far an encoder and its decoder are from their reference, taken together: sources are read, then targets are stepped.

As `parity` is for one graph: what rounding may explain is measured with errors put into both graphs, those of the encoder
going on into what the decoder begins with.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import Engine
from ..engine.artifact import Artifact, StepSpec
from ..engine.encoder_entry import begun
from ..engine.errors import BackendError, BatchError
from ..engine.index import Key
from .chunking import cuts, kept_in_order
from .parity import Comparison, lengths_of, relative_error, scales, tolerance_of, worst_errors
from .rounding import DRAWS, Noise, furthest_moves
from .sequences import Draw, Sequence, random_sequences
from .stepping import Begins, Outputs, stepped_alone, stepped_together, whole

SOURCE_LENGTHS = (1, 2, 3, 5, 7, 16, 29, 41)
TARGET_LENGTHS = (1, 2, 7, 20)
SEEDS = 2
_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Task:
    """A source, and what its decoder is given."""

    source: Sequence
    target: Sequence


def sources_for(artifact: Artifact, ways: dict[str, Draw]) -> list[Sequence]:
    """Random sources of several lengths that memory has room for, the longest one too."""
    whole, room = _pair(artifact)
    lengths = {n for n in SOURCE_LENGTHS if 0 < whole.outputs_of(n) <= room} | {longest_source(whole, room)}
    return random_sequences(ways, tuple(sorted(lengths)), SEEDS)


def longest_source(whole: StepSpec, room: int) -> int:
    """The most frames, of up to 2,048, that give no more positions than that."""
    low, high = 0, _LONGEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if whole.outputs_of(middle) <= room else (low, middle)
    return low


def targets_for(count: int, ways: dict[str, Draw]) -> list[Sequence]:
    """So many random targets of several lengths."""
    rng = np.random.default_rng(count)
    lengths = [TARGET_LENGTHS[i % len(TARGET_LENGTHS)] for i in range(count)]
    return [{name: way.sequence(rng, n) for name, way in ways.items()} for n in lengths]


def decoded_alone(artifact: Artifact, tasks: list[Task]) -> Outputs:
    """What ONNX Runtime gives for each task by itself, as a plain interpreter of both graphs."""
    return stepped_alone(artifact, [t.target for t in tasks], begins(artifact, tasks))


def begins(artifact: Artifact, tasks: list[Task]) -> Begins:
    """What each task's decoder begins with, by a plain interpreter."""
    assert artifact.encoder is not None
    return [begun(artifact.spec, one) for one in whole(artifact.encoder, [t.source for t in tasks])]


def compare(
    artifact: Artifact,
    tasks: list[Task],
    expected: Outputs,
    reference: str,
    backends: tuple[str, ...],
    progress: Callable[[str], None] | None,
) -> list[Comparison]:
    """Each of the engine's backends beside what was expected: all tasks as concurrent streams, in several cuts."""
    if progress:
        progress("what rounding alone does to the outputs")
    allowed, scale = tolerances(artifact, tasks, expected), scales(expected)
    lengths, found = lengths_of([t.source for t in tasks]), []
    for backend in backends:
        if progress:
            progress(f"certificate on {backend.removeprefix('engine:')}")
        try:
            runs = list(_by_engine(artifact, tasks, backend.removeprefix("engine:")))
        except (BackendError, BatchError) as error:
            found.append(Comparison(backend, reference, len(tasks), lengths, {}, allowed, str(error)))
            continue
        each = [worst_errors(_real(artifact, run, expected), expected) for run in runs]
        errors = {name: max(one[name] for one in each) for name in scale}
        relative = {name: relative_error(error, scale[name]) for name, error in errors.items()}
        found.append(Comparison(backend, reference, len(tasks), lengths, errors, allowed, max_rel_error=relative))
    return found


def tolerances(artifact: Artifact, tasks: list[Task], expected: Outputs) -> dict[str, float]:
    """For each output the largest absolute error that rounding in either graph explains."""
    assert artifact.encoder is not None
    sources, targets = [t.source for t in tasks], [t.target for t in tasks]
    first = begins(artifact, tasks)
    steady = stepped_together(artifact, targets, first)
    encoder, decoder = Noise(artifact.encoder, sources), Noise(artifact, targets, first)

    def draws() -> Iterator[Outputs]:
        for draw in range(DRAWS):
            moved = [begun(artifact.spec, one) for one in encoder.outputs(draw, sources)]
            yield decoder.outputs(draw, targets, moved)

    return tolerance_of(furthest_moves(draws(), steady), expected)


def _by_engine(artifact: Artifact, tasks: list[Task], backend: str) -> Iterator[Outputs]:
    """For each way to cut the targets, what the tasks give as concurrent streams of one engine. Raises BackendError."""
    engine = Engine(artifact, backend=backend, max_streams=max(1, len(tasks)))
    for cut in cuts().values():
        engine.read_many(sources_of(artifact, tasks))
        yield kept_in_order(engine, [t.target for t in tasks], cut)


def _real(artifact: Artifact, given: Outputs, expected: Outputs) -> Outputs:
    """Outputs that have a number for each position, as attention does, without those behind the source, where the reference has none."""
    room = _pair(artifact)[1]
    return [
        {
            name: y[
                tuple(slice(m) if n == room else slice(None) for n, m in zip(y.shape, wanted[name].shape, strict=True))
            ]
            if y.ndim == wanted[name].ndim
            else y
            for name, y in one.items()
        }
        for one, wanted in zip(given, expected, strict=True)
    ]


def sources_of(artifact: Artifact, tasks: list[Task]) -> dict[Key, Any]:
    """The sources of the streams 0, 1, .., as an engine reads them."""
    assert artifact.encoder is not None
    inputs = [t.name for t in artifact.encoder.spec.inputs]
    return {i: t.source if len(inputs) > 1 else t.source[inputs[0]] for i, t in enumerate(tasks)}


def _pair(artifact: Artifact) -> tuple[StepSpec, int]:
    assert artifact.encoder is not None
    assert artifact.spec.encoder is not None
    return artifact.encoder.spec, artifact.spec.encoder.max_memory
