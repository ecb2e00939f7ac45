"""From a step graph to an artifact that may be written: compared with its reference, quantised if so asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx

from ..engine.artifact import Artifact, StepSpec, make_artifact
from ..engine.errors import ArtifactError, ExportError
from .parity import Comparison, approximation, compare
from .quantizing import Kind, dequantized, quantized
from .sequences import Sequence
from .stepping import Outputs, stepped_alone, stepped_together

BACKENDS = ("ort", "engine:numba")  # what a certificate is about, see `parity.compare`


@dataclass(frozen=True, slots=True)
class Truth:
    """What the whole model gives. name: of the program that gave it; noun: what the user calls the model."""

    name: str
    sequences: list[Sequence]
    outputs: Outputs
    noun: str = "module"


def made(model: onnx.ModelProto, spec: StepSpec, path: Path | None) -> Artifact:
    """A step graph as an artifact; raises ExportError where it is none."""
    try:
        return make_artifact(model, spec, path)
    except ArtifactError as error:
        raise ExportError(f"the step graph is not a valid artifact: {error}") from error


def certified(
    artifact: Artifact,
    truth: Truth,
    *,
    quantize: Kind | None = None,
    backends: tuple[str, ...] = BACKENDS,
    progress: Callable[[str], None] | None = None,
) -> Artifact:
    """The artifact, quantised if so asked, with its certificate. Raises ExportError where an error is above its tolerance.

    Where weights are quantised the step graph is compared with the truth before, and the certificate's reference is the step
    graph with the same weights as plain float32 tensors.
    """
    if quantize is None:
        return _with_lines(artifact, _agreeing(artifact, truth, backends, progress))
    small = made(quantized(artifact.model, quantize), artifact.spec, artifact.path)
    _agreeing(artifact, truth, ("ort",), progress)
    small = _approximate(artifact, small, truth, quantize)
    plain = replace(small, model=dequantized(small.model))
    expected = stepped_alone(plain, truth.sequences)
    same = Truth(f"{quantize} weights as float32", truth.sequences, expected, truth.noun)
    return _with_lines(small, _agreeing(small, same, backends, progress))


def _approximate(exact: Artifact, small: Artifact, truth: Truth, quantize: Kind) -> Artifact:
    """The quantised artifact, which says how far it is from the truth."""
    given = stepped_together(small, truth.sequences)
    line = approximation("quantize", quantize, truth.sequences, given, truth.outputs, truth.name)
    line = msgspec.structs.replace(line, exact_bytes=exact.model.ByteSize())
    spec = small.spec
    return replace(small, spec=msgspec.structs.replace(spec, approximations=(*spec.approximations, line)))


def _agreeing(
    artifact: Artifact, truth: Truth, backends: tuple[str, ...], progress: Callable[[str], None] | None
) -> list[Comparison]:
    found = compare(artifact, truth.sequences, truth.outputs, truth.name, backends, progress)
    for line in found:
        if not line.problem and not line.ok:
            raise ExportError(
                f"the step graph is not the {truth.noun}: {line}; nothing was written. If the {truth.noun} is deterministic, and its outputs "
                f"for a stream do not depend on other streams or on earlier calls, please report this with the {truth.noun}"
            )
    return [line for line in found if not line.problem]


def _with_lines(artifact: Artifact, lines: list[Comparison]) -> Artifact:
    certificate = tuple(line.as_parity() for line in lines)
    return replace(artifact, spec=msgspec.structs.replace(artifact.spec, certificate=certificate))
