"""A chain of stages over one whole stream, the slow and obvious way: each stage by itself on an engine of its own, the gate a loop.

Delay, K frames and M outputs a step as `StepSpec` says: with delay D, output j of a stage answers its frame j * K // M, and comes with
the last frame of step (j + ceil(D * M / K)) // M.
"""

from dataclasses import dataclass

import numpy as np

from undertow.engine import Engine
from undertow.engine.artifact import Artifact, StepSpec
from undertow.engine.chain_config import Gate


@dataclass
class Said:
    """One output: its values, the frame of the stream that it answers, the frame with which it came (None: with the stretch's end)."""

    values: np.ndarray
    at: int
    known: int | None


def stage_said(artifact: Artifact, frames: list[np.ndarray]) -> list[Said]:
    """All outputs of one stage over its frames; `at` and `known` count these frames."""
    spec = artifact.spec
    engine = Engine(artifact, backend="ort", max_streams=2)
    begun = np.stack(frames) if frames else np.zeros((0, *spec.inputs[0].shape), spec.inputs[0].dtype)
    now = list(engine.push("s", begun))
    tail = list(engine.close("s"))
    said = []
    for j, values in enumerate(now + tail):
        known = comes_with(spec, j) if j < len(now) else None
        said.append(Said(values, j * spec.frames_per_step // spec.outputs_per_step, known))
    return said


def comes_with(spec: StepSpec, j: int) -> int:
    hidden = -(-spec.delay * spec.outputs_per_step // spec.frames_per_step)
    return ((j + hidden) // spec.outputs_per_step + 1) * spec.frames_per_step - 1


def through(artifacts: list[Artifact], frames: list[np.ndarray]) -> list[Said]:
    """Stages one behind the other."""
    said = [Said(f, i, i) for i, f in enumerate(frames)]
    for artifact in artifacts:
        inner = stage_said(artifact, [s.values for s in said])
        said = [Said(o.values, said[o.at].at, None if o.known is None else said[o.known].known) for o in inner]
    return said


@dataclass
class Stretch:
    """Frames begin .. stop pass. opened: the frame that opened the gate, closed: the one that closed it; None: the stream's end did."""

    begin: int
    stop: int
    opened: int | None
    closed: int | None = None


def stretches(gate: Gate, scores: list[Said], length: int) -> list[Stretch]:
    """What a gate lets pass of a stream of so many frames."""
    off, found, opened, passed = gate.on if gate.off is None else gate.off, list[Stretch](), None, 0
    run: list[Said] = []
    for score in scores:
        value = float(score.values.reshape(-1)[gate.value if isinstance(gate.value, int) else 0])
        run = [*run, score] if (value >= gate.on if opened is None else value < off) else []
        if opened is None and len(run) == gate.min_on:
            opened, run = Stretch(max(run[0].at - gate.before, passed), length, score.known), []
        elif opened is not None and len(run) == gate.min_off:
            opened.stop = passed = length if score.known is None else score.known + 1
            opened.closed = score.known
            found.append(opened)
            opened, run = None, []
    return [*found, opened] if opened else found


def gated(frames: list[np.ndarray], watch: list[Artifact], gate: Gate, behind: list[Artifact]) -> list[Said]:
    """What the stages behind the gate say of each stretch; `known` is None of what the stream's end makes known."""
    said = []
    for stretch in stretches(gate, through(watch, frames), len(frames)):
        for o in through(behind, frames[stretch.begin : stretch.stop]):
            known = stretch.closed
            if stretch.opened is not None and o.known is not None:
                known = max(stretch.begin + o.known, stretch.opened)
            said.append(Said(o.values, stretch.begin + o.at, known))
    return said
