"""Operators whose places are values: gathers, scatters, one-hot.

A step reads memory by an index, so every index is known to be in range before the step: it is a constant, an input that is
checked as it comes, or computed in bounds that follow from the graph (ArgMax, Mod, Clip, a counter that is clipped).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, feature_axis, given, text
from .program import BATCH, Lowering, Program, Unsupported, Value, strides, view
from .shapes import features, taken

COMBINED = {"none": "{1}", "add": "{0} + {1}", "mul": "{0} * {1}", "max": "max({0}, {1})", "min": "min({0}, {1})"}


def checked(program: Program, index: Value, entries: int) -> None:
    """Nothing where every index is within -entries .. entries - 1, now or once the input has been checked."""
    low, high = index.range
    if index.dtype not in ("int64", "int32"):
        raise Unsupported(f"an index of {index.dtype}")
    if entries > 0 and -entries <= low and high < entries:
        return
    if index.origin and entries > 0:
        program.limits[index.origin] = min(entries, program.limits.get(index.origin, entries))
    elif not program.probing:
        raise Unsupported(f"an index computed from {low} to {high} into {entries} entries; Clip it in the graph")


def place(program: Program, index: Value, at: str, entries: int, name: str, indent: int) -> None:
    """name = the index at an address, counted from the front. What the check let through is in range; memory stays safe without it."""
    program.say(f"{name} = np.int64(get_{index.dtype}({at}))", indent=indent)
    program.say(f"{name} = {name} + {entries} if {name} < 0 else {name}", indent=indent)
    if index.const is None:
        program.say(f"{name} = min(max({name}, 0), {entries - 1})", indent=indent)


def loops(program: Program, dims: Sequence[int]) -> int:
    """Opens a loop over each axis: i0, i1, ..; gives the indent inside."""
    for depth, d in enumerate(dims):
        program.say(f"for i{depth} in range({d}):", indent=2 + depth)
    return 2 + len(dims)


def along(steps: Sequence[int]) -> str:
    """An offset in elements from the loops' counters."""
    return " + ".join([f"i{i} * {s}" for i, s in enumerate(steps) if s]) or "0"


def gather(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, index = given(inputs), given(inputs, 1)
    axis = feature_axis(x, attributes.get("axis", 0), "places on")
    entries, shape = x.shape[axis], (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    checked(program, index, entries)
    if shape.count(BATCH) != 1:
        raise Unsupported("an index of every stream into every stream; GatherElements takes each from its own")
    if index.const is not None:
        return [view(taken(program, x, axis, index.const.reshape(-1) % entries), shape)]
    outer, width, count = features(x.shape[:axis]), features(x.shape[axis + 1 :]) * x.item, index.size
    table = x.const
    x, out = program.placed(x), program.like(x, shape)
    program.rows()
    program.say(f"o = {out.at()}", f"a = {x.at()}", f"e = {index.at()}", indent=2)
    program.say(f"for j in range({count}):", indent=2)
    place(program, index, f"e + {index.item} * j", entries, "k", 3)
    program.say(f"for i in range({outer}):", indent=3)
    program.say(f"copy_bytes(o + (i * {count} + j) * {width}, a + (i * {entries} + k) * {width}, {width})", indent=4)
    if table is not None and table.ndim == 2 and axis == 0 and index.size == 1 and index.table.startswith("x"):
        out = replace(out, looked_up=(table, index))
    return [out]


def gather_elements(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, index = program.placed(given(inputs)), program.placed(given(inputs, 1))
    axis = range(len(x.shape))[attributes.get("axis", 0)]
    entries = x.shape[axis]
    if (
        entries == BATCH
        or BATCH not in index.shape
        or any(a == BATCH != b for a, b in zip(x.shape, index.shape, strict=True))
    ):
        raise Unsupported(f"an index of {index.shape} into {x.shape}, whose batch axes do not meet")
    checked(program, index, entries)
    out = program.like(x, index.shape)
    batch = index.shape.index(BATCH)
    steps = [0 if i == axis else s for i, s in enumerate(x.row_strides) if i != batch]
    program.rows()
    program.say(f"o = {out.at()}", f"a = {x.at()}", f"e = {index.at()}", indent=2)
    inside, here = loops(program, index.row_shape), along(strides(index.row_shape))
    place(program, index, f"e + ({here}) * {index.item}", entries, "k", inside)
    source = f"a + ({along(steps)} + k * {x.row_strides[axis]}) * {x.item}"
    program.say(f"copy_bytes(o + ({here}) * {x.item}, {source}, {x.item})", indent=inside)
    return [out]


def scatter_elements(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, index, updates = given(inputs), program.placed(given(inputs, 1)), program.placed(given(inputs, 2))
    axis = range(len(x.shape))[attributes.get("axis", 0)]
    batched = next((v for v in (x, index, updates) if v.batched), x)
    batch, entries = batched.shape.index(BATCH), x.shape[axis]
    if axis == batch or any(v.shape[batch] != BATCH for v in (x, index, updates)):
        raise Unsupported("a scatter along the batch axis, or of a batch into a constant")
    checked(program, index, entries)
    out = _copied(program, x)
    steps = [0 if i == axis else s for i, s in enumerate(out.row_strides) if i != batch]
    program.rows()
    program.say(f"o = {out.at()}", f"a = {updates.at()}", f"e = {index.at()}", indent=2)
    inside, here = loops(program, index.row_shape), along(strides(index.row_shape))
    place(program, index, f"e + ({here}) * {index.item}", entries, "k", inside)
    program.say(f"target = o + ({along(steps)} + k * {out.row_strides[axis]}) * {x.item}", indent=inside)
    source = f"a + ({along(strides(updates.row_shape))}) * {x.item}"
    _combine(program, x.dtype, text(attributes, "reduction", "none"), source, inside)
    return [out]


def _copied(program: Program, x: Value) -> Value:
    out = program.scratch(x.shape, x.dtype)
    program.strided(out, x, [x.size], [1], [1])
    return out


def _combine(program: Program, dtype: str, reduction: str, source: str, indent: int) -> None:
    """What lies at `target` becomes that and what lies at `source`."""
    if dtype == "bool" and reduction != "none":
        raise Unsupported(f"a scatter of bool with {reduction!r}")
    number = COMBINED[reduction].format(f"get_{dtype}(target)", f"get_{dtype}({source})")
    program.say(f"set_{dtype}(target, {number})", indent=indent)


def scatter_nd(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Slices at constant places, which do not reach the batch axis."""
    x, index, updates = given(inputs), constant(inputs, 1, "places"), program.placed(given(inputs, 2))
    depth = index.shape[-1]
    if BATCH in x.shape[:depth] or not x.batched or updates.shape[len(index.shape) - 1 :] != x.shape[depth:]:
        raise Unsupported("a scatter over the batch axis, or of a constant into a batch")
    entries = np.array(x.shape[:depth])
    if (index < -entries).any() or (index >= entries).any():
        raise Unsupported(f"places outside of {x.shape}")
    flat = ((index % entries) * np.array(x.row_strides[:depth])).sum(axis=-1).reshape(-1)
    out, table, width = _copied(program, x), program.parameter(flat.astype(np.int64)), features(x.shape[depth:])
    program.rows()
    program.say(
        f"o = {out.at()}", f"a = {updates.at()}", f"e = {table.at()}", f"for i in range({flat.size}):", indent=2
    )
    program.say(f"for j in range({width}):", indent=3)
    program.say(f"target = o + (get_int64(e + 8 * i) + j) * {x.item}", indent=4)
    _combine(program, x.dtype, text(attributes, "reduction", "none"), f"a + (i * {width} + j) * {x.item}", 4)
    return [out]


def gather_nd(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Slices of each stream's own row: batch_dims=1 with the batch axis first on both sides, or a constant into each."""
    x, index = program.placed(given(inputs)), program.placed(given(inputs, 1))
    depth, dims = index.shape[-1], attributes.get("batch_dims", 0)
    own = dims == 1 and x.shape[0] == index.shape[0] == BATCH
    if not own and (dims or BATCH in x.shape[:depth] or x.batched == index.batched):
        raise Unsupported("an index of every stream into every stream; use batch_dims=1")
    axes = range(dims, dims + depth)
    shape = (*index.shape[:-1], *x.shape[dims + depth :])
    width, count = features(x.shape[dims + depth :]) * x.item, index.size // max(depth, 1)
    for a in axes:
        checked(program, index, x.shape[a])
    out = program.like(x, shape)
    program.rows()
    program.say(f"o = {out.at()}", f"a = {x.at()}", f"e = {index.at()}", f"for i in range({count}):", indent=2)
    program.say("source = a", indent=3)
    for t, a in enumerate(axes):
        place(program, index, f"e + (i * {depth} + {t}) * {index.item}", x.shape[a], "k", 3)
        program.say(f"source = source + k * {x.row_strides[a] * x.item}", indent=3)
    program.say(f"copy_bytes(o + i * {width}, source, {width})", indent=3)
    return [out]


def one_hot(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """An index outside of -depth .. depth - 1 is no entry at all, as the operator says."""
    index, depth = given(inputs), int(constant(inputs, 1, "depths").reshape(-1)[0])
    values = program.placed(given(inputs, 2))
    if index.dtype not in ("int64", "int32") or values.const is None:
        raise Unsupported(f"an index of {index.dtype}, or values that are computed")
    axis = range(len(index.shape) + 1)[attributes.get("axis", -1)]
    shape = (*index.shape[:axis], depth, *index.shape[axis:])
    outer, after = features(shape[:axis]), features(shape[axis + 1 :])
    out, item = program.scratch(shape, values.dtype), values.item
    program.rows()
    program.say(f"o = {out.at()}", f"a = {index.at()}", f"e = {values.at()}", f"for i in range({outer}):", indent=2)
    program.say(
        f"for j in range({after}):",
        f"    k = np.int64(get_{index.dtype}(a + (i * {after} + j) * {index.item}))",
        indent=3,
    )
    program.say(f"k = k + {depth} if k < 0 else k", f"for t in range({depth}):", indent=4)
    program.say(
        f"copy_bytes(o + ((i * {depth} + t) * {after} + j) * {item}, e + ({item} if t == k else 0), {item})", indent=5
    )
    return [out]


INDEXING: dict[str, Lowering] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
}
