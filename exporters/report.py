"""What an export made, for people and programs."""

from dataclasses import dataclass
from pathlib import Path

from ..engine.artifact import Parity, StepSpec


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export` made.

    parity: the certificate. notes: what the caller should know of, such as outputs that are states and were left out.
    """

    path: Path
    spec: StepSpec
    parity: tuple[Parity, ...]
    notes: tuple[str, ...]
    file_bytes: int
    seconds: float

    def __str__(self) -> str:
        spec = self.spec
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes, {spec.state_bytes} bytes of state a stream, {self.seconds:.1f} s"
        ]
        for what, tensors in (("input", spec.inputs), ("output", spec.outputs), ("state", spec.states)):
            lines += [f"  {what} {t.name}: {t.dtype} {list(t.shape)}" for t in tensors]
        for p in self.parity:
            errors = ", ".join(f"{name} {error:.2g}" for name, error in p.max_abs_error.items())
            lines.append(f"  {p.backend} against {p.reference}, {p.sequences} sequences: worst absolute error {errors}")
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])
