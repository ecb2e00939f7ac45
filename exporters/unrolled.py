"""What an unrolled loop over time looks like in a graph: frames picked by constant indices, and results put together again."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..engine.errors import ExportError
from .values import Values

STEADY = 3  # the first step whose nodes must be those of every later step; a loop may do something else before it
LATER = -2  # the time of what needs the whole loop


@dataclass(frozen=True, slots=True)
class Pick:
    """Frame `index` of `source` along `axis`; kept: with that axis, of size 1."""

    source: int
    axis: int
    index: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """Value `of`: one value for each frame, along `axis`. extended: the frames' values have no such axis of their own."""

    of: int
    frames: tuple[int, ...]
    axis: int
    extended: bool


@dataclass(frozen=True, slots=True)
class Unrolled:
    """time[v]: None for what needs no frame alone, the latest frame that it needs, or LATER."""

    picks: dict[int, Pick]
    stacks: list[Stack]
    time: list[int | None]


def unrolled(values: Values, length: int) -> Unrolled:
    """The loop whose frames are there before any other loop's."""
    found = _picks(values, length)
    picks: dict[int, Pick] = {}
    stacks: list[Stack] = []
    writes: dict[int, dict[int, int]] = {}
    time: list[int | None] = []
    for v, made in enumerate(values.made):
        given = [time[i] for i in made.inputs if i != Values.NOTHING]
        pick = found.get(v)
        if LATER in given:
            time.append(LATER)
        elif pick is not None and time[pick.source] is None:
            picks[v] = pick
            time.append(pick.index)
        elif made.op in ("Shape", "Size"):
            time.append(None)
        else:
            stack = _stack(values, v, length, time, writes)
            if stack is not None:
                stacks.append(stack)
            frames = [t for t in given if t is not None]
            time.append(LATER if stack is not None else max(frames, default=None))
    return Unrolled(picks, stacks, time)


def _picks(values: Values, length: int) -> dict[int, Pick]:
    found = {v: pick for v in range(len(values.made)) if (pick := _pick(values, v, length)) is not None}
    indices = defaultdict(set)
    for pick in found.values():
        indices[pick.source, pick.axis].add(pick.index)
    return {v: p for v, p in found.items() if len(indices[p.source, p.axis]) >= length - 2}


def _pick(values: Values, v: int, length: int) -> Pick | None:
    """The frame that the value is, of a tensor that has `length` of them."""
    made = values.made[v]
    if made.op not in ("Gather", "Slice", "Split") or values.made[made.inputs[0]].array is not None:
        return None
    source, shape = made.inputs[0], values.shape[made.inputs[0]]
    arrays = [values.made[i].array if i != Values.NOTHING else None for i in made.inputs[1:]]
    if shape is None:
        return None
    if made.op == "Split":
        axis, assert_proto = made.attribute("axis", 0) % len(shape), made.proto
        assert assert_proto is not None
        whole = shape[axis] == length == len(assert_proto.output)
        return Pick(source, axis, made.output, True) if whole else None
    index = arrays[0]
    if index is None or index.size != 1 or int(index.flat[0]) < 0:
        return None
    first = int(index.flat[0])
    if made.op == "Gather":
        axis = made.attribute("axis", 0) % len(shape)
        return Pick(source, axis, first, index.ndim == 1) if shape[axis] == length and index.ndim < 2 else None
    stop, axes, strides = ([*arrays, None, None])[1:4]
    if (
        stop is None
        or axes is None
        or stop.size != 1
        or axes.size != 1
        or (strides is not None and strides.item() != 1)
    ):
        return None
    axis = int(axes.flat[0]) % len(shape)
    return Pick(source, axis, first, True) if shape[axis] == length and int(stop.flat[0]) == first + 1 else None


def _stack(
    values: Values, v: int, length: int, time: list[int | None], writes: dict[int, dict[int, int]]
) -> Stack | None:
    """The value as one value for each frame, where it is that."""
    made = values.made[v]
    if made.op == "Concat" and len(made.inputs) == length:
        frames, axis = made.inputs, made.attribute("axis", 0)
    elif made.op == "ScatterElements":
        written = _written(values, v, writes)
        if written is None or set(written) != set(range(length)):
            return None
        frames, axis = tuple(written[k] for k in range(length)), made.attribute("axis", 0)
    else:
        return None
    times = [time[f] for f in frames][STEADY:]
    if times == [length - 1] * len(times):
        raise ExportError(
            "a loop over time runs from the last frame to the first, or needs the last frame from the start: the first frame's output needs the "
            "last frame; run it forwards"
        )
    behind = {None if t is None else k - t for k, t in enumerate(times, STEADY)}
    ahead = (times[0] or 0) - STEADY
    if ahead > 0 and times == [min(k + ahead, length - 1) for k in range(STEADY, length)]:
        raise ExportError(
            "a loop over time reads frames that come after the one whose output it computes; stack frames or use a convolution before the "
            "loop, whose look ahead becomes a delay"
        )
    if len(behind) != 1 or None in behind:
        return None
    shape = values.shape[frames[0]]
    rank = len(values.shape[v] or shape or ())
    axis %= rank
    inner = [_without_axis(values, f, axis) for f in frames]
    if all(i is not None for i in inner):
        return Stack(v, tuple(i for i in inner if i is not None), axis, True)
    return Stack(v, frames, axis, False)


def _without_axis(values: Values, v: int, axis: int) -> int | None:
    """What the value is an Unsqueeze of along the axis, if so."""
    made = values.made[v]
    if made.op != "Unsqueeze":
        return None
    axes = values.made[made.inputs[1]].array
    rank = len(values.shape[v] or ())
    return made.inputs[0] if axes is not None and rank and [int(a) % rank for a in axes.reshape(-1)] == [axis] else None


def _written(values: Values, v: int, writes: dict[int, dict[int, int]]) -> dict[int, int] | None:
    """Which value was written at each index, where a tensor was filled frame by frame."""
    made = values.made[v]
    base, at, update = made.inputs
    spread, shape = values.made[at], values.shape[update]
    index = values.made[spread.inputs[0]].array if spread.op == "Expand" else None
    if index is None or index.size != 1 or shape is None or shape[made.attribute("axis", 0)] != 1:
        return None
    writes[v] = writes.get(base, {}) | {int(np.asarray(index).flat[0]): update}
    return writes[v]
