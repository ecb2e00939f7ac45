"""Attention within a window of frames: keys and values of the past are states; scores have an axis of the frames in the window.

The mask is the whole-sequence graph's own (`bands`), or the user's `window`. Softmax leaves out what is before the first frame and
after the last, so the weights at both ends are those of the whole sequence.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .bands import Band
from .clocks import NeedsMultiple
from .rule_parts import attributes_of, broadcast, made_of
from .step_graph import StepGraph
from .timing import delayed, first_index, full, history, length, masked, settled
from .tracked import FEATURE, SOURCE, TIME, Frames, Known, Labels, Node, Source, Tensor, step_axis
from .worlds import NeedsLonger


def is_scores(node: Node) -> bool:
    """Whether it multiplies every frame with every frame: (.., T, d) by (.., d, T)."""
    a, b = node.input(0), node.input(1)
    if node.op != "MatMul" or not isinstance(a, Frames) or not isinstance(b, Frames) or a.lone or b.lone:
        return False
    return a.labels[-2:] == (TIME, FEATURE) and b.labels[-2:] == (FEATURE, TIME)


def scores(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Queries by the keys of their window."""
    q, k = (settled(step, node.frames(i)) for i in (0, 1))
    if not q.clock.fits(k.clock, step.frames_per_step):
        raise node.refuse("its queries and keys have different numbers of frames", "attend to frames of the same rate")
    band, n = _band(node, step), q.clock.per_step
    if n % band.period:
        raise NeedsMultiple(band.period // math.gcd(n, band.period))
    late = max(q.clock.delay, k.clock.delay)
    source = _window(band, late, n, k)
    k = delayed(step, k, source.clock.delay)
    q = delayed(step, q, source.delay - source.behind)
    past = history(step, k, source.size - n, np.array(0.0), f"{node.hint}.keys")
    labels = (*_leading(node, q.labels[:-2], k.labels[:-2]), TIME, SOURCE)
    rows = full(step, q)
    out = step.emit("MatMul", [rows, past], f"{node.hint}.rows" if n == 1 else node.hint)
    made = replace(made_of(q, out[0], labels, node), source=source, warm=None)
    if n == 1:
        made = replace(
            made, name=step.emit("Squeeze", [*out, step.ints(step_axis(made, len(labels) - 2, True))], node.hint)[0]
        )
    return [made]


def _band(node: Node, step: StepGraph) -> Band:
    found = node.whole.band(node.proto.output[0])
    if found is None and step.bounds.window is None:
        raise node.refuse(
            "every frame attends to all frames of the sequence, or to all before it, so a step would need a memory without end",
            "mask the scores to a window of frames, or set window=(frames before, frames after) to approximate it; the difference is measured",
        )
    if found is None:
        assert step.bounds.window is not None
        found = Band((step.bounds.window[0],), (step.bounds.window[1],))
        step.windows[node.proto.output[0]] = found
        step.used.add("window")
    return found


def _window(band: Band, late: int, n: int, k: Frames) -> Source:
    """The window that a block's queries share, and how late they must come for its last frame to be there.

    Queries of delay d are elements t * n - d + e; with keys of delay `late` the last key is t * n - late + n - 1.
    """
    delay = late
    while max(e + band.right[(e - delay) % band.period] for e in range(n)) - delay > n - 1 - late:
        delay += 1
    phases = [(e - delay) % band.period for e in range(n)]
    first = max(band.left[p] - e for e, p in enumerate(phases))
    behind = max(0, first, late - delay)
    size = delay - late + behind + n
    s, e = np.arange(size)[None], np.arange(n)[:, None]
    offset = s - behind - e  # of the key's frame from the query's
    left, right = (np.array([side[p] for p in phases])[:, None] for side in (band.left, band.right))
    within = (offset >= -left) & (offset <= right)
    return Source(replace(k.clock, delay=late), delay + behind, size, behind, within.tobytes())


def _leading(node: Node, q: Labels, k: Labels) -> Labels:
    if len(q) != len(k) or any(a != b for a, b in zip(q, k, strict=True)):
        raise node.refuse(
            f"its queries and keys have their batch axes at different places: {q} and {k}", "transpose them alike"
        )
    return q


def softmax_over_source(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Over the frames of the window that exist."""
    x = node.frames(0)
    if x.labels[int(node.attribute("axis", -1))] != SOURCE:
        raise node.refuse(
            "it works along another axis than the frames that are attended to", "use softmax over the last axis"
        )
    at = step_axis(x, len(x.labels) - 1)
    out = step.emit(node.op, [_of_existing(step, x)], node.hint, **attributes_of(node, "axis"), axis=at)
    return [made_of(x, out[0], x.labels, node)]


def largest_over_source(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The largest score of the frames of the window that exist; some write so which rows attend to nothing."""
    x, given = node.frames(0), node.constant(1) if len(node.inputs) > 1 else node.attribute("axes")
    axes = [int(a) % len(x.labels) for a in np.atleast_1d(np.asarray(given))] if given is not None else []
    if axes != [len(x.labels) - 1] or not node.attribute("keepdims", 1):
        raise node.refuse(
            "it reduces scores over other axes than the frames that are attended to", "reduce over the last axis"
        )
    at = step.ints(step_axis(x, axes[0]))
    out = step.emit("ReduceMax", [_of_existing(step, x), at], node.hint, keepdims=1)[0]
    return [replace(made_of(x, out, (*x.labels[:-1], FEATURE), node), source=None)]


def _of_existing(step: StepGraph, x: Frames) -> str:
    """Scores, minus infinity where the window has a frame that does not exist or is not of this query's own window."""
    assert x.source is not None
    n, source, at = x.clock.per_step, x.source, step_axis(x, len(x.labels) - 1)
    allowed, kept = _existing(step, x), (0, at) if n == 1 else (0, at - 1, at)
    if n > 1:
        within = np.frombuffer(source.within, bool).reshape(n, source.size)
        allowed = step.emit("Unsqueeze", [allowed, step.ints(1)], "attended.rows")[0]
        if not within.all():
            allowed = step.emit("And", [allowed, step.constant(within[None], "within")], "attended.within")[0]
    places = [a for a in range(at + 1) if a not in kept]
    if places:
        allowed = step.emit("Unsqueeze", [allowed, step.ints(*places)], "attended.heads")[0]
    low = step.constant(np.array(-np.inf, x.dtype), "excluded")
    return step.emit("Where", [allowed, x.name, low], f"{x.name}.existing")[0]


def _existing(step: StepGraph, x: Frames) -> str:
    """bool (B, size): which frames of the window are not before the first and not after the last."""
    source = x.source
    assert source is not None
    first = first_index(step, replace(source.clock, delay=source.delay))
    column = step.emit("Unsqueeze", [first, step.ints(1)], "window.first")[0]
    at = step.emit("Add", [column, step.constant(np.arange(source.size, dtype=np.int64), "offsets")], "window.indices")[
        0
    ]
    tests = step.emit("GreaterOrEqual", [at, step.constant(np.array(0, np.int64), "number")], "window.started")
    if not step.endless and (source.clock.delay < x.clock.delay or source.clock.per_step > 1):
        end = step.emit("Unsqueeze", [length(step, source.clock), step.ints(1)], "length.column")[0]
        tests += step.emit("Less", [at, end], "window.running")
    return tests[0] if len(tests) == 1 else step.emit("And", tests, "window.existing")[0]


def weighted(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """Weights (.., T, S) by the values (.., T, d) of the window."""
    p, v = node.frames(0), node.input(1)
    if (
        not isinstance(v, Frames)
        or v.labels[-2:] != (TIME, FEATURE)
        or p.labels[-2:] != (TIME, SOURCE)
        or p.source is None
    ):
        raise node.refuse(
            "it reads scores of every frame beside every frame", "multiply weights (.., T, T) by values (.., T, d)"
        )
    v, source, n = settled(step, v), p.source, p.clock.per_step
    if v.clock.delay > source.clock.delay:
        raise node.refuse(
            f"its values come {v.clock.delay - source.clock.delay} frames after its keys",
            "compute both from the same layer",
        )
    v = delayed(step, v, source.clock.delay)
    ends = (
        n > 1 or p.clock.delay > source.clock.delay
    )  # a window may reach past the end, and a weight of 0 does not hide what is no number
    v = masked(step, v, 0.0, left=source.clock.delay > 0 and v.warm != 0, right=ends)
    past = history(step, v, source.size - n, np.array(0.0), f"{node.hint}.values")
    rows = p.name
    if n == 1:
        rows = step.emit("Unsqueeze", [rows, step.ints(step_axis(p, len(p.labels) - 2, True))], f"{node.hint}.row")[0]
    labels = (*_leading(node, p.labels[:-2], v.labels[:-2]), TIME, FEATURE)
    out = step.emit("MatMul", [rows, past], node.hint)
    made = replace(made_of(p, out[0], labels, node), source=None)
    if n == 1:
        at = step_axis(made, len(labels) - 2, True)
        made = replace(made, name=step.emit("Squeeze", [*out, step.ints(at)], f"{node.hint}.frame")[0])
    return [made]


def banded(node: Node, known: Known, made: Frames) -> np.ndarray:
    """A constant (.., T, T) beside scores, as it is for one block: (.., n, size), which must be the same for every block.

    Raises NeedsLonger where no sequence so far has a whole window within.
    """
    source, n = made.source, made.clock.per_step
    assert source is not None
    array = known.values[-1]
    length_ = array.shape[-1]
    within = np.frombuffer(source.within, bool).reshape(n, source.size)
    late = source.delay - source.behind
    starts = [
        b for b in range(-late % n, length_, n) if b - source.behind >= 0 and b - source.behind + source.size <= length_
    ]
    if len(starts) < 2:
        raise NeedsLonger
    blocks = [array[..., b : b + n, b - source.behind : b - source.behind + source.size] for b in starts]
    first = np.where(within, blocks[0], np.zeros((), array.dtype))
    if any(not np.array_equal(first, np.where(within, b, np.zeros((), array.dtype))) for b in blocks):
        raise node.refuse(
            f"it reads '{known.name}', which depends on where in the sequence the frames are",
            "make it depend on how far they are apart",
        )
    first = np.where(within, blocks[0], blocks[0].min()) if array.dtype.kind == "f" else first
    return first[..., 0, :] if n == 1 else first


def beside_scores(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """A pointwise operator on scores or weights."""
    some = next(v for v in node.inputs if isinstance(v, Frames) and v.source is not None)
    inputs, names = [], {}
    for i, value in enumerate(node.inputs):
        square = isinstance(value, Known) and is_square(value, some)
        if isinstance(value, Known) and square:
            names[i] = step.constant(banded(node, value, some), value.name)
            inputs.append(None)
        else:
            inputs.append(value)
    given, made = broadcast(node, step, inputs)
    wanted = [names.get(i, name) for i, name in enumerate(given)]
    if any(isinstance(v, Frames) and v.source not in (None, some.source) for v in inputs):
        raise node.refuse("its scores are of different windows", "give both attentions the same mask")
    made = replace(made, labels=some.labels, source=some.source, clock=some.clock)
    return [replace(made, name=step.emit(node.op, wanted, node.hint, **attributes_of(node))[0])]


def is_square(known: Known, some: Frames) -> bool:
    """Whether it has a value for every frame beside every frame."""
    axes = [(shape[-2:], own[-2:]) for shape, own in zip(known.shapes, some.shapes, strict=True) if len(shape) > 1]
    return bool(axes) and all(a == b for a, b in axes)
