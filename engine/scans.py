"""Operators that walk along one feature axis in order: running sums, the place of the largest, the k largest."""

from dataclasses import replace
from typing import Any

from .arguments import Attributes, Inputs, constant, feature_axis, given, numbers
from .program import Lowering, Program, Unsupported, Value, number_of, view
from .shapes import features

ORDERED = ("float32", "float64", "int64", "int32", "int8", "uint8")


def lanes(program: Program, x: Value, axis: int, *places: tuple[str, Value]) -> str:
    """Opens the loops over all that an axis is walked for; gives the address of x at t, where its bounds do not move with the stream."""
    if x.dtype not in ORDERED:
        raise Unsupported(f"values of {x.dtype}")
    outer, after = features(x.shape[:axis]), features(x.shape[axis + 1 :])
    program.rows()
    program.say(f"a = {x.at()}", *[f"{name} = {value.at()}" for name, value in places], indent=2)
    program.say(f"for i in range({outer}):", f"    for j in range({after}):", indent=2)
    return f"a + ((i * {x.shape[axis]} + {{}}) * {after} + j) * {x.item}"


def running_sum(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    axis = feature_axis(x, int(constant(inputs, 1, "axes").reshape(-1)[0]), "a sum along")
    out, length, name = program.scratch(x.shape, x.dtype), x.shape[axis], f"total_{x.dtype}"
    at = lanes(program, x, axis, ("o", out))
    number, here = number_of(x.dtype), f"{length - 1} - t" if attributes.get("reverse", 0) else "t"
    add = f"{name} = {number}({name} + get_{x.dtype}({at.format('u')}))"
    keep = f"set_{x.dtype}(o - a + {at.format('u')}, {name})"
    program.say(f"{name} = {number}(0)", f"for t in range({length}):", f"    u = {here}", indent=4)
    program.say(*((keep, add) if attributes.get("exclusive", 0) else (add, keep)), indent=5)
    return [out]


def extreme_place(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x = given(inputs)
    axis = feature_axis(x, attributes.get("axis", 0), "a search along")
    length, after = x.shape[axis], features(x.shape[axis + 1 :])
    if not length:
        raise Unsupported("the largest of nothing")
    out = program.scratch((*x.shape[:axis], 1, *x.shape[axis + 1 :]), "int64")
    at = lanes(program, x, axis, ("o", out))
    better = (">" if node.op_type == "ArgMax" else "<") + ("=" if attributes.get("select_last_index", 0) else "")
    best, value = f"best_{x.dtype}", f"value_{x.dtype}"
    program.say(f"{best} = get_{x.dtype}({at.format(0)})", "k = 0", f"for t in range(1, {length}):", indent=4)
    program.say(f"{value} = get_{x.dtype}({at.format('t')})", f"if {value} {better} {best}:", indent=5)
    program.say(f"{best} = {value}", "k = t", indent=6)
    program.say(f"set_int64(o + 8 * (i * {after} + j), k)", indent=4)
    out = replace(out, bounds=(0, length - 1))
    return [out if attributes.get("keepdims", 1) else view(out, (*x.shape[:axis], *x.shape[axis + 1 :]))]


def largest(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """The next is the largest after the last one taken: a smaller value, or the same at a later place."""
    x, (count,) = given(inputs), numbers(inputs, attributes, 1, "k") or [0]
    axis = feature_axis(x, attributes.get("axis", -1), "a search along")
    length, after = x.shape[axis], features(x.shape[axis + 1 :])
    if not 0 < count <= length:
        raise Unsupported(f"the {count} largest of {length}")
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    values, places = program.scratch(shape, x.dtype), program.scratch(shape, "int64")
    at = lanes(program, x, axis, ("o", values), ("e", places))
    more, less = (">", "<") if attributes.get("largest", 1) else ("<", ">")
    best, value, last = (f"{name}_{x.dtype}" for name in ("best", "value", "last"))
    program.say(f"{last} = get_{x.dtype}({at.format(0)})", "before = -1", f"for q in range({count}):", indent=4)
    program.say(f"{best} = {last}", "k = -1", f"for t in range({length}):", indent=5)
    program.say(f"{value} = get_{x.dtype}({at.format('t')})", indent=6)
    program.say(f"if q == 0 or {value} {less} {last} or ({value} == {last} and t > before):", indent=6)
    program.say(f"if k < 0 or {value} {more} {best}:", f"    {best} = {value}", "    k = t", indent=7)
    program.say(f"{last} = {best}", "before = max(k, 0)", indent=5)
    target = f"((i * {count} + q) * {after} + j)"
    program.say(f"set_{x.dtype}(o + {target} * {x.item}, {best})", f"set_int64(e + {target} * 8, before)", indent=5)
    return [values, replace(places, bounds=(0, length - 1))]


SCANS: dict[str, Lowering] = {
    "CumSum": running_sum,
    "ArgMax": extreme_place,
    "ArgMin": extreme_place,
    "TopK": largest,
}
