"""From a step graph to an artifact that may be written: compared with its reference, quantised if so asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx

from ..engine.artifact import Artifact, StepSpec, make_artifact
from ..engine.errors import ArtifactError, ExportError
from .parity import Comparison, approximation, compare, last_alone
from .quantizing import Kind, dequantized, quantized
from .sequences import Sequence
from .stepping import Outputs, stepped_alone, stepped_together

BACKENDS = ("ort", "engine:numba")  # what a certificate is about, see `parity.compare`
WHOLE_BACKENDS = ("engine:ort",)  # likewise, of a graph of whole sequences


@dataclass(frozen=True, slots=True)
class Truth:
    """What the whole model gives. name: of the program that gave it; noun: what the user calls the model.

    exact, approximate: where `outputs` are those of an approximation, the model's own, and the options and their values. last: the
    last output of each sequence counts alone.
    """

    name: str
    sequences: list[Sequence]
    outputs: Outputs
    noun: str = "module"
    exact: Outputs | None = None
    approximate: tuple[tuple[str, str], ...] = ()
    last: bool = False


def made(model: onnx.ModelProto, spec: StepSpec, path: Path | None, encoder: Artifact | None = None) -> Artifact:
    """A step graph as an artifact; raises ExportError where it is none."""
    try:
        return make_artifact(model, spec, path, encoder)
    except ArtifactError as error:
        raise ExportError(f"the step graph is not a valid artifact: {error}") from error


def certified(
    artifact: Artifact,
    truth: Truth,
    *,
    quantize: Kind | None = None,
    progress: Callable[[str], None] | None = None,
) -> Artifact:
    """The artifact, quantised if so asked, with its certificate. Raises ExportError where an error is above its tolerance.

    Where weights are quantised the step graph is compared with the truth before, and the certificate's reference is the step
    graph with the same weights as plain float32 tensors.
    """
    artifact = _approximated(artifact, truth)
    backends = WHOLE_BACKENDS if artifact.spec.sequence else BACKENDS
    if quantize is None:
        return _with_lines(artifact, _agreeing(artifact, truth, backends, progress))
    small = made(quantized(artifact.model, quantize), artifact.spec, artifact.path)
    _agreeing(artifact, truth, ("ort",), progress)
    small = _quantised(artifact, small, truth, quantize)
    plain = replace(small, model=dequantized(small.model))
    expected = stepped_alone(plain, truth.sequences)
    same = Truth(f"{quantize} weights as float32", truth.sequences, expected, truth.noun, last=truth.last)
    return _with_lines(small, _agreeing(small, same, backends, progress))


def _approximated(artifact: Artifact, truth: Truth) -> Artifact:
    """The artifact, which says how far what was asked for is from the exact model."""
    if truth.exact is None:
        return artifact
    lines = tuple(
        approximation(kind, value, truth.sequences, truth.outputs, truth.exact, truth.name)
        for kind, value in truth.approximate
    )
    return replace(artifact, spec=msgspec.structs.replace(artifact.spec, approximations=lines))


def _quantised(exact: Artifact, small: Artifact, truth: Truth, quantize: Kind) -> Artifact:
    """The quantised artifact, which says how far it is from the truth."""
    given = stepped_together(small, truth.sequences)
    if truth.last:
        given = last_alone(given)
    line = approximation("quantize", quantize, truth.sequences, given, truth.exact or truth.outputs, truth.name)
    line = msgspec.structs.replace(line, exact_bytes=exact.model.ByteSize())
    spec = small.spec
    return replace(small, spec=msgspec.structs.replace(spec, approximations=(*spec.approximations, line)))


def _agreeing(
    artifact: Artifact, truth: Truth, backends: tuple[str, ...], progress: Callable[[str], None] | None
) -> list[Comparison]:
    found = compare(artifact, truth.sequences, truth.outputs, truth.name, backends, progress, truth.last)
    return agreeing(found, truth.noun)


def agreeing(found: list[Comparison], noun: str) -> list[Comparison]:
    """The comparisons of the backends that run the model. Raises ExportError where an error is above its tolerance."""
    for line in found:
        if not line.problem and not line.ok:
            raise ExportError(
                f"the step graph is not the {noun}: {line}; nothing was written. If the {noun} is deterministic, and its outputs "
                f"for a stream do not depend on other streams or on earlier calls, please report this with the {noun}"
            )
    return [line for line in found if not line.problem]


def _with_lines(artifact: Artifact, lines: list[Comparison]) -> Artifact:
    certificate = tuple(line.as_parity() for line in lines)
    return replace(artifact, spec=msgspec.structs.replace(artifact.spec, certificate=certificate))
