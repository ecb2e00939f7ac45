"""ONNX operators that models over blocks of frames use, in plain NumPy as `naive_ops`: transposed windows, resizing, norms of groups."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np


def conv_transpose(x, w, b=None, strides=None, dilations=None, pads=None, output_padding=None, group=1):
    """One entry of x after the other, spread over where it reaches."""
    n = x.ndim - 2
    strides, dilations, more = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
    pads = pads or [0] * 2 * n
    sizes, kernel = x.shape[2:], w.shape[2:]
    whole = [
        (s - 1) * t + d * (k - 1) + 1 + m for s, t, d, k, m in zip(sizes, strides, dilations, kernel, more, strict=True)
    ]
    y = np.zeros((len(x), w.shape[1] * group, *whole))
    maps, channels = w.shape[1], x.shape[1] // group
    for c, at, k in product(range(x.shape[1]), product(*map(range, sizes)), product(*map(range, kernel))):
        place = tuple(a * s + i * d for a, s, i, d in zip(at, strides, k, dilations, strict=True))
        first = c // channels * maps
        y[(slice(None), slice(first, first + maps), *place)] += (
            x[(slice(None), c, *at)][:, None] * w[(c, slice(None), *k)]
        )
    cut = [slice(pads[i], size - pads[n + i]) for i, size in enumerate(whole)]
    y = y[(..., *cut)]
    return y if b is None else y + np.reshape(b, (-1, *[1] * n))


PLACES: dict[str, Callable[..., float]] = {
    "half_pixel": lambda i, old, new, scale: (i + 0.5) / scale - 0.5,
    "asymmetric": lambda i, old, new, scale: i / scale,
    "align_corners": lambda i, old, new, scale: i * (old - 1) / (new - 1),
}


def resize(
    x,
    roi=None,
    scales=None,
    sizes=None,
    mode="nearest",
    coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor",
    axes=None,
):
    for i, axis in enumerate(range(x.ndim) if axes is None else axes):
        old = x.shape[axis]
        scale = float(scales[i]) if sizes is None else sizes[i] / old
        new = int(np.floor(old * scale)) if sizes is None else int(sizes[i])
        if new == old and scale == 1:
            continue
        rows = []
        for entry in range(new):
            at = PLACES[coordinate_transformation_mode](entry, old, new, scale)
            if mode == "nearest":
                place = int(np.floor(at)) if nearest_mode == "floor" else int(np.ceil(at - 0.5))
                rows.append(np.take(x, min(max(place, 0), old - 1), axis))
            else:
                at = min(max(at, 0), old - 1)
                low, high = (np.take(x, p, axis) for p in (int(at), min(int(at) + 1, old - 1)))
                rows.append(low * (1 - at % 1) + high * (at % 1))
        x = np.stack(rows, axis)
    return x


def group_norm(x, scale, bias, num_groups=None, epsilon=1e-5, stash_type=1):
    groups = x.reshape(len(x), num_groups or x.shape[1], -1)
    groups = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + epsilon)
    wide = (-1, *[1] * (x.ndim - 2))
    return groups.reshape(x.shape) * np.reshape(scale, wide) + np.reshape(bias, wide)


BLOCKS: dict[str, Callable[..., Any]] = {
    "ConvTranspose": conv_transpose,
    "Resize": resize,
    "GroupNormalization": group_norm,
    "InstanceNormalization": group_norm,
}
