"""One step graph over its section of the arena: frames of many streams in, the outputs that became ready out."""

import numpy as np

from .artifact import Artifact
from .backends import Backends
from .frames import Intake
from .section import Section


class Stage:
    """Steps streams that the caller names by slot. Knows no keys, and neither locks nor checks."""

    def __init__(self, artifact: Artifact, section: Section, backends: Backends):
        self.artifact, self.section, self.backends = artifact, section, backends
        self.spec, self.intake = artifact.spec, Intake(artifact.spec, backends.limits)
        self._first, self._ones = np.arange(0), np.ones(0, np.int64)
        self.delay_rows = -(-self.spec.delay * self.spec.outputs_per_step // self.spec.frames_per_step)

    def ones(self, count: int) -> np.ndarray:
        """So many ones, int64: a frame of each stream."""
        if count > len(self._ones):
            self._first, self._ones = np.arange(2 * count), np.ones(2 * count, np.int64)
        return self._ones[:count]

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
        if steps is self._ones or steps.base is self._ones:
            total, first = len(steps), self._first[: len(steps)]
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
            return [y.reshape(0, *y.shape[1 + (m > 1) :]) for y in self.intake.room(0)]
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
