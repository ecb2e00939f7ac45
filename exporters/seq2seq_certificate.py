"""The certificate of an encoder and its decoder: teacher-forced scores over random targets and over torch's own greedy ones."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..engine import Engine
from ..engine.artifact import Artifact, Parity
from ..engine.errors import ExportError
from ..engine.limits import index_limits
from .certifying import agreeing, made
from .finishing import Asked
from .parity import Comparison, approximation
from .quantizing import Kind, dequantized, quantized
from .seq2seq_parity import Task, compare, decoded_alone, sources_for, sources_of, targets_for
from .sequences import draws
from .stepping import Outputs

if TYPE_CHECKING:
    from .seq2seq_torch import Torch

BACKENDS = ("engine:ort", "engine:numba")  # what a certificate is about
GREEDY_STEPS = 12


@dataclass(frozen=True, slots=True)
class Truth:
    """What the modules give for tasks. greedy: how many of them, at the end, are torch's own greedy tokens; scores: the output they follow."""

    name: str
    tasks: list[Task]
    outputs: Outputs
    greedy: int
    scores: str | None


def certified_pair(exact: Artifact, small_encoder: Artifact | None, reference: "Torch", asked: Asked) -> Artifact:
    """The artifact with its certificate; with small weights where its encoder has such. Raises ExportError where an error is above its tolerance."""
    asked.say("what torch gives for random sources")
    truth = _truth(exact, reference)
    lines = _agreeing(exact, truth, asked)
    if asked.quantize is None or small_encoder is None:
        return _with_lines(exact, lines)
    small = _quantised(exact, small_encoder, truth, asked.quantize)
    encoder = replace(small_encoder, model=dequantized(small_encoder.model))
    expected = decoded_alone(replace(small, model=dequantized(small.model), encoder=encoder), truth.tasks)
    same = Truth(f"{asked.quantize} weights as float32", truth.tasks, expected, 0, None)
    return _with_lines(small, _agreeing(small, same, asked))


def scores_output(artifact: Artifact) -> str | None:
    """The output that says how likely each token is next, where the decoder's one input is a token: as many numbers as the token's table has rows."""
    spec, limits = artifact.spec, index_limits(artifact)
    if len(spec.inputs) != 1 or spec.inputs[0].shape or spec.inputs[0].name not in limits:
        return None
    tokens = (limits[spec.inputs[0].name],)
    return next((o.name for o in spec.outputs if o.shape == tokens and o.dtype.startswith("float")), None)


def _truth(artifact: Artifact, reference: "Torch") -> Truth:
    """Random sources with random targets, and with those that torch finds most likely, token by token."""
    assert artifact.encoder is not None
    assert artifact.spec.encoder is not None
    whole, spec = artifact.encoder, artifact.spec
    examples = {
        n: t.detach().cpu().numpy() for n, t in zip(reference.call.input_names, reference.call.example, strict=True)
    }
    sources = sources_for(artifact, draws(whole.spec, whole.model, examples))
    given = {n: t.detach().cpu().numpy() for n, t in zip(reference.step.frames, reference.step.example, strict=True)}
    targets = targets_for(len(sources), draws(spec, artifact.model, given))
    tasks, scores = [Task(s, t) for s, t in zip(sources, targets, strict=True)], scores_output(artifact)
    if scores is not None:
        token, first = spec.inputs[0], artifact.spec.encoder.start or 0
        said = [reference.greedy(source, scores, first, GREEDY_STEPS).astype(token.dtype) for source in sources]
        tasks += [Task(s, {token.name: t}) for s, t in zip(sources, said, strict=True)]
    return Truth(reference.name, tasks, reference.outputs(tasks), len(tasks) - len(sources), scores)


def _agreeing(artifact: Artifact, truth: Truth, asked: Asked) -> list[Parity]:
    found = compare(artifact, truth.tasks, truth.outputs, truth.name, BACKENDS, asked.progress)
    lines = agreeing(found, "module")
    if not lines:
        raise ExportError(f"no backend runs the encoder and its decoder: {found[0]}")
    return [_with_greedy(artifact, line, truth) for line in lines]


def _with_greedy(artifact: Artifact, line: Comparison, truth: Truth) -> Parity:
    """The certificate's line, which says how many greedy tokens are torch's; another one is allowed where its score is as good, but for rounding."""
    if truth.scores is None:
        return line.as_parity()
    tasks = truth.tasks[-truth.greedy :]
    given = greedy_by_engine(artifact, tasks, truth.scores, line.backend.removeprefix("engine:"))
    equal = 0
    for task, outputs, mine in zip(tasks, truth.outputs[-truth.greedy :], given, strict=True):
        theirs = next(iter(task.target.values()))
        differs = np.flatnonzero(theirs != mine)
        same = int(differs[0]) if len(differs) else len(mine)
        equal += same - 1
        if len(differs):
            row = outputs[truth.scores][same - 1]
            gap = float(row[theirs[same]] - row[mine[same]])
            if gap > 2 * line.tolerance[truth.scores]:
                raise ExportError(
                    f"{line.backend} says token {mine[same]} where torch says {theirs[same]}, whose score is {gap:.3g} more; nothing was written"
                )
    return msgspec.structs.replace(line.as_parity(), greedy=(equal, len(tasks) * (GREEDY_STEPS - 1)))


def greedy_by_engine(artifact: Artifact, tasks: list[Task], scores: str, backend: str) -> np.ndarray:
    """The tokens that each task's decoder is given, int64 (tasks, GREEDY_STEPS), its own most likely ones after the first."""
    engine, keys = Engine(artifact, backend=backend, max_streams=len(tasks)), list(range(len(tasks)))
    engine.read_many(sources_of(artifact, tasks))
    name = artifact.spec.inputs[0].name
    given = [np.array([task.target[name][0] for task in tasks])]
    for _ in range(GREEDY_STEPS - 1):
        values, _ = engine.step(keys, given[-1])
        found = values[scores] if len(artifact.spec.outputs) > 1 else values
        given.append(found.argmax(1).astype(given[0].dtype))
    return np.stack(given, 1)


def _quantised(exact: Artifact, small_encoder: Artifact, truth: Truth, quantize: Kind) -> Artifact:
    """The artifact with small weights, which says how far they take it from the truth."""
    assert exact.encoder is not None
    small = made(quantized(exact.model, quantize), exact.spec, exact.path, small_encoder)
    given = decoded_alone(small, truth.tasks)
    sources = [task.source for task in truth.tasks]
    line = approximation("quantize", quantize, sources, given, truth.outputs, truth.name)
    size = exact.model.ByteSize() + exact.encoder.model.ByteSize()
    line = msgspec.structs.replace(line, exact_bytes=size)
    return replace(small, spec=msgspec.structs.replace(small.spec, approximations=(line,)))


def _with_lines(artifact: Artifact, lines: list[Parity]) -> Artifact:
    return replace(artifact, spec=msgspec.structs.replace(artifact.spec, certificate=tuple(lines)))
