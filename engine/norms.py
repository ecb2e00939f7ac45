"""Normalisation over feature axes: two passes, the mean first, then the squares of what is left."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, feature_axis, floats, optional
from .elementwise import pointwise
from .program import BATCH, Lowering, Program, Unsupported, Value
from .reductions import mapped, over_groups, reduction


@dataclass(frozen=True, slots=True)
class Norm:
    """What every group of `length` elements in a row goes through; scale and bias broadcast to (groups, length)."""

    groups: int
    length: int
    scale: np.ndarray
    bias: np.ndarray | None
    epsilon: float
    centred: bool = True


def normalized(program: Program, x: Value, norm: Norm) -> Value:
    n, out = norm.length, program.scratch(x.shape)
    row, scale = _full(program, norm.scale, norm)
    bias = None if norm.bias is None else _full(program, norm.bias, norm)
    over_groups(program, x, out, norm.groups, n)
    program.say(f"scale_at = {scale.at()}{row}", *([f"bias_at = {bias[1].at()}{bias[0]}"] if bias else []), indent=3)
    rest = "{0}"
    if norm.centred:
        reduction(program, "sum", "s_at", n, "{}", 3)
        program.say(f"mean = splat(total / np.float32({n}))", indent=3)
        rest = "({0} - mean)"
    reduction(program, "sum", "s_at", n, f"{rest} * {rest}", 3)
    program.say(f"width = vsqrt(splat(total / np.float32({n}) + np.float32({float(norm.epsilon)!r})))", indent=3)
    ending = f"{rest.format('part')} / width * load(scale_at + j)"
    mapped(program, n, ending + (" + load(bias_at + j)" if bias else ""))
    return out


def _full(program: Program, array: np.ndarray, norm: Norm) -> tuple[str, Value]:
    """A parameter of every element of a group, and how its address moves with the group."""
    if array.ndim == 2 and array.shape[0] > 1:
        full = np.broadcast_to(array.astype(np.float32), (norm.groups, norm.length))
        return f" + g * {4 * norm.length}", program.parameter(full)
    return "", program.parameter(
        np.broadcast_to(array.astype(np.float32), (norm.length,) if array.ndim < 2 else (1, norm.length))
    )


def layer_norm(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """LayerNormalization, and without the mean RMSNormalization."""
    x = floats(inputs)
    if len([o for o in node.output if o]) > 1:
        raise Unsupported("more than one output")
    axis = range(len(x.shape))[attributes.get("axis", -1)]
    for a in range(axis, len(x.shape)):
        feature_axis(x, a, "normalising over")
    shape = x.shape[axis:]
    length = math.prod(shape)
    scale, *bias = (
        np.broadcast_to(constant(inputs, i, "scales"), shape).reshape(-1) for i in (1, 2) if optional(inputs, i)
    )
    centred = node.op_type == "LayerNormalization"
    norm = Norm(x.size // length, length, scale, bias[0] if bias else None, attributes.get("epsilon", 1e-5), centred)
    return [normalized(program, x, norm)]


def grouped_norm(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """GroupNormalization, and with a group for each channel InstanceNormalization."""
    x = floats(inputs)
    if x.shape[0] != BATCH:
        raise Unsupported(f"a normalisation of {x.shape}; expected the batch axis first")
    channels, spatial = x.shape[1], math.prod(x.shape[2:])
    groups = attributes.get("num_groups", channels)
    each = channels // groups
    scale, bias = (_per_channel(constant(inputs, i, "scales"), channels).reshape(groups, each, 1) for i in (1, 2))
    scale, bias = (np.broadcast_to(v, (groups, each, spatial)).reshape(groups, -1) for v in (scale, bias))
    return [normalized(program, x, Norm(groups, each * spatial, scale, bias, attributes.get("epsilon", 1e-5)))]


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray:
    """Operator set 18 has one number for each group, 21 one for each channel."""
    return np.repeat(array, channels // array.size)


def batch_norm(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """With the running mean and variance: a scale and a shift of each channel."""
    x = floats(inputs)
    if attributes.get("training_mode", 0) or x.shape[0] != BATCH or len(x.shape) < 2:
        raise Unsupported("training, or a batch axis that is not the first")
    scale, bias, mean, variance = (constant(inputs, i, "scales").astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    wide = (1, -1, *[1] * (len(x.shape) - 2))
    terms = ((factor, "Mul"), (bias - mean * factor, "Add"))
    for array, kind in terms:
        x = pointwise(program, kind, [x, program.parameter(array.astype(np.float32).reshape(wide))])
    return [x]


NORMS: dict[str, Lowering] = {
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "SimplifiedLayerNormalization": layer_norm,
    "GroupNormalization": grouped_norm,
    "InstanceNormalization": grouped_norm,
    "BatchNormalization": batch_norm,
}
