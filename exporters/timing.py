"""Frames of other steps, in the step graph: buffers of the past, delay lines, and what lies before the first frame or after the last.

Step s has elements s * n - d .. of a tensor (`Clock`). Before index 0 and past the end they hold whatever the warm-up or the flush
computed; `inside` says which are real, and `masked` puts padding in the others' place, where a reader would see them.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from .clocks import Clock, divided
from .step_graph import StepGraph
from .tracked import BATCH, BATCH_FEATURE, FEATURE, SOURCE, TIME, TIME_BATCH, Frames, Padding, step_axis, step_shape


def steps(step: StepGraph) -> str:
    """int64 (B,): how many steps the stream has taken before this one."""
    if "steps" not in step.shared:
        step.shared["steps"] = name = step.state("steps", np.zeros((), np.int64))
        step.set_next(name, step.emit("Add", [name, step.constant(np.array(1, np.int64), "one")], f"{name}_next")[0])
    return step.shared["steps"]


def frames_seen(step: StepGraph) -> str:
    """int64 (B,): how many frames the stream has, those of this step included; no more of them after its end."""
    if "frames" not in step.shared:
        name = step.state("frames", np.zeros((), np.int64))
        step.shared["frames"] = step.emit("Add", [name, step.valid()], f"{name}_next")[0]
        step.set_next(name, step.shared["frames"])
    return step.shared["frames"]


def _number(step: StepGraph, value: int) -> str:
    return step.constant(np.array(value, np.int64), "number")


def length(step: StepGraph, clock: Clock) -> str:
    """int64 (B,): how many elements there are so far, or in all once the stream has ended; see `engine.artifact.length_of`."""
    found = frames_seen(step)
    for multiply, add, divide, _ in clock.lengths:
        if multiply != 1:
            found = step.emit("Mul", [found, _number(step, multiply)], "length.times")[0]
        found = step.emit("Add", [found, _number(step, add)], "length.plus")[0]
        if add < 0:
            found = step.emit("Max", [found, _number(step, 0)], "length.least")[0]
        if divide != 1:
            found = step.emit("Div", [found, _number(step, divide)], "length.divided")[0]
    return found


def first_index(step: StepGraph, clock: Clock) -> str:
    """int64 (B,): the index of the block's first element."""
    found = steps(step)
    if clock.per_step != 1:
        found = step.emit("Mul", [found, _number(step, clock.per_step)], "index.times")[0]
    return step.emit("Sub", [found, _number(step, clock.delay)], "index")[0] if clock.delay else found


def indices(step: StepGraph, clock: Clock) -> str:
    """int64 (B,), or (B, n) where a step has n > 1 elements: the index of each element of the block."""
    first = first_index(step, clock)
    if clock.per_step == 1:
        return first
    column = step.emit("Unsqueeze", [first, step.ints(1)], "index.column")[0]
    offsets = step.constant(np.arange(clock.per_step, dtype=np.int64), "offsets")
    return step.emit("Add", [column, offsets], "indices")[0]


def inside(step: StepGraph, clock: Clock, left: bool, right: bool) -> str:
    """bool (B,) or (B, n): which elements are not before the first (left), and not after the last (right)."""
    at, tests, right = indices(step, clock), [], right and not step.endless
    if left:
        tests += step.emit("GreaterOrEqual", [at, _number(step, 0)], "started")
    if right:
        end = length(step, clock)
        if clock.per_step > 1:
            end = step.emit("Unsqueeze", [end, step.ints(1)], "length.column")[0]
        tests += step.emit("Less", [at, end], "running")
    return tests[0] if len(tests) == 1 else step.emit("And", tests, "inside")[0]


def _spread(step: StepGraph, x: Frames, mask: str) -> str:
    """(B,) or (B, n) as it broadcasts to `x` in the step graph."""
    places: list[int] = []
    for axis, label in enumerate(x.labels):
        begin = step_axis(x, axis)
        count = (step_axis(x, axis + 1) if axis + 1 < len(x.labels) else len(step_shape(x))) - begin
        if label == BATCH_FEATURE:
            places.append(begin + 1)
        elif label in (FEATURE, SOURCE):
            places += range(begin, begin + count)
    first = next((label for label in x.labels if label), "")
    if x.clock.per_step > 1 and first in (TIME, TIME_BATCH) and not x.lone:
        mask = step.emit("Transpose", [mask], "inside.turned", perm=[1, 0])[0]
    return step.emit("Unsqueeze", [mask, step.ints(*places)], "inside.spread")[0] if places else mask


def masked(step: StepGraph, x: Frames, fill: Any, left: bool, right: bool) -> Frames:
    """`x` with `fill` in the place of what is not real at its left or right end."""
    right = right and not step.endless
    if not left and not right:
        return x
    mask = _spread(step, x, inside(step, x.clock, left, right))
    value = step.constant(np.array(fill, x.dtype), "fill")
    name = step.emit("Where", [mask, x.name, value], f"{x.name}.real")[0]
    return replace(x, name=name, warm=float(fill) if left else x.warm)


def hold(step: StepGraph, clock: Clock, old: str, new: str, rank: int) -> str:
    """`new`, or `old` as long as the block's elements are before the first. rank: of both in the step graph, the batch first.

    Blocks must begin at the first element: see `aligned`.
    """
    if clock.delay <= 0:
        return new
    started = step.emit("GreaterOrEqual", [first_index(step, clock), _number(step, 0)], "started")[0]
    if rank > 1:
        started = step.emit("Unsqueeze", [started, step.ints(*range(1, rank))], "started.spread")[0]
    return step.emit("Where", [started, new, old], f"{new}.held")[0]


def _batch(x: Frames) -> int:
    """Which axis has the batch, alone or before features; -1 where it has no place of its own."""
    return next((i for i, label in enumerate(x.labels) if label in (BATCH, BATCH_FEATURE)), -1)


def batch_first(step: StepGraph, x: Frames) -> Frames:
    """`x` with its batch axis in front."""
    at = _batch(x)
    if at <= 0:
        return x
    return transposed(step, x, [at, *(i for i in range(len(x.labels)) if i != at)], f"{x.name}.streams")


def transposed(step: StepGraph, x: Frames, order: list[int], hint: str) -> Frames:
    """`x` with its axes in that order; where only the time axis moves, and has no place in the step graph, nothing is computed."""
    labels = tuple(x.labels[i] for i in order)
    shapes = tuple(tuple(shape[i] for i in order) for shape in x.shapes)
    new = []
    for i in order:
        stop = step_axis(x, i + 1) if i + 1 < len(x.labels) else len(step_shape(x))
        new += range(step_axis(x, i), stop)
    new = ([0] if x.lone else []) + new
    made = replace(x, labels=labels, shapes=shapes)
    return made if new == sorted(new) else replace(made, name=step.emit("Transpose", [x.name], hint, perm=new)[0])


def like(step: StepGraph, made: Frames, model: Frames) -> Frames:
    """`made`, which `batch_first` brought batch first, in the order of axes that `model` has."""
    at = _batch(model)
    if at <= 0:
        return made
    rest = [i for i in range(len(model.labels)) if i != at]
    order = [0 if i == at else 1 + rest.index(i) for i in range(len(model.labels))]
    return transposed(step, made, order, f"{made.name}.turned")


def full(step: StepGraph, x: Frames) -> str:
    """`x` with its time axis, whatever its size."""
    if x.clock.per_step > 1:
        return x.name
    return step.emit("Unsqueeze", [x.name, step.ints(step_axis(x, x.time, full=True))], f"{x.name}.frame")[0]


def without_time(step: StepGraph, name: str, at: int, count: int, hint: str) -> str:
    """The tensor without its time axis `at`, where that has one entry."""
    return step.emit("Squeeze", [name, step.ints(at)], hint)[0] if count == 1 else name


def history(step: StepGraph, x: Frames, count: int, first: np.ndarray, hint: str) -> str:
    """The block of `x`, time axis included and batch first, after the `count` elements before it. first: what those are at the start."""
    block, n = full(step, x), x.clock.per_step
    if count == 0:
        return block
    at = step_axis(x, x.time, full=True)
    shape = step_shape(x, full=True)[1:]
    shape[at - 1] = count
    key = ("past", x.name, count, first.tobytes())
    if key not in step.shared:
        past = step.state(f"{hint}.past", np.broadcast_to(first.astype(x.dtype), shape))
        joined = step.emit("Concat", [past, block], f"{hint}.joined", axis=at)[0]
        step.set_next(past, _piece(step, joined, at, n, n + count, f"{past}_next"))
        step.shared[key] = joined
    return step.shared[key]


def _piece(step: StepGraph, name: str, at: int, start: int, stop: int, hint: str, stride: int = 1) -> str:
    given = [step.ints(v) for v in (start, stop, at, stride)]
    return step.emit("Slice", [name, *given], hint)[0]


def reach(step: StepGraph, x: Frames, pad: Padding, span: int, stride: int) -> Clock:
    """The clock of what reads, for each element i, elements i * stride - before .. i * stride - before + span of `x` with that padding.

    Raises NeedsMultiple where a step has no whole number of strides.
    """
    clock = x.clock
    n = divided(clock.per_step, stride)
    delay = -((clock.delay + span - pad.before + 1 - stride) // -stride)
    kept = clock
    for added in pad.order:
        kept = replace(kept, lengths=kept.then(1, added, 1))
    more = pad.before + pad.after - sum(pad.order)
    lengths = kept.then(1, more - span - 1 + stride, stride, least=int(span > 0))
    if pad.mode != "constant" and pad.before > 0:  # a step that has the first element has what comes before it
        needed = pad.before if pad.mode == "reflect" else 0
        steps_until = -((needed + clock.delay + 1) // -clock.per_step)
        delay = max(delay, (steps_until - 1) * n)
    return Clock(n, 0, lengths).at_least(delay, step.frames_per_step)


def windowed(
    step: StepGraph, x: Frames, clock: Clock, pad: Padding, span: int, stride: int, hint: str
) -> tuple[str, Frames]:
    """All elements of `x` that a block of `clock` reads, time axis included and batch first; and `x` as it was read."""
    n, d = x.clock.per_step, x.clock.delay
    if pad.mode != "constant":
        return _mirrored(step, x, clock, pad, span, stride, hint), x
    x = masked(step, x, pad.fill, left=pad.before > 0 and d > 0 and x.warm != pad.fill, right=pad.after > 0)
    count = clock.delay * stride + pad.before - d
    joined = history(step, x, max(0, count), np.array(pad.fill), hint)
    at = step_axis(x, x.time, full=True)
    start, size = max(0, -count), (clock.per_step - 1) * stride + span + 1
    if start or size != max(0, count) + n:
        joined = _piece(step, joined, at, start, start + size, f"{hint}.window")
    return joined, x


def _mirrored(step: StepGraph, x: Frames, clock: Clock, pad: Padding, span: int, stride: int, hint: str) -> str:
    """`windowed`, where the padding is made of the tensor's own elements: each is looked up by its index."""
    n, d, size = x.clock.per_step, x.clock.delay, (clock.per_step - 1) * stride + span + 1
    count = max(0, clock.delay * stride + pad.before - d) + (2 if pad.mode == "reflect" else 1) * pad.after
    joined = history(step, x, count, np.array(0), hint)
    at, rank = step_axis(x, x.time, full=True), len(step_shape(x, full=True))
    order = [0, at, *(a for a in range(1, rank) if a != at)]
    if order != sorted(order):
        joined = step.emit("Transpose", [joined], f"{hint}.frames", perm=order)[0]
    place = _place(step, x.clock, clock, pad, size, stride, count + n, d + count, hint)
    found = step.emit("GatherND", [joined, place], f"{hint}.mirrored", batch_dims=1)[0]
    if order != sorted(order):
        found = step.emit("Transpose", [found], f"{hint}.window", perm=[order.index(a) for a in range(rank)])[0]
    return found


def _place(
    step: StepGraph, own: Clock, clock: Clock, pad: Padding, size: int, stride: int, held: int, behind: int, hint: str
) -> str:
    """int64 (B, size, 1): where in the `held` elements, the first of which is `behind` the step's own, each of the window is found."""

    def of(op: str, *given: str) -> str:
        return step.emit(op, list(given), f"{hint}.place")[0]

    zero, one = _number(step, 0), step.ints(1)
    base = first_index(step, clock)
    base = of("Mul", base, _number(step, stride)) if stride != 1 else base
    offsets = step.constant(np.arange(size, dtype=np.int64) - pad.before, "offsets")
    index = of("Add", of("Unsqueeze", base, one), offsets)
    last = of("Sub", of("Unsqueeze", length(step, own), one), _number(step, 1))
    if pad.mode == "reflect":
        index = of("Abs", index)
        index = of("Sub", last, of("Abs", of("Sub", last, index)))
    else:
        index = of("Max", of("Min", index, last), zero)
    start = first_index(step, replace(own, delay=behind))
    place = of("Sub", index, of("Unsqueeze", start, one))
    place = of("Min", of("Max", place, zero), _number(step, held - 1))
    return of("Unsqueeze", place, step.ints(2))


def settled(step: StepGraph, x: Frames) -> Frames:
    """`x` with its padding in the step graph."""
    pad = x.padding
    if pad is None:
        return x
    source = batch_first(step, replace(x, padding=None))
    clock = reach(step, source, pad, 0, 1)
    name, read = windowed(step, source, clock, pad, 0, 1, f"{x.name}.padded")
    at = step_axis(source, source.time, full=True)
    name = without_time(step, name, at, clock.per_step, f"{x.name}.padded")
    warm = (
        pad.fill
        if pad.mode == "constant" and pad.before >= 0 and (source.clock.delay <= 0 or read.warm == pad.fill)
        else None
    )
    return like(step, replace(source, name=name, clock=clock, warm=warm), x)


def delayed(step: StepGraph, x: Frames, delay: int) -> Frames:
    """`x`, settled, with that delay: the frames between are a state."""
    extra = delay - x.clock.delay
    if extra == 0:
        return x
    source = batch_first(step, x)
    at, n = step_axis(source, source.time, full=True), x.clock.per_step
    joined = history(step, source, extra, np.array(0), f"{x.name}.delayed")
    name = _piece(step, joined, at, 0, n, f"{x.name}.delayed")
    name = without_time(step, name, at, n, f"{x.name}.late")
    warm = 0.0 if x.clock.delay == 0 or x.warm == 0 else None
    return like(step, replace(source, name=name, clock=replace(x.clock, delay=delay), warm=warm), x)


def aligned(step: StepGraph, x: Frames) -> Frames:
    """`x`, settled, with blocks that begin at the first element."""
    x = settled(step, x)
    return delayed(step, x, x.clock.delay + -x.clock.delay % x.clock.per_step)
