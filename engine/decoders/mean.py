"""`[decode] type = "mean"`: the mean of the outputs so far, or of the last ones."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from numba import njit, types

from ..artifact import StateSpec
from ..cache import load_static
from .choosing import chosen_output
from .decoder import About, Decoder, Events, Outputs


class Mean(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="mean"):
    """`mean` and `deviation` of an output's values over the stream so far, with each output.

    output: which one, where the model has several. half_life: weights halve after so many outputs; without it all count alike.
    The recurrence is West's (1979), for weights that decay: the first output's mean is itself, its deviation 0.
    """

    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    half_life: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model has not what it needs."""
        output = chosen_output("mean", about.spec, self.output)
        return RunningMean(output.name, output.shape, 1.0 if self.half_life is None else 0.5 ** (1 / self.half_life))


class RunningMean:
    """Over the streams' rows."""

    spare = 0

    def __init__(self, output: str, shape: tuple[int, ...], decay: float):
        self._output, self._shape, self._decay = output, shape, decay
        size = (int(np.prod(shape)),)
        self.states = (
            StateSpec("decode.mean", "decode.mean", size, "float64"),
            StateSpec("decode.variance", "decode.variance", size, "float64"),
            StateSpec("decode.weight", "decode.weight", (), "float64"),
        )

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        given = outputs.values[self._output]
        mean = given.reshape(len(given), *self.states[0].shape).copy()
        deviation = np.empty_like(mean)
        states = [columns[s.name] for s in self.states]
        compiled().running_mean(outputs.slots, outputs.counts, self._decay, *states, mean, deviation)
        streams = np.repeat(np.arange(len(outputs.counts)), outputs.counts)
        return Events(streams, np.arange(len(given)), self._values(mean, deviation))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        none = np.zeros(0, np.int64)
        empty = np.zeros((0, *self.states[0].shape), np.float32)
        return Events(none, none, self._values(empty, empty), none)

    def _values(self, mean: np.ndarray, deviation: np.ndarray) -> dict[str, np.ndarray]:
        shape = (len(mean), *self._shape)
        return {"mean": mean.reshape(shape), "deviation": deviation.reshape(shape)}


@njit(nogil=True)
def running_mean(slots, counts, decay, means, variances, weights, mean, deviation):
    """mean (R, N): the values, replaced by their running means; deviation (R, N). means, variances (S, N) and weights (S,) of the arena."""
    row = 0
    for i in range(slots.size):
        slot = slots[i]
        for _ in range(counts[i]):
            weight = decay * weights[slot] + 1.0
            weights[slot] = weight
            share = 1.0 / weight
            for k in range(mean.shape[1]):
                step = np.float64(mean[row, k]) - means[slot, k]
                means[slot, k] += share * step
                variances[slot, k] = (1.0 - share) * (variances[slot, k] + share * step * step)
                mean[row, k] = means[slot, k]
                deviation[row, k] = np.sqrt(variances[slot, k])
            row += 1


@cache
def compiled() -> Any:
    """The loop, compiled once a process."""
    f64, i64 = types.float64, types.int64
    wide, flat = types.Array(f64, 2, "A"), types.Array(f64, 1, "A")
    signature = (i64[::1], i64[::1], f64, wide, wide, flat, types.float32[:, ::1], types.float32[:, ::1])
    return load_static([running_mean], {"running_mean": [signature]})
