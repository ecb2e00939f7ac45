"""The ONNX operators of a step graph in plain NumPy, written from the operator specification (opsets 13 to 21).

Every float is a float64 here, whatever the graph says: an oracle should be nearer to the true value than what it
judges, so that a difference is the error of the other side (about 1e-7 for one float32 operation). Integers and
booleans keep their own type, because wrap-around and truncation are part of their meaning. Cast alone rounds.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from onnx import helper

from .naive_blocks import BLOCKS
from .naive_recurrent import RECURRENT
from .naive_wide import WIDE, log_sum_exp

Arrays = list[Any]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def widen(x: np.ndarray) -> np.ndarray:
    """Floats as float64, everything else as it is."""
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


def hard_sigmoid(x, alpha=0.2, beta=0.5):
    return np.clip(alpha * x + beta, 0, 1)


def gelu(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def divide(a, b):
    """Integers are divided as in C: towards zero."""
    return a / b if a.dtype.kind == "f" else (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def clip(x, low=None, high=None):
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0):
    y = alpha * (a.T if transA else a) @ (b.T if transB else b)
    return y if c is None else y + beta * c


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(x, scale, bias=None, axis=-1, epsilon=1e-5, stash_type=1):
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + epsilon)
    y = (x - mean) * inverse * scale
    return [y if bias is None else y + bias, mean, inverse]


def split(x, sizes=None, axis=0, num_outputs=None, outputs=1):
    if sizes is None:
        n = num_outputs or outputs
        size = -(-x.shape[axis] // n)
        sizes = [min(size, x.shape[axis] - i * size) for i in range(n)]
    return np.split(x, np.cumsum(sizes)[:-1], axis=axis)


def slice_(x, starts, ends, axes=None, steps=None):
    """Out-of-range bounds are clamped to the axis, as the specification says for either sign of the step."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        n = x.shape[axis]
        low, high = (0, n) if step > 0 else (-1, n - 1)
        start = min(max(start + n if start < 0 else start, max(low, 0)), high)
        end = min(max(end + n if end < 0 else end, low), high)
        x = np.take(x, range(start, end, step), axis=axis)
    return x


def reshape(x, shape, allowzero=0):
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(shape)])


def squeeze(x, axes=None):
    return np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))


def flatten(x, axis=1):
    return x.reshape(math.prod(x.shape[: axis + x.ndim if axis < 0 else axis]), -1)


def expand(x, shape):
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


def cast(x, to, saturate=1):
    return x.astype(helper.tensor_dtype_to_np_dtype(to))


def reducer(reduce: Callable[..., Any]) -> Callable[..., Any]:
    def run(x, axes_input=None, axes=None, keepdims=1, noop_with_empty_axes=0):
        axes = axes_input if axes_input is not None else axes
        if axes is None or len(axes) == 0:
            if noop_with_empty_axes:
                return x
            axes = range(x.ndim)
        return reduce(x, axis=tuple(int(a) for a in axes), keepdims=bool(keepdims)).astype(x.dtype)

    return run


def padding(x, window, strides, auto_pad, pads):
    """Begin and end pads of each spatial axis; window is the dilated size of the kernel."""
    if auto_pad == "NOTSET":
        n = len(window)
        return list(zip(pads[:n], pads[n:], strict=True)) if pads else [(0, 0)] * n
    if auto_pad == "VALID":
        return [(0, 0)] * len(window)
    total = [max((-(-n // s) - 1) * s + w - n, 0) for n, s, w in zip(x.shape[2:], strides, window, strict=True)]
    return [(t // 2, t - t // 2) if auto_pad == "SAME_UPPER" else (t - t // 2, t // 2) for t in total]


def conv(x, w, b=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
    """Cross-correlation, one output position after the other."""
    n = w.ndim - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    window = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *padding(x, window, strides, auto_pad, pads)])
    sizes = [(x.shape[2 + i] - window[i]) // strides[i] + 1 for i in range(n)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes))
    per_group, channels = w.shape[0] // group, w.shape[1]
    for at in product(*(range(s) for s in sizes)):
        place = tuple(slice(p * s, p * s + k, d) for p, s, k, d in zip(at, strides, window, dilations, strict=True))
        for o in range(w.shape[0]):
            g = o // per_group
            patch = x[(slice(None), slice(g * channels, (g + 1) * channels), *place)]
            y[(slice(None), o, *at)] = (patch * w[o]).reshape(len(x), -1).sum(axis=1)
    return y if b is None else y + b.reshape(1, -1, *[1] * n)


OPS: dict[str, Callable[..., Any]] = {
    **RECURRENT,
    **WIDE,
    **BLOCKS,
    "Gemm": gemm,
    "MatMul": np.matmul,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": divide,
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Max": lambda *xs: np.stack(np.broadcast_arrays(*xs)).max(axis=0),
    "Min": lambda *xs: np.stack(np.broadcast_arrays(*xs)).min(axis=0),
    "Sum": lambda *xs: np.stack(np.broadcast_arrays(*xs)).sum(axis=0),
    "Mean": lambda *xs: np.stack(np.broadcast_arrays(*xs)).mean(axis=0),
    "Neg": lambda x: -x,
    "Abs": np.abs,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: 1 / x,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sign": np.sign,
    "Erf": _erf,
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Elu": lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "Selu": lambda x, alpha=1.6732632423543772, gamma=1.0507009873554805: (
        gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    ),
    "Celu": lambda x, alpha=1.0: np.maximum(0, x) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "Tanh": np.tanh,
    "Sigmoid": sigmoid,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": lambda x: x * hard_sigmoid(x, 1 / 6, 0.5),
    "Softplus": softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Gelu": gelu,
    "Mish": lambda x: x * np.tanh(softplus(x)),
    "Clip": clip,
    "ThresholdedRelu": lambda x, alpha=1.0: np.where(x > alpha, x, 0.0),
    "Softmax": softmax,
    "LogSoftmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "LayerNormalization": layer_norm,
    "Concat": lambda *xs, axis: np.concatenate(xs, axis=axis),
    "Split": split,
    "Slice": slice_,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(int(a) for a in axes)),
    "Transpose": lambda x, perm=None: np.transpose(x, perm),
    "Flatten": flatten,
    "Gather": lambda x, indices, axis=0: np.take(x, indices, axis=axis),
    "Expand": expand,
    "ReduceMean": reducer(np.mean),
    "ReduceSum": reducer(np.sum),
    "ReduceMax": reducer(np.max),
    "ReduceMin": reducer(np.min),
    "ReduceProd": reducer(np.prod),
    "ReduceL2": reducer(lambda x, axis, keepdims: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))),
    "ReduceLogSumExp": reducer(log_sum_exp),
    "Cast": cast,
    "Where": np.where,
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "Greater": lambda a, b: a > b,
    "LessOrEqual": lambda a, b: a <= b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
    "Conv": conv,
    "Identity": lambda x: x,
}
