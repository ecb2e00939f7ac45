"""Slow, obvious quantile forecasts of one stream, by a copy of the stream that is fed what it says. The oracle of `engine/decoders/quantiles.py`."""

from collections.abc import Callable

import numpy as np

from undertow.engine.artifact import Artifact

from .naive import NaiveStream


def sorted_values(output: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """(..., Q) in the user's unit, ascending."""
    return np.array(
        [sorted(float(x) * scale + offset for x in row) for row in output.reshape(-1, output.shape[-1])]
    ).reshape(output.shape)


def fed_back(
    artifact: Artifact, frames: np.ndarray, ahead: int, name: str, fed: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> np.ndarray:
    """(T, ahead, *out): after each frame the output of that name, and of the steps after it, each fed what `fed` makes of the one before."""
    stream, found = NaiveStream(artifact), []
    (x,) = artifact.spec.inputs
    for frame in frames:
        (said,) = stream.feed({x.name: frame})
        copy, path = stream.copy(), [said[name]]
        for _ in range(ahead - 1):
            (said,) = copy.feed({x.name: fed(said).reshape(x.shape)})
            path.append(said[name])
        found.append(path)
    return np.array(found)
