"""The end of every export of whole sequences: spec, certificate, file, report."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnx

from ..engine.artifact import Artifact, Origin, StepSpec, write_artifact
from ..engine.errors import ExportError
from .certifying import Truth, certified, made
from .parity import SEEDS, lengths_for
from .quantizing import Kind
from .report import ExportReport
from .sequences import Draw, Sequence, draws, random_sequences
from .step_pass import Step
from .stepping import Outputs


@dataclass(frozen=True, slots=True)
class Reference:
    """What the steps are compared with. noun: "module" or "model"; examples: values that it takes, by input.

    outputs: what it gives for one whole sequence, alone; it may raise anything where it takes no such length. exact, approximate: where
    `outputs` are those of an approximation, the model's own, and the options and their values. last: a sequence's last output counts alone.
    """

    name: str
    noun: str
    examples: Mapping[str, np.ndarray]
    outputs: Callable[[Sequence], dict[str, np.ndarray]]
    exact: Callable[[Sequence], dict[str, np.ndarray]] | None = None
    approximate: tuple[tuple[str, str], ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asked for."""

    path: Path
    frames_per_step: int = 1
    sample_rate_hz: float | None = None
    labels: tuple[str, ...] | None = None
    quantize: Kind | None = None
    progress: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)

    def say(self, what: str) -> None:
        """Tells the caller what is being done."""
        if self.progress:
            self.progress(what)

    def check(self) -> None:
        """Raises ExportError."""
        if self.frames_per_step < 1:
            raise ExportError(f"frames_per_step is {self.frames_per_step}, expected 1 or more")
        if not self.path.parent.is_dir():
            raise ExportError(f"{self.path}: the folder does not exist; make it first")


def finished(step: Step, asked: Asked, origin: Origin, reference: Reference) -> ExportReport:
    """The report of the artifact that it wrote. Raises ExportError, and writes nothing, where the steps differ from the reference."""
    notes = _notes(step, asked.frames_per_step, reference.noun)
    return _put(checked(step, asked, origin, reference), asked, notes)


def checked(step: Step, asked: Asked, origin: Origin, reference: Reference) -> Artifact:
    """The artifact with its certificate, not written yet. Raises ExportError where the steps differ from the reference."""
    spec = msgspec.structs.replace(step.spec, origin=origin)
    return _checked(step.model, spec, asked, lambda artifact: _truth(artifact, reference))


def written(
    model: onnx.ModelProto,
    spec: StepSpec,
    asked: Asked,
    truth: Callable[[Artifact], Truth],
    notes: tuple[str, ...],
) -> ExportReport:
    """The report of the artifact of a step graph, once it has been compared with the truth and written."""
    return _put(_checked(model, spec, asked, truth), asked, notes)


def _checked(model: onnx.ModelProto, spec: StepSpec, asked: Asked, truth: Callable[[Artifact], Truth]) -> Artifact:
    spec = msgspec.structs.replace(spec, sample_rate_hz=asked.sample_rate_hz, labels=asked.labels)
    check_labels(spec)
    artifact = made(model, spec, asked.path)
    asked.say("what it gives for random sequences")
    return certified(artifact, truth(artifact), quantize=asked.quantize, progress=asked.progress)


def _put(artifact: Artifact, asked: Asked, notes: tuple[str, ...]) -> ExportReport:
    path = asked.path
    write_artifact(path, artifact.model, artifact.spec)
    seconds = time.monotonic() - asked.began
    return ExportReport(path, artifact.spec, artifact.spec.certificate, notes, path.stat().st_size, seconds)


def check_labels(spec: StepSpec) -> None:
    """Some output has as many features as there are labels."""
    sizes = {o.name: o.shape[-1] for o in spec.outputs if o.shape}
    if spec.labels is not None and len(spec.labels) not in sizes.values():
        raise ExportError(
            f"{len(spec.labels)} labels are given, and no output has as many features: {sizes}; give one label for each"
        )


def _truth(artifact: Artifact, reference: Reference) -> Truth:
    """What the reference gives for random sequences of several lengths."""
    ways = draws(artifact.spec, artifact.model, reference.examples)
    sequences, expected = [], []
    for length in lengths_for(artifact.spec):
        found = _of_length(length, artifact, reference, ways)
        sequences, expected = sequences + found[0], expected + found[1]
    exact = None if reference.exact is None else [_whole(artifact, reference.exact, s) for s in sequences]
    return Truth(reference.name, sequences, expected, reference.noun, exact, reference.approximate, reference.last)


def _of_length(
    length: int, artifact: Artifact, reference: Reference, ways: dict[str, Draw]
) -> tuple[list[Sequence], Outputs]:
    """Random sequences of that length and what the reference gives for them, or of the next length that fills whole steps where it takes no other."""
    k = artifact.spec.frames_per_step
    for n in (length, -(-length // k) * k):
        sequences = random_sequences(ways, (n,), SEEDS)
        try:
            return sequences, [_whole(artifact, reference.outputs, one) for one in sequences]
        except Exception as error:  # the reference's own; a length that it does not take
            failed = error
    if length == max(lengths_for(artifact.spec)):
        raise ExportError(
            f"the {reference.noun} fails on a sequence of {length} frames ({type(failed).__name__}: {failed})"
        ) from failed
    return [], []


def _whole(
    artifact: Artifact, outputs: Callable[[Sequence], dict[str, np.ndarray]], sequence: Sequence
) -> dict[str, np.ndarray]:
    """What the reference gives; nothing where the sequence is shorter than it takes."""
    if not artifact.spec.outputs_of(len(next(iter(sequence.values())))):
        return {o.name: np.zeros((0, *o.shape), o.dtype) for o in artifact.spec.outputs}
    return outputs(sequence)


def rows(step: Step, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of one sequence (T, *out); one that has no time axis is the last of its rows."""
    axes = step.time_axes
    return {name: np.moveaxis(a, axes[name], 0)[:, 0] if axes[name] >= 0 else a for name, a in outputs.items()}


def _notes(step: Step, asked: int, noun: str) -> tuple[str, ...]:
    notes, taken = [], step.spec.frames_per_step
    if taken != asked:
        notes.append(
            f"a step takes {taken} frames, not {asked}: the {noun} gives {step.spec.outputs_per_step} outputs of so many"
        )
    names = ", ".join(repr(name) for name in step.finals)
    if step.finals and step.spec.sequence:
        notes.append(
            f"left out {names}: one row a stream, where the other outputs have one a frame; export it by itself"
        )
    elif step.finals:
        notes.append(f"left out {names}: the state after the last frame; read it with engine.state(key)")
    return tuple(notes)
