"""Operators of one element of each input, broadcast."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, floats, given, optional, text
from .program import BATCH, Lowering, Program, Unsupported, Value, whole_range

FLOAT_FORMS: dict[str, str] = {
    "Add": "{0} + {1}", "Sub": "{0} - {1}", "Mul": "{0} * {1}", "Div": "{0} / {1}", "Max": "vmax({0}, {1})", "Min": "vmin({0}, {1})",
    "Relu": "vmax({0}, ZERO())", "Tanh": "vtanh({0})", "Sigmoid": "vsigmoid({0})", "Exp": "vexp({0})", "Log": "vlog({0})",
    "Sqrt": "vsqrt({0})", "Abs": "vabs({0})", "Neg": "ZERO() - {0}", "Reciprocal": "ONE() / {0}", "Floor": "vfloor({0})", "Ceil": "vceil({0})",
    "Round": "vround({0})", "Erf": "verf({0})", "Softplus": "vsoftplus({0})", "Softsign": "{0} / (ONE() + vabs({0}))",
    "Sign": "where_less({0}, ZERO(), NEGATIVE_ONE(), where_less(ZERO(), {0}, ONE(), ZERO()))",
    "HardSwish": "{0} * vmin(vmax({0} / SIX() + HALF(), ZERO()), ONE())", "Mish": "{0} * vtanh(vsoftplus({0}))", "PRelu": "where_less({0}, ZERO(), {0} * {1}, {0})",
    "Sin": "vsin({0})", "Cos": "vcos({0})", "Tan": "vtan({0})", "Pow": "vpow({0}, {1})",
}  # fmt: skip
SCALAR_FORMS: dict[str, str] = {
    "Add": "{} + {}", "Sub": "{} - {}", "Mul": "{} * {}", "Max": "max({}, {})", "Min": "min({}, {})", "Abs": "abs({})", "Neg": "-{}",
    "Sign": "(1 if {0} > 0 else -1 if {0} < 0 else 0)", "Where": "({1} if {0} else {2})",
    "BitwiseAnd": "{} & {}", "BitwiseOr": "{} | {}", "BitwiseXor": "{} ^ {}", "BitwiseNot": "~{}",
}  # fmt: skip
WHOLE_FORMS = {"Div": "quotient({}, {})", "Mod": "signed_as_divisor(remainder({0}, {1}), {1})"}
TRUTH_FORMS: dict[str, str] = {
    "Equal": "{} == {}", "Less": "{} < {}", "Greater": "{} > {}", "LessOrEqual": "{} <= {}", "GreaterOrEqual": "{} >= {}",
    "And": "{} and {}", "Or": "{} or {}", "Xor": "{} != {}", "Not": "not {}", "IsNaN": "{0} != {0}",
}  # fmt: skip
FIXED_POWERS = {
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    1.0: "{0} * ONE()",
    0.5: "vsqrt({0})",
    -1.0: "ONE() / {0}",
}

Range = tuple[int, int]


def _products(a: Range, b: Range) -> Range:
    every = [x * y for x in a for y in b]
    return min(every), max(every)


def _remainders(a: Range, b: Range) -> Range:
    return (0, b[1] - 1) if b[0] > 0 else (-(2**63), 2**63 - 1)


RANGES: dict[str, Callable[..., Range]] = {
    "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]), "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]), "Mul": _products,
    "Max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])), "Min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "Neg": lambda a: (-a[1], -a[0]), "Abs": lambda a: (0, max(abs(a[0]), abs(a[1]))), "Sign": lambda a: (-1, 1),
    "Mod": _remainders, "Where": lambda c, a, b: (min(a[0], b[0]), max(a[1], b[1])),
}  # fmt: skip


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


def pointwise(program: Program, kind: str, inputs: list[Value]) -> Value:
    shape = common_shape(inputs)
    operands = [program.broadcast(v, shape) for v in inputs]
    types = {v.dtype for v in inputs}
    if kind in FLOAT_FORMS and types == {"float32"}:
        out = program.scratch(shape)
        program.vectors(out, operands, FLOAT_FORMS[kind].format)
        return out
    forms = SCALAR_FORMS | TRUTH_FORMS | (WHOLE_FORMS if np.dtype(inputs[0].dtype).kind in "iu" else {})
    if inputs[0].dtype in ("float64", "float16"):
        forms["Div"] = "{} / {}"
    if kind not in forms or (kind != "Where" and len(types) > 1):
        raise Unsupported(f"{kind} of {', '.join(sorted(types))}")
    dtype = "bool" if kind in TRUTH_FORMS else inputs[-1].dtype
    out = program.scratch(shape, dtype)
    program.scalars(out, operands, forms[kind])
    return ranged(out, kind, inputs)


def ranged(out: Value, kind: str, inputs: list[Value]) -> Value:
    """The result with what it lies between; where it may wrap around, with nothing."""
    if kind not in RANGES or np.dtype(out.dtype).kind not in "iu":
        return out
    low, high = RANGES[kind](*[v.range for v in inputs])
    least, most = whole_range(out.dtype)
    return replace(out, bounds=(low, high)) if least <= low and high <= most else out


def elementwise(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    return [pointwise(program, node.op_type, [v for v in inputs if v is not None])]


def many(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Max, Min, Sum and Mean, from the first to the last."""
    kind = "Add" if node.op_type in ("Sum", "Mean") else str(node.op_type)
    out = given(inputs)
    for i in range(1, len(inputs)):
        out = pointwise(program, kind, [out, given(inputs, i)])
    return [unary(program, out, f"{{0}} / {program.literal(len(inputs))}") if node.op_type == "Mean" else out]


def unary(program: Program, x: Value, form: str) -> Value:
    if x.dtype != "float32":
        raise Unsupported(f"values of {x.dtype}")
    out = program.scratch(x.shape)
    program.vectors(out, [x], form.format)
    return out


DEFAULT_ALPHA = {"LeakyRelu": 0.01, "HardSigmoid": 0.2, "Selu": 1.67326319217681884765625}


def parametric(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    kind = node.op_type
    a = program.literal(attributes.get("alpha", DEFAULT_ALPHA.get(kind, 1.0)))
    b = program.literal(attributes.get("beta", 0.5))
    g = program.literal(attributes.get("gamma", 1.05070102214813232421875))
    forms = {
        "LeakyRelu": f"where_less({{0}}, ZERO(), {a} * {{0}}, {{0}})",
        "Elu": f"where_less({{0}}, ZERO(), {a} * (vexp({{0}}) - ONE()), {{0}})",
        "Celu": f"where_less({{0}}, ZERO(), {a} * (vexp({{0}} / {a}) - ONE()), {{0}})",
        "Selu": f"{g} * where_less({{0}}, ZERO(), {a} * (vexp({{0}}) - ONE()), {{0}})",
        "HardSigmoid": f"vmin(vmax({a} * {{0}} + {b}, ZERO()), ONE())",
        "ThresholdedRelu": f"where_less({a}, {{0}}, {{0}}, ZERO())",
        "Swish": f"{{0}} * vsigmoid({a} * {{0}})",
    }
    return [unary(program, floats(inputs), forms[kind])]


def gelu(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    if text(attributes, "approximate", "none") == "tanh":
        cubic = f"{{0}} * (ONE() + {program.literal(0.044715)} * {{0}} * {{0}})"
        form = f"HALF() * {{0}} * (ONE() + vtanh({program.literal(math.sqrt(2 / math.pi))} * {cubic}))"
    else:
        form = f"HALF() * {{0}} * (ONE() + verf({{0}} * {program.literal(math.sqrt(0.5))}))"
    return [unary(program, floats(inputs), form)]


def clip(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    out = given(inputs)
    for kind, place, name in (("Max", 1, "min"), ("Min", 2, "max")):
        bound = optional(inputs, place)
        if bound is None and name in attributes:
            bound = program.parameter(np.float32(attributes[name]))
        if bound is not None:
            out = pointwise(program, kind, [out, bound])
    return [out]


def modulo(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Whole numbers with the divisor's sign, or with fmod=1 any numbers with the dividend's."""
    x, y = given(inputs), given(inputs, 1)
    if not attributes.get("fmod", 0):
        return [pointwise(program, "Mod", [x, y])]
    if x.dtype != y.dtype or x.dtype not in ("float32", "int64", "int32", "int8", "uint8"):
        raise Unsupported(f"Mod of {x.dtype} and {y.dtype}")
    shape = common_shape([x, y])
    out = program.scratch(shape, x.dtype)
    form = "float_remainder({}, {})" if x.dtype == "float32" else "remainder({}, {})"
    program.scalars(out, [program.broadcast(v, shape) for v in (x, y)], form)
    if x.dtype != "float32" and y.range[0] > 0:
        out = replace(out, bounds=(0 if x.range[0] >= 0 else 1 - y.range[1], y.range[1] - 1))
    return [out]


def power(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, p = given(inputs), given(inputs, 1)
    if x.dtype != "float32":
        return [_whole_power(program, x, p)]
    exponent = float(p.const.reshape(-1)[0]) if p.const is not None and p.size == 1 else None
    if exponent in FIXED_POWERS and len(p.shape) <= len(x.shape):
        return [unary(program, x, FIXED_POWERS[exponent])]
    return [pointwise(program, "Pow", [x, converted(program, p, "float32")])]


def _whole_power(program: Program, x: Value, p: Value) -> Value:
    """By a constant exponent, one factor after the other."""
    exponent = int(p.const.reshape(-1)[0]) if p.const is not None and p.size == 1 and p.dtype.startswith("int") else -1
    if x.dtype not in ("int64", "int32") or not 0 <= exponent <= 64:
        raise Unsupported(f"Pow of {x.dtype} with an exponent that is not a constant whole number from 0 to 64")
    out = program.scratch(x.shape, x.dtype)
    program.scalars(out, [x], " * ".join(["np.int64({0})"] * exponent) or "1 + 0 * {}")
    return out


def converted(program: Program, x: Value, dtype: str) -> Value:
    if dtype == x.dtype:
        return x
    if x.const is not None:
        return program.parameter(x.const.astype(dtype))
    out = program.scratch(x.shape, dtype)
    program.scalars(out, [x], "{} != 0" if dtype == "bool" else "{}")
    if np.dtype(dtype).kind in "iu" and np.dtype(x.dtype).kind in "iub":
        (low, high), (least, most) = x.range, whole_range(dtype)
        out = replace(out, bounds=(low, high) if least <= low and high <= most else None, origin=x.origin)
    return out


def cast(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    from onnx.helper import tensor_dtype_to_np_dtype

    return [converted(program, given(inputs), tensor_dtype_to_np_dtype(attributes["to"]).name)]


def cast_like(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    return [converted(program, given(inputs), given(inputs, 1).dtype)]


def is_infinite(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    signs = [("positive", "{0} == np.inf"), ("negative", "{0} == -np.inf")]
    wanted = [form for sign, form in signs if attributes.get(f"detect_{sign}", 1)]
    out = program.scratch(x.shape, "bool")
    program.scalars(out, [x], " or ".join(wanted) or "{0} != {0} and False")
    return [out]


def identity(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    return [given(inputs)]


ELEMENTWISE: dict[str, Lowering] = {
    **dict.fromkeys([*FLOAT_FORMS, *SCALAR_FORMS, *TRUTH_FORMS], elementwise),
    **dict.fromkeys(["LeakyRelu", "Elu", "Selu", "HardSigmoid", "ThresholdedRelu", "Celu", "Swish"], parametric),
    **dict.fromkeys(["Max", "Min", "Sum", "Mean"], many),
    "Gelu": gelu,
    "Clip": clip,
    "Mod": modulo,
    "Pow": power,
    "Cast": cast,
    "CastLike": cast_like,
    "IsInf": is_infinite,
    "Identity": identity,
    "Dropout": identity,
}
