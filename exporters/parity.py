"""How far a step artifact is from its reference, and how far it may be.

Errors are absolute, and relative to the output's scale: its largest finite magnitude in the reference. (Relative to each
element they would say nothing: an element near 0 is the difference of larger ones, and has their rounding.)

The tolerance of an output is twice what rounding moved it by (`rounding.movements`: two programs are compared, each with
errors of its own), and one unit in the last place of its scale. So it follows from the number format and the model. It is
commonly 1e-6 to 1e-5 of the scale; a mistake (gates in another order, a state not carried) shows at 1e-2 and more.
Integers must be equal, and what is infinite or not a number must be so in both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..engine.artifact import Approximation, Artifact, Parity, StepSpec
from ..engine.errors import BackendError
from .chunking import stepped_by_engine
from .rounding import furthest, movements, unit_roundoff
from .sequences import Sequence
from .stepping import Outputs, stepped_together

LENGTHS = (1, 2, 7, 50)
WHOLE_LENGTHS = (1, 2, 5, 7, 29, 41, 50)  # several that go through a graph of whole sequences together
SEEDS = 3


def lengths_for(spec: StepSpec) -> tuple[int, ...]:
    """Lengths with one frame, a few, a step's and not a whole number of steps, and some beyond the delay."""
    if spec.sequence:
        return WHOLE_LENGTHS
    k = spec.frames_per_step
    return tuple(sorted({*LENGTHS[:3], k, 2 * k + 1, 7 * k, spec.delay + LENGTHS[-1] * min(k, 16) + k - 1}))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A backend beside a reference. By output: errors and tolerance; problem: why the backend cannot run the model, if so."""

    backend: str
    reference: str
    sequences: int
    lengths: tuple[int, ...]
    max_abs_error: dict[str, float]
    tolerance: dict[str, float]
    problem: str = ""
    max_rel_error: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every output is within its tolerance; true for a backend that cannot run the model."""
        return all(error <= self.tolerance[name] for name, error in self.max_abs_error.items())

    def as_parity(self) -> Parity:
        """A line of the certificate."""
        return Parity(
            self.backend.removeprefix("engine:"),
            self.reference,
            self.sequences,
            self.lengths,
            self.max_abs_error,
            self.max_rel_error,
            self.tolerance,
        )

    def __str__(self) -> str:
        if self.problem:
            return f"{self.backend}: cannot run it here: {self.problem}"
        errors = ", ".join(
            f"{name} {error:.2g} ({self.max_rel_error.get(name, math.nan):.2g} of its scale, allowed {self.tolerance[name]:.2g})"
            for name, error in self.max_abs_error.items()
        )
        return f"{self.backend} against {self.reference}, {self.sequences} sequences: worst absolute error {errors}"


def compare(
    artifact: Artifact,
    sequences: list[Sequence],
    expected: Outputs,
    reference: str,
    backends: tuple[str, ...],
    progress: Callable[[str], None] | None = None,
    last: bool = False,
) -> list[Comparison]:
    """Each backend beside what was expected. `ort`: all sequences as one batch; others: through the engine, in every cut.

    last: of each sequence's outputs the last counts alone.
    """
    expected = last_alone(expected) if last else expected
    if progress:
        progress("what rounding alone does to the outputs")
    together = stepped_together(artifact, sequences)
    allowed = tolerances(artifact, sequences, together, expected)
    scale, lengths = scales(expected), lengths_of(sequences)
    found = []
    for backend in backends:
        if progress:
            progress(f"certificate on {backend.removeprefix('engine:')}")
        try:
            runs = [together] if backend == "ort" else list(_by_engine(artifact, sequences, backend).values())
        except BackendError as error:
            found.append(Comparison(backend, reference, len(sequences), lengths, {}, allowed, str(error)))
            continue
        each = [worst_errors(last_alone(run) if last else run, expected) for run in runs]
        errors = {name: max(one[name] for one in each) for name in scale}
        relative = {name: relative_error(error, scale[name]) for name, error in errors.items()}
        found.append(Comparison(backend, reference, len(sequences), lengths, errors, allowed, max_rel_error=relative))
    return found


def last_alone(outputs: Outputs) -> Outputs:
    """The last output of each sequence, where it has one."""
    return [{name: array[-1:] for name, array in one.items()} for one in outputs]


def approximation(
    kind: str, parameter: str, sequences: list[Sequence], given: Outputs, exact: Outputs, reference: str
) -> Approximation:
    """The line of the metadata on what was asked for, with how far `given` is from `exact`."""
    errors, scale = worst_errors(given, exact), scales(exact)
    relative = {name: relative_error(error, scale[name]) for name, error in errors.items()}
    return Approximation(kind, parameter, reference, len(sequences), lengths_of(sequences), errors, relative)


def _by_engine(artifact: Artifact, sequences: list[Sequence], backend: str) -> dict[str, Outputs]:
    return stepped_by_engine(artifact, sequences, backend.removeprefix("engine:"))


def lengths_of(sequences: list[Sequence]) -> tuple[int, ...]:
    """The lengths that occur."""
    return tuple(sorted({len(next(iter(s.values()))) for s in sequences}))


def worst_errors(given: Outputs, expected: Outputs) -> dict[str, float]:
    """For each output the worst absolute error over all sequences; infinite where shapes or non-finite values differ."""
    return {
        name: max((furthest(g[name], e[name]) for g, e in zip(given, expected, strict=True)), default=0.0)
        for name in expected[0]
    }


def scales(expected: Outputs) -> dict[str, float]:
    """For each output its largest finite magnitude over all sequences."""
    found = {}
    for name in expected[0]:
        finite = [np.abs(e[name][np.isfinite(e[name])].astype(np.float64)).max(initial=0.0) for e in expected]
        found[name] = float(max(finite))
    return found


def relative_error(error: float, scale: float) -> float:
    """The error over the scale; as far as floats reach where the reference is all zeros and the backend is not."""
    return error / max(scale, float(np.finfo(np.float32).tiny)) if error else 0.0


def tolerances(artifact: Artifact, sequences: list[Sequence], together: Outputs, expected: Outputs) -> dict[str, float]:
    """For each output the largest absolute error that rounding explains; see above. together: the step graph's outputs."""
    return tolerance_of(movements(artifact, sequences, together), expected)


def tolerance_of(moved: dict[str, float], expected: Outputs) -> dict[str, float]:
    """For each output its tolerance, where rounding moved it so far."""
    scale, found = scales(expected), {}
    for name, first in expected[0].items():
        ulp = 2 * unit_roundoff(first.dtype) * scale[name] if first.dtype.kind == "f" else 0.0
        found[name] = ulp + 2 * moved[name]
    return found
