"""Steps copies of streams on by what they say themselves, on spare slots of the arena; the streams never know."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..artifact import StateSpec, StepSpec, TensorSpec
from ..errors import ConfigError
from ..layout import Layout
from ..ragged import starts_of
from .decoder import Outputs

_COPIES = 256  # that are stepped at once


def fed_inputs(
    feed: Mapping[str, str | float] | None, spec: StepSpec, output: TensorSpec, levels: Sequence[float]
) -> dict[str, tuple[str, int | None]]:
    """For each input the output that is fed to it, and which of that one's values, None: all. Raises ConfigError."""
    inputs = {t.name: t for t in spec.inputs}
    if feed is None and len(inputs) > 1:
        raise ConfigError(
            f"[decode] ahead: the model has inputs {list(inputs)}; say with feed what each of them is fed"
        )
    feed = {next(iter(inputs)): levels[len(levels) // 2]} if feed is None else feed
    if feed.keys() != inputs.keys():
        raise ConfigError(
            f"[decode] feed: is of {sorted(feed)}, the model has inputs {sorted(inputs)}; expected each of them"
        )
    outputs, found = {t.name: t for t in spec.outputs}, {}
    for name, what in feed.items():
        if isinstance(what, str) and what not in outputs:
            raise ConfigError(
                f"[decode] feed.{name} = {what!r} is neither a level nor an output of the model, which has {list(outputs)}"
            )
        if not isinstance(what, str) and what not in levels:
            raise ConfigError(
                f"[decode] feed.{name} = {what}: expected one of levels = {list(levels)}, or the name of an output"
            )
        source = outputs[what] if isinstance(what, str) else output
        size = int(np.prod(source.shape)) if isinstance(what, str) else 1
        if (source.dtype, inputs[name].dtype, size) != ("float32", "float32", int(np.prod(inputs[name].shape))):
            raise ConfigError(
                f"[decode] feed.{name} = {what!r}: is {size} of {source.dtype}, input '{name}' is {inputs[name].dtype} {inputs[name].shape}; "
                "expected as many float32 values"
            )
        found[name] = (source.name, None if isinstance(what, str) else list(levels).index(what))
    if not spec.at_once:
        raise ConfigError(
            "[decode] ahead: the model does not answer each frame at once, so what it says cannot be its next frame"
        )
    return found


class Feedback:
    """What a stream's model says of the next `ahead` steps, each from what it said of the one before.

    When a batch's outputs come, the streams' states are those after its last frame, and a forecast is asked for after each frame. So
    the row holds a second copy of the states, `decode.copy`, as they were before the batch: it takes the batch's frames one by one
    on spare slots, and goes on from there. A stream costs its state twice, and each frame is stepped 1 + `ahead` times.
    """

    def __init__(self, spec: StepSpec, ahead: int, feed: Mapping[str, tuple[str, int | None]]):
        self.ahead, self.spare = ahead, _COPIES
        self._spec, self._feed = spec, feed
        layout = Layout.of(spec)
        initial = layout.initial(spec.states).tobytes()
        self.states = (StateSpec("decode.copy", "decode.copy", (layout.row_bytes,), "uint8", initial),)

    def ahead_of(self, columns: Mapping[str, np.ndarray], outputs: Outputs, rows: np.ndarray, name: str) -> np.ndarray:
        """(len(rows), ahead, *out): the output of that name at the rows, and of the steps after each."""
        if index := self._feed.keys() & outputs.stage.backends.limits.keys():
            raise ConfigError(f"[decode] feed.{min(index)}: this input is the index of a table, which no output is")
        found = np.zeros((len(outputs.at), self.ahead, *outputs.values[name].shape[1:]), np.float32)
        due = np.zeros(len(outputs.at), np.bool_)
        due[rows] = True
        first = starts_of(outputs.counts)
        for wave in range(int(outputs.counts.max(initial=0))):
            live = np.flatnonzero(outputs.counts > wave)
            for begin in range(0, len(live), self.spare):
                part = live[begin : begin + self.spare]
                self._from(columns["decode.copy"], outputs, outputs.slots[part], first[part] + wave, due, name, found)
        return found[rows]

    def _from(
        self,
        copies: np.ndarray,
        outputs: Outputs,
        slots: np.ndarray,
        rows: np.ndarray,
        due: np.ndarray,
        name: str,
        found: np.ndarray,
    ) -> None:
        """Takes the copies of these slots over the frames of their rows; and those that are due on from there."""
        section = outputs.stage.section
        spare = np.arange(section.slots - self.spare, section.slots - self.spare + len(slots))
        section.rows[spare] = copies[slots]
        section.arena.wrote(spare)
        said = self._step(outputs, spare, [outputs.frames[t.name][rows] for t in self._spec.inputs])
        copies[slots] = section.arena.read(spare)[:, section.offset : section.offset + copies.shape[1]]
        asked = due[rows]
        spare, rows = spare[asked], rows[asked]
        said = {k: y[asked] for k, y in said.items()}
        for step in range(self.ahead if len(rows) else 0):
            found[rows, step] = said[name]
            if step + 1 < self.ahead:
                said = self._step(outputs, spare, [self._fed(said, t) for t in self._spec.inputs])

    def _fed(self, said: Mapping[str, np.ndarray], tensor: TensorSpec) -> np.ndarray:
        source, value = self._feed[tensor.name]
        given = said[source] if value is None else np.sort(said[source], axis=-1)[..., value]
        return np.ascontiguousarray(given.reshape(-1, *tensor.shape))

    def _step(self, outputs: Outputs, slots: np.ndarray, frames: list[np.ndarray]) -> dict[str, np.ndarray]:
        given, _ = outputs.stage.advance(slots, np.ones(len(slots), np.int64), frames, 0)
        return {t.name: y.copy() for t, y in zip(self._spec.outputs, given, strict=True)}
