"""Operators that make one number of many along feature axes. Floats: sixteen running lanes in order, then folded."""

import math
from dataclasses import dataclass
from typing import Any

from .arguments import Attributes, Inputs, feature_axis, given, numbers
from .elementwise import unary
from .program import BATCH, Lowering, Program, Unsupported, Value, number_of, view
from .shapes import transposed


@dataclass(frozen=True, slots=True)
class Fold:
    begin: str
    combine: str
    finish: str


FOLDS = {
    "sum": Fold("0", "total_lanes + {}", "fold_add"),
    "max": Fold("-np.inf", "vmax(total_lanes, {})", "fold_max"),
    "product": Fold("1", "total_lanes * {}", "fold_multiply"),
    "min": Fold("np.inf", "vmin(total_lanes, {})", "fold_min"),
}
WHOLE_FOLDS = {"ReduceSum": ("0", "{} + {}"), "ReduceProd": ("1", "{} * {}")}
EXTREMES = {"ReduceMax": "max({}, {})", "ReduceMin": "min({}, {})"}
KINDS = {"ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "product"}
LOADS = {"ReduceL1": "vabs({})", "ReduceL2": "{0} * {0}", "ReduceSumSquare": "{0} * {0}"}


def axes_of(x: Value, inputs: Inputs, attributes: Attributes) -> list[int]:
    rank = len(x.shape)
    axes = numbers(inputs, attributes, 1, "axes")
    return sorted({feature_axis(x, a, "a reduction over") for a in axes or range(rank)})


def inner(program: Program, x: Value, axes: list[int]) -> tuple[Value, int, int]:
    """x with `axes` last: value, how many groups, and the length of each."""
    rest = [a for a in range(len(x.shape)) if a not in axes]
    length = math.prod(x.shape[a] for a in axes)
    return transposed(program, x, [*rest, *axes]), x.size // max(length, 1), length


def reduction(program: Program, kind: str, source: str, length: int, load: str, indent: int) -> None:
    """total = sum, product, max or min of `length` floats at `source`; load: what each vector is before it is added."""
    fold, whole, rest = FOLDS[kind], 4 * (length - length % 16), length % 16
    program.say(f"total_lanes = splat(np.float32({fold.begin}))", indent=indent)
    if whole:
        program.say(f"for j in range(0, {whole}, 64):", indent=indent)
        program.say(
            f"part = load({source} + j)", f"total_lanes = {fold.combine.format(load.format('part'))}", indent=indent + 1
        )
    if rest:
        program.say(f"part = load_some({source} + {whole}, {rest}, np.float32(0))", indent=indent)
        program.say(f"part = keep({load.format('part')}, {rest}, np.float32({fold.begin}))", indent=indent)
        program.say(f"total_lanes = {fold.combine.format('part')}", indent=indent)
    program.say(f"total = {fold.finish}(total_lanes)", indent=indent)


def over_groups(program: Program, value: Value, out: Value, groups: int, length: int) -> None:
    """Opens the loop over a row's groups: s_at is where a group begins in the value, o_at where in `out`, of as many elements."""
    program.rows()
    program.say(f"o = {out.at()}", f"a = {program.placed(value).at()}", f"for g in range({groups}):", indent=2)
    program.say(f"s_at = a + g * {4 * length}", f"o_at = o + g * {4 * length}", indent=3)


def reduced(
    program: Program, kind: str, value: Value, groups: int, length: int, load: str = "{}", scale: str = ""
) -> Value:
    """A float for each group of a row, flat."""
    out = program.scratch((BATCH, groups))
    over_groups(program, value, out, groups, length)
    reduction(program, kind, "s_at", length, load, 3)
    program.say(f"set_float32(o + 4 * g, total{scale})", indent=3)
    return out


def reduce(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, kind = given(inputs), node.op_type
    if attributes.get("noop_with_empty_axes", 0) and not numbers(inputs, attributes, 1, "axes"):
        return [x]
    axes = axes_of(x, inputs, attributes)
    keep = attributes.get("keepdims", 1)
    shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
    value, groups, length = inner(program, x, axes)
    if x.dtype != "float32":
        return [view(_whole(program, kind, value, groups, length), shape)]
    if kind == "ReduceLogSumExp":
        return [view(_log_sum_exp(program, value, groups, length), shape)]
    scale = f" / np.float32({length})" if kind == "ReduceMean" else ""
    out = view(reduced(program, KINDS.get(kind, "sum"), value, groups, length, LOADS.get(kind, "{}"), scale), shape)
    ending = {"ReduceL2": "vsqrt({0})", "ReduceLogSum": "vlog({0})"}.get(kind)
    return [unary(program, out, ending) if ending else out]


def _whole(program: Program, kind: str, value: Value, groups: int, length: int) -> Value:
    """Numbers that are not float32, one after the other."""
    if value.dtype not in ("int64", "int32", "float64") or kind not in WHOLE_FOLDS | EXTREMES or not length:
        raise Unsupported(f"{kind} of {value.dtype}")
    first, combine = WHOLE_FOLDS.get(kind, ("", EXTREMES.get(kind, "")))
    out, item, name = program.scratch((BATCH, groups), value.dtype), value.item, f"total_{value.dtype}"
    number = number_of(value.dtype)
    program.rows()
    program.say(f"o = {out.at()}", f"a = {value.at()}", f"for g in range({groups}):", indent=2)
    program.say(f"{name} = {number}({first or f'get_{value.dtype}(a + g * {length * item})'})", indent=3)
    program.say(f"for j in range({length}):", indent=3)
    source = f"{number}(get_{value.dtype}(a + (g * {length} + j) * {item}))"
    program.say(f"{name} = {number}({combine.format(name, source)})", indent=4)
    program.say(f"set_{value.dtype}(o + {item} * g, {name})", indent=3)
    return out


def _log_sum_exp(program: Program, value: Value, groups: int, length: int) -> Value:
    out = program.scratch((BATCH, groups))
    over_groups(program, value, out, groups, length)
    reduction(program, "max", "s_at", length, "{}", 3)
    program.say("peak = splat(total)", indent=3)
    reduction(program, "sum", "s_at", length, "vexp({} - peak)", 3)
    program.say("set_float32(o + 4 * g, fold_max(vlog(splat(total)) + peak))", indent=3)
    return out


def global_pool(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    axes = [feature_axis(x, a, "pooling") for a in range(2, len(x.shape))]
    value, groups, length = inner(program, x, axes)
    if node.op_type == "GlobalMaxPool":
        out = reduced(program, "max", value, groups, length)
    else:
        out = reduced(program, "sum", value, groups, length, scale=f" / np.float32({length})")
    return [view(out, [1 if i in axes else d for i, d in enumerate(x.shape)])]


def softmax(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    if x.dtype != "float32":
        raise Unsupported(f"values of {x.dtype}")
    axis = feature_axis(x, attributes.get("axis", -1), "a reduction over")
    value, groups, length = inner(program, x, [axis])
    out = program.scratch(value.shape)
    over_groups(program, value, out, groups, length)
    reduction(program, "max", "s_at", length, "{}", 3)
    program.say("peak = splat(total)", indent=3)
    reduction(program, "sum", "s_at", length, "vexp({} - peak)", 3)
    ending = "part - peak - vlog(splat(total))" if node.op_type == "LogSoftmax" else "vexp(part - peak) / splat(total)"
    mapped(program, length, ending)
    back = [*range(axis), len(x.shape) - 1, *range(axis, len(x.shape) - 1)]
    return [transposed(program, out, back)]


def mapped(program: Program, length: int, expression: str) -> None:
    """o_at[j] = expression of part = s_at[j], no byte past the end read or written."""
    whole, rest = 4 * (length - length % 16), length % 16
    if whole:
        program.say(f"for j in range(0, {whole}, 64):", indent=3)
        program.say("part = load(s_at + j)", f"store(o_at + j, {expression})", indent=4)
    if rest:
        program.say(f"j = {whole}", f"part = load_some(s_at + {whole}, {rest}, np.float32(0))", indent=3)
        program.say(f"store_some(o_at + {whole}, {expression}, {rest})", indent=3)


SUMS = ["ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]
REDUCTIONS: dict[str, Lowering] = {
    **dict.fromkeys([*SUMS, *KINDS], reduce),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool"], global_pool),
    **dict.fromkeys(["Softmax", "LogSoftmax"], softmax),
}
