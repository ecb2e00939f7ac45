"""One step graph over its section of the arena: frames of many streams in, the outputs that became ready out."""

import numpy as np

from .artifact import Artifact, StepSpec
from .backends import Backends
from .frames import Intake
from .section import Section


class _FrameEach:
    """A frame of each stream: so many ones, and each one's place. They are asked for at every step, and made anew only to grow."""

    def __init__(self) -> None:
        self.ones, self.places = np.ones(0, np.int64), np.arange(0)

    def __call__(self, count: int) -> np.ndarray:
        if count > len(self.ones):
            self.places, self.ones = np.arange(2 * count), np.ones(2 * count, np.int64)
        return self.ones[:count]


_FRAME_EACH = _FrameEach()


def one_each(streams: int) -> np.ndarray:
    """So many ones, int64: a frame of each stream."""
    return _FRAME_EACH(streams)


class Stage:
    """Steps streams that the caller names by slot. Knows no keys, and neither locks nor checks."""

    def __init__(self, artifact: Artifact, section: Section, backends: Backends):
        self.artifact, self.section, self.backends = artifact, section, backends
        self.spec, self.intake = artifact.spec, Intake(artifact.spec, backends.limits)
        self.delay_rows = hidden_rows(self.spec)

    def nothing(self) -> list[np.ndarray]:
        """No row of each output."""
        return [np.zeros((0, *t.shape), t.dtype) for t in self.spec.outputs]

    def ready(self, frames: np.ndarray) -> np.ndarray:
        """How many outputs are out once a stream has seen so many frames."""
        spec = self.spec
        return np.maximum(0, frames // spec.frames_per_step * spec.outputs_per_step - self.delay_rows)

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Steps each stream over its next counts[i] rows of the inputs: the ready rows, in order, and how many each stream has."""
        spec = self.spec
        before = self.section.frames[slots] if spec.delay or spec.frames_per_step > 1 else None
        steps, rests = counts, []
        if spec.frames_per_step > 1 and before is not None:
            inputs, steps, rests = self.intake.whole_steps(self.section, slots, before, counts, inputs)
        if steps.base is _FRAME_EACH.ones:
            total, first = len(steps), _FRAME_EACH.places[: len(steps)]
        else:
            ends = np.cumsum(steps)
            total, first = int(ends[-1]) if len(ends) else 0, ends - steps
        outputs = self.intake.room(total)
        if len(slots):
            frames = steps * spec.frames_per_step if spec.frames_per_step > 1 else steps
            self.backends.at(len(slots)).run(slots, first, steps, frames, now, inputs, outputs)
        rows = steps * spec.outputs_per_step if spec.outputs_per_step > 1 else steps
        if spec.outputs_per_step > 1:
            outputs = [y.reshape(-1, *y.shape[2:]) for y in outputs]
        if before is None:
            return outputs, rows
        self.intake.hold(rests)
        self.section.frames[slots] = before + counts
        hidden = np.clip(self.delay_rows - before // spec.frames_per_step * spec.outputs_per_step, 0, rows)
        if hidden.any():
            place = np.arange(len(outputs[0])) - np.repeat(np.cumsum(rows) - rows, rows)
            outputs = [y[place >= np.repeat(hidden, rows)] for y in outputs]
        return outputs, rows - hidden

    def flush(self, slot: int, now: int) -> list[np.ndarray]:
        """The rows of each output that the end of the stream pushes out."""
        spec, seen = self.spec, int(self.section.frames[slot])
        k, m = spec.frames_per_step, spec.outputs_per_step
        done = max(0, seen // k * m - self.delay_rows)
        total = spec.outputs_of(seen)
        left = total - done
        if spec.valid_input is None or left <= 0:
            return self.nothing()
        steps = -(-(total + self.delay_rows) // m) - seen // k
        inputs, outputs = self.intake.tail(self.section, slot, seen % k, steps), self.intake.room(steps)
        index = np.array([slot], np.int64)
        one = np.array([steps], np.int64)
        valid = np.array([seen % k], np.int64)
        self.backends.at(1).run(index, np.zeros(1, np.int64), one, valid, now, inputs, outputs)
        self.section.frames[slot] = seen  # the buffered ones were counted as they came
        hidden = min(max(0, self.delay_rows - seen // k * m), steps * m)
        flat = [y.reshape(-1, *y.shape[2:]) if m > 1 else y for y in outputs]
        return [y[hidden : hidden + left] for y in flat]


def hidden_rows(spec: StepSpec) -> int:
    """Outputs of the first steps that answer no frame, because of the delay."""
    return -(-spec.delay * spec.outputs_per_step // spec.frames_per_step)
