"""Operators that select, join and rearrange features; what they do along time is in `rules_time`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .layout import rearranged
from .rule_parts import (
    attributes_of,
    beside,
    constant_in_step,
    labelled,
    made_of,
    plain_axis,
    selected_axis,
    some_frames,
)
from .rules_time import concat_time, is_whole, pad_time, slice_time
from .step_graph import StepGraph
from .timing import transposed
from .tracked import (
    BATCH,
    FEATURE,
    TIME,
    Frames,
    Known,
    Node,
    Tensor,
    one_time_axis,
    step_axis,
    step_shape,
    uniform,
)


def gather(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Rows of a constant table by the frames' indices (an embedding), or constant features of the frames."""
    data, index = node.inputs
    axis = int(node.attribute("axis", 0))
    if isinstance(data, Known) and isinstance(index, Frames):
        table, _ = uniform(node, data)
        axis %= table.ndim
        if axis and index.lone:
            raise node.refuse("it selects columns by positions", "select rows: transpose the table")
        labels = (FEATURE,) * axis + index.labels + (FEATURE,) * (table.ndim - axis - 1)
        out = step.emit("Gather", [step.constant(table, data.name), index.name], node.hint, axis=axis)
        return [made_of(index, out[0], labels, node)]
    x = node.frames(0)
    if not isinstance(index, Known):
        raise node.refuse(
            "both its table and its indices are computed from the frames", "index a constant table, or use a mask"
        )
    axis = selected_axis(node, x, axis % len(x.labels))
    chosen = np.asarray(node.constant(1))
    labels = x.labels[:axis] + (FEATURE,) * chosen.ndim + x.labels[axis + 1 :]
    at = step.constant(chosen, index.name)
    out = step.emit("Gather", [x.name, at], node.hint, axis=step_axis(x, axis))
    return [made_of(x, out[0], labels, node)]


def slices(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features by constants, of time by its ends; a slice that takes all of an axis is nothing."""
    x = node.frames(0)
    axes, steps = _value(node, 3), _value(node, 4)
    first, last = _value(node, 1), _value(node, 2)
    if first is None or last is None:
        raise node.refuse("its bounds are missing", "slice by constants")
    chosen = range(len(first[0])) if axes is None else [int(a) % len(x.labels) for a in axes[0]]
    strides = [1] * len(first[0]) if steps is None else [int(s) for s in steps[0]]
    kept: list[int] = []
    for i, axis in enumerate(chosen):
        if strides[i] == 1 and is_whole(x, node, axis):
            continue
        if axis == x.time:
            x = slice_time(
                node, step, x, [(int(a[i]), int(b[i])) for a, b in zip(first, last, strict=True)], strides[i]
            )
        else:
            selected_axis(node, x, axis)
            kept.append(i)
    if not kept:
        return [replace(x, shapes=node.shapes[0])]
    begin, end = (np.asarray(node.constant(i))[kept] for i in (1, 2))
    at, by = [step_axis(x, chosen[i]) for i in kept], [strides[i] for i in kept]
    given = [step.ints(*(int(v) for v in values)) for values in (begin, end, at, by)]
    out = step.emit("Slice", [x.name, *given], node.hint)
    return [replace(x, name=out[0], shapes=node.shapes[0], warm=None)]


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
    out = step.emit("Split", [x.name, sizes], node.hint, tuple(node.proto.output), axis=step_axis(x, axis))
    return [made_of(x, name, x.labels, node, i) for i, name in enumerate(out)]


def concat(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Along features; a constant part is repeated for each stream. Along time with constants before or after."""
    some = some_frames(node)
    axis = int(node.attribute("axis", 0)) % len(some.labels)
    if axis == some.time:
        return [concat_time(node, step, axis)]
    plain_axis(node, some, axis)
    made = replace(some, shapes=node.shapes[0])
    if any(value.labels != some.labels for value in node.inputs if isinstance(value, Frames) and not value.lone):
        raise node.refuse(
            f"its inputs have their batch and time axes at different places: {labelled(node)}",
            "transpose them alike first",
        )
    names = []
    for i, value in enumerate(node.inputs):
        if isinstance(value, Known):
            names.append(_for_each_stream(node, step, value, some, axis))
        else:
            x = node.frames(i)
            names.append(_repeated(node, step, x, some, axis) if x.lone and not some.lone else x.name)
    out = step.emit("Concat", names, node.hint, axis=step_axis(some, axis))
    return [made_of(made, out[0], some.labels, node)]


def _repeated(node: Node, step: StepGraph, x: Frames, some: Frames, axis: int) -> str:
    """Positions, whose batch axis has size 1 in the whole-sequence graph, beside frames of several other axes."""
    name, shape = beside(node, step, x, some), step_shape(some)
    at = step_axis(some, axis)
    shape[at] = x.shapes[0][axis]
    ones = [1 if size == -1 else size for size in shape]
    return step.emit("Expand", [name, step.ints(*ones)], f"{x.name}.repeated")[0]


def _for_each_stream(node: Node, step: StepGraph, known: Known, some: Frames, axis: int) -> str:
    """The constant with as many rows as there are streams in the step's batch."""
    array = constant_in_step(uniform(node, known)[0], some)
    array = array[None] if some.lone else array
    wanted = [array.shape[i] if i == step_axis(some, axis) else size for i, size in enumerate(step_shape(some))]
    at = wanted.index(-1)
    array = np.broadcast_to(array, [1 if size == -1 else size for size in wanted])
    batch = step.emit("Shape", [some.name], f"{node.hint}.batch", start=at, end=at + 1)[0]
    sizes = [step.ints(*array.shape[:at])] if at else []
    sizes += [batch, step.ints(*array.shape[at + 1 :])] if array.shape[at + 1 :] else [batch]
    shape = step.emit("Concat", sizes, f"{node.hint}.shape", axis=0) if len(sizes) > 1 else [batch]
    return step.emit("Expand", [step.constant(array, known.name), shape[0]], f"{node.hint}.repeated")[0]


def reshape(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Features among themselves; batch and time stay, merge in one axis, or part again; frames may be stacked and unstacked."""
    return [rearranged(node, step, node.frames(0))]


def transpose(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Where only the time axis moves, nothing is left of it in a step of one frame."""
    x = node.frames(0)
    given = node.attribute("perm")
    order = [int(i) for i in given] if given is not None else list(range(len(x.labels)))[::-1]
    return [replace(transposed(step, x, order, node.hint), shapes=node.shapes[0])]


def expand(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features of size 1."""
    x, rank = node.frames(0), len(node.shapes[0][0])
    front = rank - len(x.labels)
    labels = one_time_axis(node, [FEATURE] * front + list(x.labels))
    if x.lone and any(sizes == node.batches for sizes in zip(*node.shapes[0], strict=True)):
        at = list(zip(*node.shapes[0], strict=True)).index(node.batches)
        labels = (*labels[:at], BATCH, *labels[at + 1 :])
        made = Frames("", labels, node.shapes[0], x.clock)
        x, front = replace(made, name=beside(node, step, x, made)), 0
    new: list[int] = []
    for axis, label in enumerate(labels):
        sizes = {shape[axis] for shape in node.shapes[0]}
        if label == FEATURE and len(sizes) > 1:
            raise node.refuse(
                f"it repeats along axis {axis} as often as there are frames or streams", "broadcasting needs no expand"
            )
        if label == TIME:
            new += [1] if x.clock.per_step > 1 else []
        else:
            new += (
                [sizes.pop()]
                if label == FEATURE
                else [1] * (2 if label == "BF" or (len(label) > 1 and x.clock.per_step > 1) else 1)
            )
    made = made_of(x, x.name, labels, node)
    if step_shape(x) == step_shape(made):
        return [made]
    return [replace(made, name=step.emit("Expand", [x.name, step.ints(*([1] if x.lone else []), *new)], node.hint)[0])]


def pad(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Of features by constants, of time by what `rules_time` says."""
    x, rank = node.frames(0), len(node.frames(0).labels)
    widths, axes = node.constant(1), node.constant(3)
    chosen = range(rank) if axes is None else [int(a) % rank for a in axes]
    pairs = {a: (int(w), int(v)) for a, w, v in zip(chosen, *np.split(np.asarray(widths), 2), strict=True)}
    time = pairs.pop(x.time, (0, 0)) if x.time >= 0 else (0, 0)
    for axis, pair in pairs.items():
        if any(pair):
            plain_axis(node, x, axis)
    fill = node.constant(2)
    if any(any(pair) for pair in pairs.values()):
        sizes = step_shape(x)
        amounts = np.zeros((2, len(sizes)), np.int64)
        for axis, pair in pairs.items():
            if any(pair):
                amounts[:, step_axis(x, axis)] = pair
        names = [x.name, step.ints(*(int(v) for v in amounts.reshape(-1)))]
        names += [] if fill is None else [step.constant(fill, "fill")]
        out = step.emit("Pad", names, node.hint, **attributes_of(node))
        x = replace(x, name=out[0], warm=None)
    if any(time):
        x = pad_time(node, step, x, time, 0.0 if fill is None or not fill.size else float(fill.reshape(-1)[0]))
    return [replace(x, shapes=node.shapes[0])]
