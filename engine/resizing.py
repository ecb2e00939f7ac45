"""Resize along feature axes whose sizes are known: the nearest entries, or lines between two, one axis after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, feature_axis, floats, given, optional, text
from .elementwise import pointwise
from .folding import BATCH_SIZE
from .program import BATCH, Lowering, Program, Unsupported, Value
from .shapes import taken

Places = Callable[[np.ndarray, int, int, float], np.ndarray]

COORDINATES: dict[str, Places] = {
    "half_pixel": lambda i, size, new, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, size, new, scale: (i + 0.5) / scale - 0.5 if new > 1 else 0.0 * i,
    "asymmetric": lambda i, size, new, scale: i / scale,
    "align_corners": lambda i, size, new, scale: i * (size - 1) / (new - 1) if new > 1 else 0.0 * i,
    "half_pixel_symmetric": lambda i, size, new, scale: size / 2 * (1 - new / (scale * size)) + (i + 0.5) / scale - 0.5,
}
NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, mode = given(inputs), text(attributes, "mode", "nearest")
    how = text(attributes, "coordinate_transformation_mode", "half_pixel")
    policy = text(attributes, "keep_aspect_ratio_policy", "stretch")
    if mode not in ("nearest", "linear") or how not in COORDINATES or policy != "stretch":
        raise Unsupported(f"resizing by {mode!r}, {how!r}, {policy!r}")
    if attributes.get("antialias", 0):
        raise Unsupported("resizing with antialias")
    axes = [range(len(x.shape))[a] for a in attributes.get("axes", range(len(x.shape)))]
    for axis, (size, scale) in zip(axes, _targets(x, axes, inputs), strict=True):
        if x.shape[axis] == BATCH or (size == x.shape[axis] and scale == 1):
            continue
        old = x.shape[feature_axis(x, axis, "resizing")]
        at = COORDINATES[how](np.arange(size), old, size, scale)
        if mode == "nearest":
            chosen = NEAREST[text(attributes, "nearest_mode", "round_prefer_floor")](at)
            x = taken(program, x, axis, np.clip(chosen, 0, old - 1).astype(np.int64))
        else:
            x = _between(program, floats([x]), axis, np.clip(at, 0, old - 1))
    return [x]


def _targets(x: Value, axes: list[int], inputs: Inputs) -> list[tuple[int, float]]:
    """The new size of each axis and how many times the old one it is."""
    if optional(inputs, 3) is not None:
        sizes = constant(inputs, 3, "sizes").tolist()
        scales = [1.0 if n == BATCH_SIZE else n / abs(x.shape[a]) for a, n in zip(axes, sizes, strict=True)]
    else:
        scales = constant(inputs, 2, "scales").tolist()
        sizes = [BATCH_SIZE if x.shape[a] == BATCH else int(x.shape[a] * s) for a, s in zip(axes, scales, strict=True)]
    for a, size, scale in zip(axes, sizes, scales, strict=True):
        if x.shape[a] == BATCH and (size != BATCH_SIZE or scale != 1):
            raise Unsupported("resizing the batch axis")
    return list(zip(sizes, scales, strict=True))


def _between(program: Program, x: Value, axis: int, at: np.ndarray) -> Value:
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    wide = [-1 if i == axis else 1 for i in range(len(x.shape))]
    share = (at - low).astype(np.float32).reshape(wide)
    parts = [
        pointwise(program, "Mul", [taken(program, x, axis, places), program.parameter(weight)])
        for places, weight in ((low, 1 - share), (high, share))
    ]
    return pointwise(program, "Add", parts)


RESIZING: dict[str, Lowering] = {"Resize": resize}
