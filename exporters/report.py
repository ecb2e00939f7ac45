"""What an export made, for people and programs."""

import math
from dataclasses import dataclass
from pathlib import Path

from ..engine.artifact import Approximation, EncoderSpec, Parity, StepSpec


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export` made.

    parity: the certificate. notes: what the caller should know of, such as outputs that are states and were left out.
    What was approximated by request is in `spec.approximations`.
    """

    path: Path
    spec: StepSpec
    parity: tuple[Parity, ...]
    notes: tuple[str, ...]
    file_bytes: int
    seconds: float

    def __str__(self) -> str:
        spec = self.spec
        lines = [f"{self.path}: {self.file_bytes:,} bytes, {self.seconds:.1f} s", f"  {timing(spec)}"]
        for what, tensors in (("input", spec.inputs), ("output", spec.outputs), ("state", spec.states)):
            lines += [f"  {what} {t.name}: {t.dtype} {list(t.shape)}" for t in tensors]
        lines += [f"  {stated(p)}" for p in self.parity]
        lines += [f"  {approximated(a)}" for a in spec.approximations]
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


def timing(spec: StepSpec) -> str:
    """Delay, rate and state of a model in words."""
    if spec.sequence:
        return "whole sequences: all outputs of a stream come at its end"
    if spec.encoder is not None:
        return f"a decoder whose encoder fills memory of {_count(spec.encoder.max_memory, 'position')}; {spec.state_bytes:,} bytes of state a stream"
    return (
        f"delay {_count(spec.delay, 'frame')}; {_count(spec.frames_per_step, 'frame')} in, {spec.outputs_per_step} out a step; "
        f"{spec.state_bytes:,} bytes of state a stream"
    )


def stated(line: Parity) -> str:
    """A line of the certificate."""
    errors = ", ".join(f"{name} {_error(line, name)}{_allowed(line, name)}" for name in line.max_abs_error)
    greedy = "" if line.greedy is None else f"; {line.greedy[0]} of {line.greedy[1]} greedy tokens the same"
    return f"{line.backend} against {line.reference}, {_sequences(line)}: worst absolute error {errors}{greedy}"


def approximated(line: Approximation) -> str:
    """What was asked for, and what it costs."""
    errors = ", ".join(f"{name} {_error(line, name)}" for name in line.max_abs_error)
    size = "" if line.exact_bytes is None else f", a graph of {line.exact_bytes:,} bytes before"
    return f"{line.kind} {line.parameter}{size}; against {line.reference}, {_sequences(line)}: worst absolute error {errors}"


def encoded(encoder: EncoderSpec) -> list[str]:
    """What an encoder fills, in words."""
    fills, begins = (", ".join(_pair(*pair) for pair in pairs) for pairs in (encoder.memory, encoder.initial))
    tokens = [f"{name} token {t}" for name, t in (("start", encoder.start), ("stop", encoder.stop)) if t is not None]
    lines = [f"a row a position: {fills}" if fills else "", f"at the last position: {begins}" if begins else ""]
    return [
        *filter(None, lines),
        f"the number of positions: {encoder.length}",
        *([", ".join(tokens)] if tokens else []),
    ]


def _pair(output: str, state: str) -> str:
    return state if output == state else f"{output} into {state}"


def _error(line: Parity | Approximation, name: str) -> str:
    relative = line.max_rel_error.get(name, math.nan)
    return f"{line.max_abs_error[name]:.2g}" + ("" if math.isnan(relative) else f" ({relative:.2g} of its scale)")


def _allowed(line: Parity, name: str) -> str:
    return f", allowed {line.tolerance[name]:.2g}" if name in line.tolerance else ""


def _sequences(line: Parity | Approximation) -> str:
    return f"{line.sequences} sequences of {', '.join(map(str, line.lengths))} frames"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
