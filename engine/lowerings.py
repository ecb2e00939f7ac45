"""What the compiled backend makes of each ONNX operator: a table, one short lowering each.

A lowering takes the program, the node, its input values (None where left out) and its attributes, says the lines and
returns the output values. Inputs that are all constant never come here: they are folded.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .gemm import PANEL, pack
from .program import BATCH, Lowering, Program, Unsupported, Value, strides, view
from .recurrent import gru, lstm, rnn

TABLE: dict[str, Lowering] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    def add(function: Lowering) -> Lowering:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return add


def common_shape(values: list[Value]) -> tuple[int, ...]:
    """The broadcast shape; the batch axes must meet, and nothing may be spread along them."""
    rank = max(len(v.shape) for v in values)
    shapes = [(1,) * (rank - len(v.shape)) + v.shape for v in values]
    out = []
    for dims in zip(*shapes, strict=True):
        named = {d for d in dims if d != 1}
        if len(named) > 1:
            raise Unsupported(f"broadcasting {' with '.join(map(str, shapes))}")
        out.append(named.pop() if named else 1)
    if out.count(BATCH) != 1:
        raise Unsupported("batch axes that do not meet")
    return tuple(out)


# ------------------------------------------------------------------------------------------------ elementwise

FLOAT_FORMS: dict[str, str] = {
    "Add": "{0} + {1}", "Sub": "{0} - {1}", "Mul": "{0} * {1}", "Div": "{0} / {1}", "Max": "vmax({0}, {1})", "Min": "vmin({0}, {1})",
    "Relu": "vmax({0}, ZERO())", "Tanh": "vtanh({0})", "Sigmoid": "vsigmoid({0})", "Exp": "vexp({0})", "Log": "vlog({0})",
    "Sqrt": "vsqrt({0})", "Abs": "vabs({0})", "Neg": "ZERO() - {0}", "Reciprocal": "ONE() / {0}", "Floor": "vfloor({0})", "Ceil": "vceil({0})",
    "Round": "vround({0})", "Erf": "verf({0})", "Softplus": "vsoftplus({0})", "Softsign": "{0} / (ONE() + vabs({0}))",
    "Sign": "where_less({0}, ZERO(), NEGATIVE_ONE(), where_less(ZERO(), {0}, ONE(), ZERO()))",
    "HardSwish": "{0} * vmin(vmax({0} / SIX() + HALF(), ZERO()), ONE())", "Mish": "{0} * vtanh(vsoftplus({0}))", "PRelu": "where_less({0}, ZERO(), {0} * {1}, {0})",
}  # fmt: skip
SCALAR_FORMS: dict[str, tuple[str, str | None]] = {
    "Add": ("{} + {}", None), "Sub": ("{} - {}", None), "Mul": ("{} * {}", None), "Max": ("max({}, {})", None), "Min": ("min({}, {})", None),
    "Abs": ("abs({})", None), "Neg": ("-{}", None), "Where": ("({1} if {0} else {2})", None),
    "Equal": ("{} == {}", "bool"), "Less": ("{} < {}", "bool"), "Greater": ("{} > {}", "bool"), "LessOrEqual": ("{} <= {}", "bool"),
    "GreaterOrEqual": ("{} >= {}", "bool"), "And": ("{} and {}", "bool"), "Or": ("{} or {}", "bool"), "Xor": ("{} != {}", "bool"), "Not": ("not {}", "bool"),
}  # fmt: skip


def pointwise(program: Program, kind: str, inputs: list[Value]) -> Value:
    shape = common_shape(inputs)
    operands = [program.broadcast(v, shape) for v in inputs]
    types = {v.dtype for v in inputs}
    if kind in FLOAT_FORMS and types == {"float32"}:
        out = program.scratch(shape)
        program.vectors(out, operands, FLOAT_FORMS[kind].format)
        return out
    if kind not in SCALAR_FORMS or (kind != "Where" and len(types) > 1):
        raise Unsupported(f"{kind} of {', '.join(sorted(types))}")
    form, dtype = SCALAR_FORMS[kind]
    out = program.scratch(shape, dtype or inputs[-1].dtype)
    program.scalars(out, operands, form)
    return out


@lowering("Sum", "Mean")
def total(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    first, *rest = [_given(v) for v in inputs]
    for value in rest:
        first = pointwise(program, "Add", [first, value])
    return unary(program, first, f"{{0}} / {program.literal(len(inputs))}") if node.op_type == "Mean" else [first]


@lowering(*FLOAT_FORMS, *SCALAR_FORMS)
def elementwise(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    values = [v for v in inputs if v is not None]
    kind = node.op_type
    if kind in ("Max", "Min") and len(values) != 2:
        out = values[0]
        for other in values[1:]:
            out = pointwise(program, kind, [out, other])
        return [out]
    return [pointwise(program, kind, values)]


def unary(program: Program, x: Value, form: str) -> list[Value]:
    if x.dtype != "float32":
        raise Unsupported(f"values of {x.dtype}")
    out = program.scratch(x.shape)
    program.vectors(out, [x], form.format)
    return [out]


@lowering("LeakyRelu", "Elu", "Selu", "HardSigmoid", "ThresholdedRelu", "Celu", "Gelu")
def parametric(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    kind = node.op_type
    alpha = attributes.get(
        "alpha", {"LeakyRelu": 0.01, "HardSigmoid": 0.2, "Selu": 1.67326319217681884765625}.get(kind, 1.0)
    )
    gamma, beta = attributes.get("gamma", 1.05070102214813232421875), attributes.get("beta", 0.5)
    a, b, g = program.literal(alpha), program.literal(beta), program.literal(gamma)
    forms = {
        "LeakyRelu": f"where_less({{0}}, ZERO(), {a} * {{0}}, {{0}})",
        "Elu": f"where_less({{0}}, ZERO(), {a} * (vexp({{0}}) - ONE()), {{0}})",
        "Celu": f"where_less({{0}}, ZERO(), {a} * (vexp({{0}} / {a}) - ONE()), {{0}})",
        "Selu": f"{g} * where_less({{0}}, ZERO(), {a} * (vexp({{0}}) - ONE()), {{0}})",
        "HardSigmoid": f"vmin(vmax({a} * {{0}} + {b}, ZERO()), ONE())",
        "ThresholdedRelu": f"where_less({a}, {{0}}, {{0}}, ZERO())",
        "Gelu": f"HALF() * {{0}} * (ONE() + verf({{0}} * {program.literal(math.sqrt(0.5))}))",
    }
    if kind == "Gelu" and attributes.get("approximate", b"none") == b"tanh":
        cubic = f"{{0}} * (ONE() + {program.literal(0.044715)} * {{0}} * {{0}})"
        forms["Gelu"] = f"HALF() * {{0}} * (ONE() + vtanh({program.literal(math.sqrt(2 / math.pi))} * {cubic}))"
    return unary(program, _given(inputs[0]), forms[kind])


@lowering("Clip")
def clip(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    out = _given(inputs[0])
    for kind, bound in zip(("Max", "Min"), ([*inputs, None, None])[1:3], strict=True):
        if bound is not None:
            out = pointwise(program, kind, [out, bound])
    return [out]


@lowering("Pow")
def power(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, p = _given(inputs[0]), _given(inputs[1])
    forms = {
        2.0: "{0} * {0}",
        3.0: "{0} * {0} * {0}",
        1.0: "{0} * ONE()",
        0.5: "vsqrt({0})",
        -1.0: "ONE() / {0}",
        -0.5: "ONE() / vsqrt({0})",
    }
    exponent = float(p.const.reshape(-1)[0]) if p.const is not None and p.size == 1 else None
    if exponent not in forms:
        raise Unsupported("Pow with an exponent other than -1, -0.5, 0.5, 1, 2 or 3")
    return unary(program, x, forms[exponent])


@lowering("Cast")
def cast(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    import onnx

    x, dtype = _given(inputs[0]), onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]).name
    if dtype == x.dtype:
        return [x]
    out = program.scratch(x.shape, dtype)
    program.scalars(out, [x], "{} != 0" if dtype == "bool" else "{}")
    return [out]


# ------------------------------------------------------------------------------------------------ products


def _given(value: Value | None) -> Value:
    if value is None:
        raise Unsupported("a missing input")
    return value


def product(program: Program, x: Value, weights: np.ndarray, bias: np.ndarray | None) -> Value:
    """x (.., K) @ weights (K, N) + bias (N,)."""
    if x.dtype != "float32" or weights.dtype != np.float32:
        raise Unsupported(f"products of {x.dtype} and {weights.dtype.name}")
    k, n = weights.shape
    if x.shape[-1] != k:
        raise Unsupported(f"a product over the batch axis, or of shapes {x.shape} and {weights.shape}")
    packed = program.parameter(pack(weights))
    panels = packed.shape[0]
    start = np.zeros(panels * PANEL, np.float32)
    if bias is not None:
        start[:n] = bias
    first, places = program.parameter(start), x.size // k
    z = program.scratch((*x.shape[:-1], n), items=places * panels * PANEL)
    if places == 1:
        program.gemm(z, x, first, packed, k, panels)
        return z
    program.say(f"for q in range({places}):")
    program.gemm(z, x, first, packed, k, panels, shift=f"q * {4 * k}", z_shift=f"q * {4 * panels * PANEL}", indent=2)
    if n == panels * PANEL:
        return z
    out = program.scratch((*x.shape[:-1], n))
    program.strided(out, z, [places, n], [n, 1], [panels * PANEL, 1])
    return out


@lowering("Gemm")
def gemm(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, w, c = _given(inputs[0]), _given(inputs[1]), ([*inputs, None])[2]
    if w.const is None or (c is not None and c.const is None) or attributes.get("transA", 0) or x.shape[0] != BATCH:
        raise Unsupported("a product of two computed values, or with transA")
    weights = (w.const.T if attributes.get("transB", 0) else w.const) * np.float32(attributes.get("alpha", 1.0))
    bias = None
    if c is not None and c.const is not None:
        bias = np.broadcast_to(np.float32(attributes.get("beta", 1.0)) * c.const, (1, weights.shape[1]))[0]
    return [product(program, x, weights, bias)]


@lowering("MatMul")
def matmul(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, w = _given(inputs[0]), _given(inputs[1])
    if w.const is None or w.const.ndim != 2:
        raise Unsupported("a product of two computed values")
    return [product(program, x, w.const, None)]


@lowering("Conv")
def convolution(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    """One spatial axis: each place's patch is copied together and multiplied, (M, C / group * kernel) a group."""
    x, w, b = _given(inputs[0]), _given(inputs[1]), ([*inputs, None])[2]
    if w.const is None or w.const.ndim != 3 or x.shape[0] != BATCH or (b is not None and b.const is None):
        raise Unsupported("convolution over other than one axis, or with computed weights")
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported("auto_pad")
    groups, (stride,), (dilation,) = (
        attributes.get("group", 1),
        attributes.get("strides", [1]),
        attributes.get("dilations", [1]),
    )
    left, right = attributes.get("pads", [0, 0])
    (_, channels, length), (maps, per_group, kernel) = x.shape, w.const.shape
    if left or right:
        wide = program.parameter(np.zeros((channels, length + left + right), np.float32))
        padded = program.scratch((BATCH, channels, length + left + right))
        program.strided(padded, wide, [wide.size], [1], [1])
        program.strided(padded, x, [channels, length], [length + left + right, 1], [length, 1], (left, 0))
        x, length = padded, length + left + right
    places = (length - dilation * (kernel - 1) - 1) // stride + 1
    bias = np.zeros(maps, np.float32) if b is None or b.const is None else b.const
    out, each = program.scratch((BATCH, maps, places)), maps // groups
    for g in range(groups):
        patches = program.scratch((BATCH, places, per_group * kernel))
        program.strided(
            patches,
            x,
            [places, per_group, kernel],
            [per_group * kernel, kernel, 1],
            [stride, length, dilation],
            (0, g * per_group * length),
        )
        weights = w.const[g * each : (g + 1) * each].reshape(each, -1).T
        z = product(program, patches, np.ascontiguousarray(weights), bias[g * each : (g + 1) * each])
        program.strided(out, z, [each, places], [places, 1], [1, each], (g * each * places, 0))
    return [out]


# ------------------------------------------------------------------------------------------------ reductions


def _axes(attributes: dict[str, Any], given: Value | None, rank: int) -> list[int]:
    axes = attributes.get("axes")
    if given is not None:
        if given.const is None:
            raise Unsupported("computed axes")
        axes = given.const.tolist()
    return sorted({a % rank for a in axes}) if axes else list(range(rank))


def inner(program: Program, x: Value, axes: list[int]) -> tuple[Value, int, int]:
    """x with `axes` last: value, how many groups, and the length of each."""
    if x.dtype != "float32":
        raise Unsupported(f"a reduction of {x.dtype}")
    if any(x.shape[a] == BATCH for a in axes):
        raise Unsupported("a reduction over the batch axis")
    rest = [a for a in range(len(x.shape)) if a not in axes]
    length = math.prod(x.shape[a] for a in axes)
    return transposed(program, x, [*rest, *axes]), x.size // max(length, 1), length


def reduction(program: Program, kind: str, source: str, length: int, load: str, indent: int) -> None:
    """total = sum, product, max or min of `length` floats at `source`: sixteen running lanes, then folded."""
    begin, combine, fold = {
        "sum": ("0", "total_lanes + {}", "fold_add"),
        "max": ("-np.inf", "vmax(total_lanes, {})", "fold_max"),
        "product": ("1", "total_lanes * {}", "fold_multiply"),
        "min": ("np.inf", "vmin(total_lanes, {})", "fold_min"),
    }[kind]
    program.say(
        f"total_lanes = splat(np.float32({begin}))",
        f"for j in range(0, {4 * (length - length % 16)}, 64):",
        indent=indent,
    )
    program.say(f"part = load({source} + j)", f"total_lanes = {combine.format(load.format('part'))}", indent=indent + 1)
    if length % 16:
        at, n = f"{source} + {4 * (length - length % 16)}", length % 16
        program.say(
            f"part = load_some({at}, {n}, np.float32(0))",
            f"part = keep({load.format('part')}, {n}, np.float32({begin}))",
            indent=indent,
        )
        program.say(f"total_lanes = {combine.format('part')}", indent=indent)
    program.say(f"total = {fold}(total_lanes)", indent=indent)


@lowering("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
def reduce(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x = _given(inputs[0])
    given = ([*inputs, None])[1]
    if attributes.get("noop_with_empty_axes", 0) and given is None and "axes" not in attributes:
        return [x]
    axes = _axes(attributes, given, len(x.shape))
    value, groups, length = inner(program, x, axes)
    keep = attributes.get("keepdims", 1)
    out = program.scratch([1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes])
    program.rows()
    program.say(f"o = {out.at()}", f"a = {value.at()}", f"for g in range({groups}):", indent=2)
    program.say(f"s_at = a + g * {4 * length}", indent=3)
    reduction(
        program,
        {"ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "product"}.get(node.op_type, "sum"),
        "s_at",
        length,
        "{}",
        3,
    )
    scale = f" / np.float32({length})" if node.op_type == "ReduceMean" else ""
    program.say(f"set_float32(o + 4 * g, total{scale})", indent=3)
    return [out]


@lowering("Softmax", "LogSoftmax")
def softmax(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x = _given(inputs[0])
    axis = attributes.get("axis", -1) % len(x.shape)
    value, groups, length = inner(program, x, [axis])
    out = program.scratch(value.shape)
    program.rows()
    program.say(f"o = {out.at()}", f"a = {value.at()}", f"for g in range({groups}):", indent=2)
    program.say(f"s_at = a + g * {4 * length}", f"o_at = o + g * {4 * length}", indent=3)
    reduction(program, "max", "s_at", length, "{}", 3)
    program.say("peak = splat(total)", indent=3)
    reduction(program, "sum", "s_at", length, "vexp({} - peak)", 3)
    ending = "part - peak - vlog(splat(total))" if node.op_type == "LogSoftmax" else "vexp(part - peak) / splat(total)"
    _map(program, length, ending)
    back = [*range(axis), len(x.shape) - 1, *range(axis, len(x.shape) - 1)]
    return [transposed(program, out, back)]


def _map(program: Program, length: int, expression: str, more: str = "") -> None:
    """o_at[j] = expression of part = s_at[j], no byte past the end read or written."""
    whole, rest = 4 * (length - length % 16), length % 16
    program.say(f"for j in range(0, {whole}, 64):", indent=3)
    program.say("part = load(s_at + j)", f"store(o_at + j, {expression})", indent=4)
    if rest:
        program.say(f"j = {whole}", f"part = load_some(s_at + {whole}, {rest}, np.float32(0))", indent=3)
        program.say(f"store_some(o_at + {whole}, {expression}, {rest})", indent=3)


@lowering("LayerNormalization")
def layer_normalization(
    program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]
) -> list[Value]:
    x, scale, bias = _given(inputs[0]), _given(inputs[1]), ([*inputs, None])[2]
    if len([o for o in node.output if o]) > 1 or scale.const is None or (bias is not None and bias.const is None):
        raise Unsupported("computed scales, or more than one output")
    axis = attributes.get("axis", -1) % len(x.shape)
    value, groups, length = inner(program, x, list(range(axis, len(x.shape))))
    full = x.shape[axis:]
    g = program.parameter(np.broadcast_to(scale.const, full))
    b = program.parameter(np.broadcast_to(np.float32(0) if bias is None or bias.const is None else bias.const, full))
    out = program.scratch(x.shape)
    program.rows()
    program.say(
        f"o = {out.at()}",
        f"a = {value.at()}",
        f"scale_at = {g.at()}",
        f"bias_at = {b.at()}",
        f"for g in range({groups}):",
        indent=2,
    )
    program.say(f"s_at = a + g * {4 * length}", f"o_at = o + g * {4 * length}", indent=3)
    reduction(program, "sum", "s_at", length, "{}", 3)
    program.say(f"mean = splat(total / np.float32({length}))", indent=3)
    reduction(program, "sum", "s_at", length, "({0} - mean) * ({0} - mean)", 3)
    epsilon = np.float32(attributes.get("epsilon", 1e-5))
    program.say(
        f"width = vsqrt(splat(total / np.float32({length}) + np.float32({epsilon!r})))".replace(
            "np.float32(np.float32", "(np.float32"
        ),
        indent=3,
    )
    _map(program, length, "(part - mean) / width * load(scale_at + j) + load(bias_at + j)")
    return [out]


# ------------------------------------------------------------------------------------------------ shapes


def reshaped(x: Value, target: list[int]) -> tuple[int, ...]:
    """ONNX Reshape's output shape with its batch axis, where the reshape leaves the streams' rows whole."""
    out = [x.shape[i] if d == 0 else d for i, d in enumerate(target)]
    known = math.prod(d for d in out if d > 0)
    if BATCH not in [x.shape[i] for i, d in enumerate(target) if d == 0]:
        if out.count(-1) != 1 or known != x.size:
            raise Unsupported(f"a reshape from {x.shape} to {target}, which mixes the batch axis with others")
    elif -1 in target:
        place = target.index(-1)
        out[place] = x.size // (math.prod(d for i, d in enumerate(out) if i != place and d > 0) or 1)
    before_in = math.prod(x.shape[: x.shape.index(BATCH)])
    if before_in != 1 or math.prod(out[: out.index(BATCH)]) != 1 or math.prod(d for d in out if d != BATCH) != x.size:
        raise Unsupported(f"a reshape from {x.shape} to {target}, which mixes the batch axis with others")
    return tuple(out)


@lowering("Reshape")
def reshape(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, target = _given(inputs[0]), _given(inputs[1])
    if target.const is None or attributes.get("allowzero", 0):
        raise Unsupported("a computed shape")
    return [view(x, reshaped(x, target.const.tolist()))]


@lowering("Flatten")
def flatten(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, axis = _given(inputs[0]), attributes.get("axis", 1)
    if x.shape[:axis].count(BATCH) != 1 or math.prod(x.shape[:axis]) != BATCH:
        raise Unsupported("a flattening that mixes the batch axis with others")
    return [view(x, (BATCH, math.prod(x.shape[axis:])))]


@lowering("Squeeze")
def squeeze(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, given = _given(inputs[0]), ([*inputs, None])[1]
    axes = (
        _axes(attributes, given, len(x.shape))
        if given or "axes" in attributes
        else [i for i, d in enumerate(x.shape) if d == 1]
    )
    return [view(x, [d for i, d in enumerate(x.shape) if i not in axes])]


@lowering("Unsqueeze")
def unsqueeze(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, given = _given(inputs[0]), ([*inputs, None])[1]
    raw = attributes.get("axes") or (given.const.tolist() if given is not None and given.const is not None else None)
    if raw is None:
        raise Unsupported("computed axes")
    rank = len(x.shape) + len(raw)
    axes, rest = {a % rank for a in raw}, iter(x.shape)
    return [view(x, [1 if i in axes else next(rest) for i in range(rank)])]


@lowering("Identity", "Dropout")
def identity(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    return [_given(inputs[0])]


def transposed(program: Program, x: Value, order: list[int]) -> Value:
    shape = tuple(x.shape[a] for a in order)
    moved = [a for a in order if x.shape[a] not in (1, BATCH)]
    if moved == sorted(moved):
        return view(x, shape)
    steps = dict(zip([i for i, d in enumerate(x.shape) if d != BATCH], strides(x.row_shape), strict=True))
    axes = [a for a in order if x.shape[a] != BATCH]
    dims = [x.shape[a] for a in axes]
    out = program.scratch(shape, x.dtype)
    program.strided(out, x, dims, strides(dims), [steps[a] for a in axes])
    return out


@lowering("Transpose")
def transpose(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x = _given(inputs[0])
    return [transposed(program, x, list(attributes.get("perm", range(len(x.shape))[::-1])))]


def cut(program: Program, x: Value, axis: int, start: int, count: int, step: int = 1) -> Value:
    """x[.., start : : step, ..] along one axis; no copy where it is one run of memory."""
    if x.shape[axis] == BATCH:
        raise Unsupported("cutting the batch axis")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    outer = math.prod(d for d in x.shape[:axis] if d != BATCH)
    after = math.prod(d for d in x.shape[axis + 1 :] if d != BATCH)
    if outer == 1 and step == 1:
        return view(x, shape, start * after)
    out = program.scratch(shape, x.dtype)
    program.strided(
        out,
        x,
        [outer, count, after],
        [count * after, after, 1],
        [x.shape[axis] * after, step * after, 1],
        (0, start * after),
    )
    return out


@lowering("Slice")
def slicing(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x = _given(inputs[0])
    rest = (inputs + [None] * 4)[1:5]
    if any(v is not None and v.const is None for v in rest) or rest[0] is None or rest[1] is None:
        raise Unsupported("computed bounds")
    starts, ends, axes, steps = ([] if v is None or v.const is None else v.const.tolist() for v in rest)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[i] if axes else i) % len(x.shape)
        if x.shape[axis] == BATCH:
            raise Unsupported("cutting the batch axis")
        chosen = range(x.shape[axis])[slice(start, end, steps[i] if steps else 1)]
        x = cut(program, x, axis, chosen.start, len(chosen), chosen.step)
    return [x]


@lowering("Split")
def split(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, given = _given(inputs[0]), ([*inputs, None])[1]
    axis = attributes.get("axis", 0) % len(x.shape)
    if x.shape[axis] == BATCH or (given is not None and given.const is None):
        raise Unsupported("splitting the batch axis, or computed sizes")
    parts = len(node.output)
    each = -(-x.shape[axis] // parts)
    even = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    sizes = (
        given.const.tolist() if given is not None and given.const is not None else list(attributes.get("split", even))
    )
    return [cut(program, x, axis, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


@lowering("Concat")
def concat(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    values = [_given(v) for v in inputs]
    like = next(v for v in values if v.batched)
    axis = attributes["axis"] % len(like.shape)
    if like.shape[axis] == BATCH:
        raise Unsupported("joining along the batch axis")
    total = sum(v.shape[axis] for v in values)
    shape = (*like.shape[:axis], total, *like.shape[axis + 1 :])
    outer = math.prod(d for d in shape[:axis] if d != BATCH)
    after = math.prod(d for d in shape[axis + 1 :] if d != BATCH)
    out, done = program.scratch(shape, like.dtype), 0
    for v in values:
        if not v.batched:
            v = (
                program.broadcast(v, (*like.shape[:axis], v.shape[axis], *like.shape[axis + 1 :]))
                if BATCH in v.shape
                else v
            )
        count = v.shape[axis]
        program.strided(
            out, v, [outer, count, after], [total * after, after, 1], [count * after, after, 1], (done * after, 0)
        )
        done += count
    return [out]


@lowering("Expand")
def expand(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, target = _given(inputs[0]), _given(inputs[1])
    if target.const is None:
        raise Unsupported("a computed shape")
    wanted = target.const.tolist()
    rank = max(len(wanted), len(x.shape))
    have, want = (1,) * (rank - len(x.shape)) + x.shape, [1] * (rank - len(wanted)) + wanted
    if any(h == BATCH and w != 1 for h, w in zip(have, want, strict=True)):
        raise Unsupported("spreading along the batch axis")
    shape = tuple(w if h == 1 else h for h, w in zip(have, want, strict=True))
    if x.size == 1 and math.prod(d for d in shape if d != BATCH) != 1:
        out = program.scratch(shape, x.dtype)
        dims = [d for d in shape if d != BATCH]
        program.strided(out, x, dims, strides(dims), [0] * len(dims))
        return [out]
    return [view(program.broadcast(view(x, have), shape), shape)]


@lowering("Gather")
def gather(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    x, index = _given(inputs[0]), _given(inputs[1])
    axis = attributes.get("axis", 0) % len(x.shape)
    if index.const is not None and index.const.size == 1:
        place = int(index.const.reshape(-1)[0]) % x.shape[axis]
        piece = cut(program, x, axis, place, 1)
        return [view(piece, (*x.shape[:axis], *index.const.shape, *x.shape[axis + 1 :]))]
    if x.const is None or axis != 0 or index.dtype not in ("int64", "int32"):
        raise Unsupported("an index into computed values")
    if not index.table.startswith("x"):
        raise Unsupported("an index that is computed, so that it cannot be checked before the step")
    entries, width = x.shape[0], math.prod(x.shape[1:])
    program.limits[index.table] = min(entries, program.limits.get(index.table, entries))
    table = program.parameter(x.const)
    out = program.scratch((*index.shape, *x.shape[1:]), x.dtype)
    program.rows()
    program.say(f"o = {out.at()}", f"a = {index.at()}", f"e = {table.at()}", f"for j in range({index.size}):", indent=2)
    program.say(f"k = get_{index.dtype}(a + {index.item} * j)", f"k = k + {entries} if k < 0 else k", indent=3)
    program.say(f"copy_bytes(o + {width * x.item} * j, e + k * {width * x.item}, {width * x.item})", indent=3)
    return [out]
