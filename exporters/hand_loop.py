"""The reference of an adopted step: the user's own graphs in ONNX Runtime, one stream, states kept by hand.

Nothing here goes through the graph that `adopt` makes: axes, overlap, links and constants are NumPy's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine.artifact import StepSpec
from .boundary import order
from .joining import Part
from .placing import Axes, Place, overlap_axis
from .roles import Roles
from .sequences import Sequence as Frames
from .stepping import Outputs
from .worlds import plain_session


@dataclass(frozen=True, slots=True)
class Loop:
    """What is known of the graphs. initial: each state as its own graph takes it. places: of frames and outputs, one stream's."""

    parts: Sequence[Part]
    roles: Roles
    axes: Axes
    frames: Mapping[str, Place]
    outputs: Mapping[str, Place]
    initial: Mapping[str, np.ndarray]
    constants: Mapping[str, np.ndarray]

    def run(self, spec: StepSpec, sequences: Sequence[Frames]) -> Outputs:
        """Each sequence by itself, step by step."""
        sessions = [plain_session(part.model) for part in self.parts]
        return [self._one(sessions, spec, sequence) for sequence in sequences]

    def _one(self, sessions: list, spec: StepSpec, sequence: Frames) -> dict[str, np.ndarray]:
        k, m = spec.frames_per_step, spec.outputs_per_step
        total = spec.outputs_of(len(next(iter(sequence.values()))))
        states = dict(self.initial)
        past = {n: np.zeros(self._past_shape(n), self.frames[n].dtype) for n in self.axes.overlap}
        blocks: dict[str, list[np.ndarray]] = {o.name: [] for o in spec.outputs}
        for t in range(total // m):
            values = dict(self.constants) | states
            for name, place in self.frames.items():
                fresh = _laid(place, sequence[name][t * k : (t + 1) * k])
                values[name] = self._overlapped(name, past, fresh)
            for session in sessions:
                names = [o.name for o in session.get_outputs()]
                made = session.run(names, {i.name: values[i.name] for i in session.get_inputs()})
                values |= dict(zip(names, made, strict=True))
                values |= {after: values[before] for before, after in self.roles.links.items() if before in names}
            states = {name: values[after] for name, after in self.roles.states.items()}
            for o in spec.outputs:
                block = _standard(self.outputs[o.name], values[o.name])
                blocks[o.name].append(block if self.outputs[o.name].time is not None else block[None])
        return {
            o.name: np.concatenate([np.zeros((0, *o.shape), o.dtype), *blocks[o.name]])[:total] for o in spec.outputs
        }

    def _past_shape(self, name: str) -> tuple[int, ...]:
        place, extra = self.frames[name], self.axes.overlap[name]
        along = overlap_axis(len(place.sizes), place.time)
        return tuple(extra if i == along else size for i, size in enumerate(place.sizes))

    def _overlapped(self, name: str, past: dict[str, np.ndarray], fresh: np.ndarray) -> np.ndarray:
        if name not in past:
            return fresh
        place, extra = self.frames[name], self.axes.overlap[name]
        along = overlap_axis(len(place.sizes), place.time)
        joined = np.concatenate([past[name], fresh], axis=along)
        past[name] = np.take(joined, range(joined.shape[along] - extra, joined.shape[along]), axis=along)
        return joined


def _laid(place: Place, block: np.ndarray) -> np.ndarray:
    """The frames (K, *frame) of one stream as the graph has its axes."""
    block = block if place.time is not None else block[0]
    block = block if place.batch is None else block[None]
    return np.transpose(block, np.argsort(order(place)))


def _standard(place: Place, array: np.ndarray) -> np.ndarray:
    """One stream's output, time first where it has one."""
    turned = np.transpose(array, order(place))
    return turned if place.batch is None else turned[0]
