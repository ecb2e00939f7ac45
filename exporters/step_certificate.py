"""An adopted step beside the graphs that it was made of, and beside the model of whole sequences that it steps."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime

from ..engine.artifact import Artifact
from ..engine.errors import ExportError
from .certifying import Truth, certified
from .hand_loop import Loop
from .parity import SEEDS, Comparison, compare, lengths_for
from .quantizing import Kind
from .sequences import draws, random_sequences
from .stepping import Outputs
from .whole_reference import outputs_of_whole

BACKENDS = ("engine:ort", "engine:numba")  # what the certificate is about, see `parity.compare`


def step_certificate(
    artifact: Artifact, loop: Loop, reference: Path | None, time_axis: int, say: Callable[[str], None]
) -> list[Comparison]:
    """The certificate's lines, those of backends that cannot run it too. Raises ExportError where one is above its tolerance."""
    spec = artifact.spec
    sequences = random_sequences(draws(spec, artifact.model, {}), lengths_for(spec), SEEDS)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    say("the graphs as they are, in a loop")
    files = ", ".join(part.path.name for part in loop.parts)
    truths: list[tuple[str, Outputs]] = [(f"{runtime}, {files} in a loop, one stream", loop.run(spec, sequences))]
    if reference is not None:
        whole = outputs_of_whole(reference, spec, sequences, time_axis)
        truths.append((f"{runtime}, {reference.name} on the whole sequence", whole))
    lines = [line for name, expected in truths for line in compare(artifact, sequences, expected, name, BACKENDS, say)]
    _check(lines)
    return lines


def small_step(artifact: Artifact, loop: Loop, kind: Kind, say: Callable[[str], None]) -> Artifact:
    """The artifact with small weights, which says how far they take it from the graphs as they are."""
    spec = artifact.spec
    sequences = random_sequences(draws(spec, artifact.model, {}), lengths_for(spec), SEEDS)
    files = ", ".join(part.path.name for part in loop.parts)
    truth = Truth(f"{files} in a loop, one stream", sequences, loop.run(spec, sequences), "graph")
    return certified(artifact, truth, quantize=kind, progress=say)


def _check(lines: Sequence[Comparison]) -> None:
    for line in lines:
        if not line.problem and not line.ok:
            raise ExportError(
                f"the step differs from its reference: {line}; nothing was written. Are the states paired rightly?"
            )
    if all(line.problem for line in lines):
        raise ExportError(f"no backend runs the step: {lines[0]}")
