"""How far a step artifact is from its reference, and how far it may be.

Tolerance: 1e-4 of the output's scale (its largest magnitude in the reference). A step differs from the whole sequence in
the order of float32 sums, 6e-8 of the scale each; through a few hundred terms and the recurrence this stays below 1e-5.
A mistake (gates in another order, a state not carried) shows at 1e-2 and more. Integers must be equal.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..engine.artifact import Artifact, Parity, StepSpec
from ..engine.errors import BackendError
from .sequences import Sequence
from .stepping import Outputs, stepped_by_engine, stepped_together

LENGTHS = (1, 2, 7, 50)
SEEDS = 3
RELATIVE = 1e-4
SMALLEST_SCALE = 1e-3  # below it an output is rounding noise of larger values inside


def lengths_for(spec: StepSpec) -> tuple[int, ...]:
    """Lengths with one frame, a few, a step's and not a whole number of steps, and some beyond the delay."""
    k = spec.frames_per_step
    return tuple(sorted({*LENGTHS[:3], k, 2 * k + 1, 7 * k, spec.delay + LENGTHS[-1] * min(k, 16) + k - 1}))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A backend beside a reference. tolerance, by output; problem: why the backend cannot run the model, if so."""

    backend: str
    reference: str
    sequences: int
    lengths: tuple[int, ...]
    max_abs_error: dict[str, float]
    tolerance: dict[str, float]
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Every output is within its tolerance; true for a backend that cannot run the model."""
        return all(error <= self.tolerance[name] for name, error in self.max_abs_error.items())

    def as_parity(self) -> Parity:
        """A line of the certificate."""
        return Parity(
            self.backend.removeprefix("engine:"), self.reference, self.sequences, self.lengths, self.max_abs_error
        )

    def __str__(self) -> str:
        if self.problem:
            return f"{self.backend}: cannot run it here: {self.problem}"
        errors = ", ".join(
            f"{name} {error:.2g} (allowed {self.tolerance[name]:.2g})" for name, error in self.max_abs_error.items()
        )
        return f"{self.backend} against {self.reference}, {self.sequences} sequences: worst absolute error {errors}"


def compare(
    artifact: Artifact, sequences: list[Sequence], expected: Outputs, reference: str, backends: tuple[str, ...]
) -> list[Comparison]:
    """Each backend beside what was expected. `ort`: all sequences as one batch; others: through the engine, in chunks."""
    allowed = tolerances(expected)
    lengths = tuple(sorted({len(next(iter(s.values()))) for s in sequences}))
    found = []
    for backend in backends:
        try:
            if backend == "ort":
                given = stepped_together(artifact, sequences)
            else:
                given = stepped_by_engine(artifact, sequences, backend.removeprefix("engine:"))
        except BackendError as error:
            found.append(Comparison(backend, reference, len(sequences), lengths, {}, allowed, str(error)))
        else:
            found.append(
                Comparison(backend, reference, len(sequences), lengths, worst_errors(given, expected), allowed)
            )
    return found


def worst_errors(given: Outputs, expected: Outputs) -> dict[str, float]:
    """For each output the worst absolute error over all sequences; infinite where shapes or non-finite values differ."""
    return {
        name: max((_error(g[name], e[name]) for g, e in zip(given, expected, strict=True)), default=0.0)
        for name in expected[0]
    }


def _error(given: np.ndarray, expected: np.ndarray) -> float:
    if given.shape != expected.shape:
        return math.inf
    g, e = given.astype(np.float64), expected.astype(np.float64)
    differs = ~((g == e) | (np.isnan(g) & np.isnan(e)))
    worst = np.abs(g[differs] - e[differs]).max(initial=0.0)
    return float(worst) if np.isfinite(worst) else math.inf


def tolerances(expected: Outputs) -> dict[str, float]:
    """For each output the largest error that float32 explains."""
    found = {}
    for name, first in expected[0].items():
        finite = [np.abs(e[name][np.isfinite(e[name])]).max(initial=0.0) for e in expected]
        found[name] = RELATIVE * max(float(max(finite)), SMALLEST_SCALE) if first.dtype.kind == "f" else 0.0
    return found
