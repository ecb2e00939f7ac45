"""Operators that select, join and rearrange features."""

from collections.abc import Sequence

import numpy as np

from .layout import rearranged
from .rule_parts import attributes_of, labelled, padded, plain_axis, selected_axis, without_time
from .step_graph import StepGraph
from .tracked import FEATURE, TIME, Frames, Known, Node, Tensor, one_time_axis, step_axis, step_shape, uniform


def gather(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Rows of a constant table by the frames' indices (an embedding), or constant features of the frames."""
    data, index = node.inputs
    axis = int(node.attribute("axis", 0))
    if isinstance(data, Known) and isinstance(index, Frames):
        table, _ = uniform(node, data)
        axis %= table.ndim
        labels = (FEATURE,) * axis + index.labels + (FEATURE,) * (table.ndim - axis - 1)
        out = step.emit("Gather", [step.constant(table, data.name), index.name], node.hint, axis=axis)
        return [Frames(out[0], labels, node.shapes[0])]
    x = node.frames(0)
    if not isinstance(index, Known):
        raise node.refuse(
            "both its table and its indices are computed from the frames", "index a constant table, or use a mask"
        )
    axis = selected_axis(node, x, axis % len(x.labels))
    chosen = np.asarray(node.constant(1))
    labels = x.labels[:axis] + (FEATURE,) * chosen.ndim + x.labels[axis + 1 :]
    at = step.constant(chosen, index.name)
    out = step.emit("Gather", [x.name, at], node.hint, axis=step_axis(x.labels, axis))
    return [Frames(out[0], labels, node.shapes[0])]


def slices(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features; a slice that takes all of an axis is nothing."""
    x = node.frames(0)
    axes, steps = _value(node, 3), _value(node, 4)
    count = len((_value(node, 1) or ((),))[0])
    chosen = list(range(count)) if axes is None else [int(a) % len(x.labels) for a in axes[0]]
    strides = [1] * count if steps is None else [int(s) for s in steps[0]]
    kept: list[int] = []
    for i, axis in enumerate(chosen):
        if strides[i] == 1 and all(a[axis] == b[axis] for a, b in zip(x.shapes, node.shapes[0], strict=True)):
            continue
        selected_axis(node, x, axis)
        kept.append(i)
    if not kept:
        return [x]
    first, last = (np.asarray(node.constant(i))[kept] for i in (1, 2))
    at, by = [step_axis(x.labels, chosen[i]) for i in kept], [strides[i] for i in kept]
    given = [step.ints(*(int(v) for v in values)) for values in (first, last, at, by)]
    out = step.emit("Slice", [x.name, *given], node.hint)
    return [Frames(out[0], x.labels, node.shapes[0])]


def _value(node: Node, index: int) -> tuple[np.ndarray, ...] | None:
    found = node.input(index)
    if isinstance(found, Frames):
        raise node.refuse("its bounds are computed from the frames", "slice by constants")
    return found.values if isinstance(found, Known) else None


def split(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features, into parts of constant sizes."""
    x = node.frames(0)
    axis = selected_axis(node, x, int(node.attribute("axis", 0)) % len(x.labels))
    sizes = step.ints(*(shapes[0][axis] for shapes in node.shapes))
    out = step.emit("Split", [x.name, sizes], node.hint, tuple(node.proto.output), axis=step_axis(x.labels, axis))
    return [Frames(name, x.labels, shapes) for name, shapes in zip(out, node.shapes, strict=True)]


def concat(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Along features; a constant part is repeated for each stream."""
    some = next(v for v in node.inputs if isinstance(v, Frames))
    axis = plain_axis(node, some, int(node.attribute("axis", 0)))
    each = labelled(node)
    if any(labels != some.labels for labels in each):
        raise node.refuse(
            f"its inputs have their batch and time axes at different places: {each}", "transpose them alike first"
        )
    names = []
    for i, value in enumerate(node.inputs):
        names.append(_for_each_stream(node, step, value, some) if isinstance(value, Known) else node.frames(i).name)
    out = step.emit("Concat", names, node.hint, axis=step_axis(some.labels, axis))
    return [Frames(out[0], some.labels, node.shapes[0])]


def _for_each_stream(node: Node, step: StepGraph, known: Known, some: Frames) -> str:
    """The constant with as many rows as there are streams in the step's batch."""
    array = without_time(uniform(node, known)[0], some.labels)
    at = [label for label in some.labels if label != TIME].index(next(label for label in some.labels if "B" in label))
    batch = step.emit("Shape", [some.name], f"{node.hint}.batch", start=at, end=at + 1)[0]
    sizes = [step.ints(*array.shape[:at])] if at else []
    sizes += [batch, step.ints(*array.shape[at + 1 :])] if array.shape[at + 1 :] else [batch]
    shape = step.emit("Concat", sizes, f"{node.hint}.shape", axis=0) if len(sizes) > 1 else [batch]
    return step.emit("Expand", [step.constant(array, known.name), shape[0]], f"{node.hint}.repeated")[0]


def reshape(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Features among themselves; batch and time stay, merge in one axis, or part again."""
    return [rearranged(node, step, node.frames(0))]


def transpose(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Where only the time axis moves, nothing is left of it."""
    x = node.frames(0)
    given = node.attribute("perm")
    order = [int(i) for i in given] if given is not None else list(range(len(x.labels)))[::-1]
    labels = tuple(x.labels[i] for i in order)
    new = [step_axis(x.labels, i) for i in order if x.labels[i] != TIME]
    if new == sorted(new):
        return [Frames(x.name, labels, node.shapes[0])]
    out = step.emit("Transpose", [x.name], node.hint, perm=new)
    return [Frames(out[0], labels, node.shapes[0])]


def expand(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features of size 1."""
    x, rank = node.frames(0), len(node.shapes[0][0])
    labels = one_time_axis(node, padded(x.labels, rank))
    new = []
    for axis, label in enumerate(labels):
        sizes = {shape[axis] for shape in node.shapes[0]}
        if label == FEATURE and len(sizes) > 1:
            raise node.refuse(
                f"it repeats along axis {axis} as often as there are frames or streams", "broadcasting needs no expand"
            )
        if label != TIME:
            new.append(1 if label != FEATURE else sizes.pop())
    made = Frames(x.name, labels, node.shapes[0])
    if step_shape(x) == step_shape(made):
        return [made]
    out = step.emit("Expand", [x.name, step.ints(*new)], node.hint)
    return [Frames(out[0], labels, node.shapes[0])]


def pad(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features."""
    x, rank = node.frames(0), len(node.frames(0).labels)
    widths, axes = node.constant(1), node.constant(3)
    chosen = range(rank) if axes is None else [int(a) % rank for a in axes]
    pairs = {a: (int(w), int(v)) for a, w, v in zip(chosen, *np.split(np.asarray(widths), 2), strict=True)}
    padded = [a for a, pair in pairs.items() if any(pair)]
    for axis in padded:
        plain_axis(node, x, axis)
    kept = [a for a in range(rank) if x.labels[a] != TIME]
    amounts = [pairs.get(a, (0, 0))[side] for side in (0, 1) for a in kept]
    fill = node.constant(2)
    names = [x.name, step.ints(*amounts)] + ([] if fill is None else [step.constant(fill, "fill")])
    out = step.emit("Pad", names, node.hint, **attributes_of(node))
    return [Frames(out[0], x.labels, node.shapes[0])]
