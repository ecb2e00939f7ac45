"""More of the ONNX operators in plain NumPy, as `naive_ops`: places, scans, windows that pool, angles, products by equation."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

Arrays = list[Any]


def cum_sum(x, axis, exclusive=0, reverse=0):
    x = np.flip(x, int(axis)) if reverse else x
    y = np.cumsum(x, int(axis)) - (x if exclusive else 0)
    return np.flip(y, int(axis)) if reverse else y


def arg(best: Callable[..., Any]) -> Callable[..., Any]:
    def run(x, axis=0, keepdims=1, select_last_index=0):
        if select_last_index:
            return x.shape[axis] - 1 - best(np.flip(x, axis), axis=axis, keepdims=bool(keepdims))
        return best(x, axis=axis, keepdims=bool(keepdims))

    return run


def top_k(x, k, axis=-1, largest=1, sorted=1):
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    places = np.take(order, range(int(k[0])), axis=axis)
    return [np.take_along_axis(x, places, axis), places]


def pad(x, pads, value=None, axes=None, mode="constant"):
    axes = range(x.ndim) if axes is None else axes
    for i, a in enumerate(axes):
        before, after = int(pads[i]), int(pads[len(axes) + i])
        x = np.take(x, range(max(0, -before), x.shape[a] - max(0, -after)), axis=a)
        widths = [(max(0, before), max(0, after)) if j == a % x.ndim else (0, 0) for j in range(x.ndim)]
        more = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        x = np.pad(x, widths, mode, **more)
    return x


def one_hot(index, depth, values, axis=-1):
    depth, (off, on) = int(np.reshape(depth, -1)[0]), values
    axis = axis % (index.ndim + 1)
    every = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(index.ndim + 1)])
    index = np.expand_dims(np.where(index < 0, index + depth, index), axis)
    return np.where(index == every, on, off)


def pool(reduce: Callable[..., Any], empty: float) -> Callable[..., Any]:
    """Windows over spatial axes, one place after the other; without dilation, padding by itself or ceil_mode."""

    def run(x, kernel_shape, strides=None, pads=None, count_include_pad=0):
        n = len(kernel_shape)
        strides, pads = strides or [1] * n, pads or [0] * 2 * n
        x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)], constant_values=empty)
        sizes = [(x.shape[2 + i] - kernel_shape[i]) // strides[i] + 1 for i in range(n)]
        y = np.zeros((*x.shape[:2], *sizes))
        for at in product(*(range(s) for s in sizes)):
            cut = tuple(slice(p * s, p * s + k) for p, s, k in zip(at, strides, kernel_shape, strict=True))
            y[(..., *at)] = reduce(x[(..., *cut)], axis=tuple(range(2, 2 + n)))
        return y

    return run


def log_sum_exp(x, axis, keepdims):
    peak = x.max(axis=axis, keepdims=True)
    y = np.log(np.exp(x - peak).sum(axis=axis, keepdims=True)) + peak
    return y if keepdims else np.squeeze(y, axis)


WIDE: dict[str, Callable[..., Any]] = {
    "Sin": np.sin,
    "Cos": np.cos,
    "Tan": np.tan,
    "Mod": lambda a, b, fmod=0: np.fmod(a, b) if fmod else np.mod(a, b),
    "CumSum": cum_sum,
    "ArgMax": arg(np.argmax),
    "ArgMin": arg(np.argmin),
    "TopK": top_k,
    "Pad": pad,
    "Tile": np.tile,
    "Trilu": lambda x, k=0, upper=1: np.triu(x, int(k)) if upper else np.tril(x, int(k)),
    "OneHot": one_hot,
    "GatherElements": lambda x, index, axis=0: np.take_along_axis(x, index, axis),
    "Einsum": lambda *xs, equation: np.einsum(equation, *xs),
    "MaxPool": pool(np.max, -math.inf),
    "AveragePool": pool(np.nanmean, math.nan),
}
