"""`verify`: the certificate's question again, on this machine and without torch.

The reference is ONNX Runtime as a plain interpreter of the step graph (no optimisation, one thread), each sequence alone
and frame by frame. Beside it stand the engine's backends, with all sequences as concurrent streams that arrive whole, one
frame at a time, and in random chunks. What may differ is what rounding explains (`parity`). So it proves that what the
engine does here, batched and compiled for this processor, is what the graph says; that the graph is what the torch module
computes, the certificate says, and the artifact's checksum seals that.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.artifact import Approximation, Artifact, Parity, read_artifact
from .parity import SEEDS, Comparison, compare, lengths_for
from .real_sequences import real_sequences
from .report import approximated, stated
from .sequences import draws, random_sequences
from .stepping import stepped_alone

BACKENDS = ("engine:ort", "engine:numba")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found. certificate, approximations: as exported. lines: each of the engine's backends on this machine."""

    path: Path
    fingerprint: str
    certificate: tuple[Parity, ...]
    approximations: tuple[Approximation, ...]
    lines: tuple[Comparison, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """At least one backend runs the model, all that do agree with the graph, and the certificate is complete."""
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.path}: {'verified' if self.ok else 'FAILED'} (fingerprint {self.fingerprint})"
        before = [f"  at export: {stated(p)}" for p in self.certificate] or ["  no certificate in the artifact"]
        before += [f"  by request: {approximated(a)}" for a in self.approximations]
        return "\n".join(
            [head, *before, *(f"  here: {line}" for line in self.lines), *(f"  problem: {p}" for p in self.problems)]
        )


def verify(
    path: str | os.PathLike[str],
    sequences: Iterable[Any] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Runs random sequences of several lengths, and those given, through the artifact on every backend, and compares.

    sequences: real ones: arrays `(T, *frame)`, or dicts of them by input; of a model with an encoder, sources. progress: is told what is being done.
    Raises ArtifactError where the file is not a step artifact, FrameError where a sequence is none of its inputs'.
    Disagreement is not raised, see `VerifyReport.ok`.
    """
    artifact = read_artifact(path)
    spec = artifact.spec
    if spec.encoder is not None:
        from .seq2seq_verifying import verified

        return _report(Path(path), artifact, verified(artifact, sequences or (), progress))
    tried = random_sequences(draws(spec, artifact.model, {}), lengths_for(spec), SEEDS)
    tried += real_sequences(spec, sequences or ())
    if progress:
        progress("the step graph as a plain interpreter runs it")
    expected = stepped_alone(artifact, tried)
    lines = compare(artifact, tried, expected, "the step graph, one stream alone", BACKENDS, progress)
    return _report(Path(path), artifact, lines)


def _report(path: Path, artifact: Artifact, lines: list[Comparison]) -> VerifyReport:
    spec = artifact.spec
    problems = [f"{line.backend} disagrees with the step graph" for line in lines if not line.ok]
    if all(line.problem for line in lines):
        problems.append("no backend of this machine runs the model")
    problems += _incomplete(spec.certificate, {o.name for o in spec.outputs})
    return VerifyReport(
        path, artifact.fingerprint.hex(), spec.certificate, spec.approximations, tuple(lines), tuple(problems)
    )


def _incomplete(certificate: tuple[Parity, ...], outputs: set[str]) -> list[str]:
    """What is wrong with the certificate by itself."""
    problems = []
    for line in certificate:
        if set(line.max_abs_error) != outputs:
            problems.append(
                f"the certificate's line for {line.backend} is about {sorted(line.max_abs_error)}, the outputs are {sorted(outputs)}"
            )
        if not all(math.isfinite(e) and e >= 0 for e in line.max_abs_error.values()):
            problems.append(f"the certificate's line for {line.backend} has an error that is not a number")
    return problems
