"""The pass from a whole-sequence ONNX graph to the step graph that does the same frame by frame.

It walks the graph in order and follows the batch and time axes through each node by the node's rule (`rules.RULES`).
What depends on sizes alone is folded (`worlds`). What cannot be stepped exactly is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from ..engine.errors import ExportError
from .bands import Whole
from .bodies import captured, reachable
from .branches import choose_branches
from .clocks import Clock, NeedsMultiple, ends_with_steps
from .loops import loops_as_scans
from .positions import by_position
from .rules import RULES as FRAMEWISE
from .rules import TIMED as WITH_TIME
from .rules import attention_rule
from .rules_attention import is_scores, scores
from .scan_rule import scan_by
from .step_graph import Bounds, StepGraph
from .step_model import Step, assembled
from .timing import delayed, settled, transposed
from .tracked import BATCH, FEATURE, TIME, Final, Frames, Known, Node, Tensor, where
from .worlds import LENGTHS, Feed, NeedsLonger, Worlds, value_free

RULES = {**FRAMEWISE, "Scan": scan_by(FRAMEWISE)}
TIMED = {*WITH_TIME, "Scan"}
MAX_FRAMES_PER_STEP = 2**16
_FEW = 60
NO_BOUNDS = Bounds()


def to_step(
    model: onnx.ModelProto,
    feed: Callable[[int, int], Feed],
    *,
    time_axis: int,
    batch_axis: int,
    frames_per_step: int = 1,
    lone_name: str | None = None,
    bounds: Bounds = NO_BOUNDS,
) -> Step:
    """The step graph of `model`, whose inputs all have `batch_axis` and `time_axis`.

    feed: valid inputs for a batch and a length. frames_per_step: becomes a multiple of it where the model gives fewer outputs than
    it gets frames. lone_name: what to call the one output that is left of several.
    """
    model = loops_as_scans(_without_choices(model, feed), feed)
    _check_operators(_reachable(model.graph, value_free(model.graph)))
    walk, skipped = _Walk(model, Worlds(model, feed), time_axis, batch_axis, lone_name, bounds), 0
    while frames_per_step <= MAX_FRAMES_PER_STEP:
        try:
            return walk.steps_of(frames_per_step)
        except NeedsMultiple as needed:
            frames_per_step *= needed.factor
        except NeedsLonger:
            skipped += 1
            if skipped == len(LENGTHS):
                raise ExportError(
                    f"how many frames the model gives, or which it attends to, cannot be seen from sequences of up to {LENGTHS[-1][1]} frames; "
                    "use shorter windows and strides"
                ) from None
            walk = replace(walk, worlds=Worlds(model, feed, LENGTHS[skipped:]))
    raise ExportError(
        f"a step would take {frames_per_step} frames for the model to give a whole number of outputs, at most {MAX_FRAMES_PER_STEP} are allowed; "
        "use strides that divide each other"
    )


def _without_choices(model: onnx.ModelProto, feed: Callable[[int, int], Feed]) -> onnx.ModelProto:
    """The model in which an If that sizes alone decide, for all sizes alike, is the branch that it takes."""

    def known(graph: onnx.ModelProto, names: list[str]) -> dict[str, np.ndarray]:
        values = {name: array for name, array in Worlds(graph, feed).known.items() if name in names}
        return {name: v[0] for name, v in values.items() if all(np.array_equal(v[0], other) for other in v)}

    return choose_branches(model, known) if any(n.op_type == "If" for n in model.graph.node) else model


@dataclass(frozen=True, slots=True)
class _Walk:
    """Over the nodes in order, as often as frames_per_step turns out to be too small."""

    model: onnx.ModelProto
    worlds: Worlds
    time_axis: int
    batch_axis: int
    lone_name: str | None
    bounds: Bounds

    def steps_of(self, frames_per_step: int, endless: bool = False) -> Step:
        """The step graph with so many frames a step. Raises NeedsMultiple. endless: see `StepGraph`."""
        graph, worlds, lone = self.model.graph, self.worlds, self.lone_name
        step = StepGraph(
            frames_per_step=frames_per_step,
            bounds=self.bounds,
            endless=endless,
            opsets=list(self.model.opset_import),
            ir_version=self.model.ir_version,
        )
        step.reserve([o.name for o in graph.output] + ([lone] if lone else []))
        whole = Whole(self.model, worlds)
        found, given = self._inputs(step)
        for proto in _reachable(graph, set(worlds.known)):
            inputs = tuple(_read(proto, name, found) if name else None for name in [*proto.input, *captured(proto)])
            shapes = tuple(worlds.shapes.get(name, ()) for name in proto.output)
            results = _apply(Node(proto, inputs, shapes, worlds.sizes, whole), step)
            for name, value in zip(proto.output, results, strict=False):
                if isinstance(value, Frames) and name:
                    value = replace(value, dtype=worlds.dtypes[name])
                    _check_length(proto, value, worlds)
                found[name] = value
        finals = tuple(o.name for o in graph.output if isinstance(found[o.name], Final))
        outputs = {o.name: _checked_output(o.name, found[o.name]) for o in graph.output if o.name not in finals}
        if not outputs:
            raise ExportError(
                f"every output ({', '.join(finals)}) is a state after the last frame, known only at the end; return the layer's output of every frame"
            )
        _check_bounds(step)
        outputs = _together(step, outputs)
        if not endless and ends_with_steps(next(iter(outputs.values())).clock, frames_per_step):
            return self.steps_of(frames_per_step, endless=True)
        alone = lone is not None and len(outputs) == 1 < len(graph.output)
        named = {lone if alone and lone else n: (n, value) for n, value in outputs.items()}
        return replace(
            assembled(self.model, step, given, named),
            finals=finals,
            windows=dict(step.windows),
            lookahead=step.bounds.lookahead,
        )

    def _inputs(self, step: StepGraph) -> tuple[dict[str, Tensor], dict[str, Frames]]:
        """What is known before the first node, and the graph inputs of the step, by the names of those of the whole sequence."""
        inputs: dict[str, Frames] = {}
        found: dict[str, Tensor] = {name: Known(name, values) for name, values in self.worlds.known.items()}
        clock = Clock(step.frames_per_step)
        for value in self.model.graph.input:
            kind = value.type.tensor_type
            labels = [FEATURE] * len(kind.shape.dim)
            labels[self.batch_axis], labels[self.time_axis] = BATCH, TIME
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            given = Frames(step.unique(value.name), tuple(labels), self.worlds.shapes[value.name], clock, dtype)
            inputs[value.name], found[value.name] = given, _as_whole(step, given, self.time_axis)
        return found, inputs


def _as_whole(step: StepGraph, given: Frames, time_axis: int) -> Frames:
    """The graph input (B, K, *frame), with its axes as the whole-sequence graph has them; `given` keeps the input's name."""
    if given.clock.per_step == 1:
        return given
    order = [given.labels.index(BATCH), time_axis]
    order += [i for i in range(len(given.labels)) if i not in order]
    labels = tuple(given.labels[i] for i in order)
    shapes = tuple(tuple(s[i] for i in order) for s in given.shapes)
    back = [order.index(i) for i in range(len(order))]
    return transposed(step, replace(given, labels=labels, shapes=shapes), back, f"{given.name}.turned")


def _check_bounds(step: StepGraph) -> None:
    """Raises ExportError where something was asked for that no layer needs."""
    bounds = step.bounds
    for option, value, why in (
        ("window", bounds.window, "every attention has a window of its own, or there is none"),
        ("lookahead", bounds.lookahead or None, "no layer runs backwards"),
        ("reduce", "running" if bounds.running else None, "nothing is reduced over time"),
    ):
        if value is not None and option not in step.used:
            raise ExportError(f"{option} is {value!r}, and changes nothing: {why}; leave it out")


def _together(step: StepGraph, outputs: dict[str, Frames]) -> dict[str, Frames]:
    """The outputs with one clock, whose delay is a whole number of frames."""
    frames = step.frames_per_step
    settled_outputs = {name: settled(step, x) for name, x in outputs.items()}
    first_name, first = next(iter(settled_outputs.items()))
    for name, x in settled_outputs.items():
        if not x.clock.fits(first.clock, frames):
            each = {
                n: f"{v.clock.per_step} a step, {v.clock.length(1000)} of 1000 frames"
                for n, v in ((first_name, first), (name, x))
            }
            raise ExportError(
                f"outputs have different numbers of frames ({each}), and a step gives as many of each; export them apart"
            )
    delay = max(x.clock.delay for x in settled_outputs.values())
    while delay * frames % first.clock.per_step:
        delay += 1
    return {name: delayed(step, x, delay) for name, x in settled_outputs.items()}


def _check_length(node: onnx.NodeProto, value: Frames, worlds: Worlds) -> None:
    """The rule's account of how many elements there are is what the graph has. Raises NeedsLonger where lengths cannot be told apart."""
    if value.time < 0:
        return
    sizes = [shape[value.time] for shape in value.shapes]
    if value.running and set(sizes) == {1}:
        return
    if sizes[0] == sizes[2]:
        raise NeedsLonger
    pad = value.padding
    told = [value.clock.length(t) + (pad.before + pad.after if pad else 0) for _, t in worlds.sizes]
    if told != sizes:
        if worlds.sizes[0][1] < _FEW:  # ONNX Runtime pools fewer frames than a kernel has, and gives something
            raise NeedsLonger
        raise ExportError(
            f"{where(node)}: has {sizes} frames of sequences of {[t for _, t in worlds.sizes]}, and its rule expects {told}; please report this with the model"
        )


def _read(node: onnx.NodeProto, name: str, found: dict[str, Tensor]) -> Tensor:
    """The tensor that the node reads; rules do not give side results such as masks and statistics."""
    if name not in found:
        raise ExportError(
            f"{where(node)}: reads '{name}', a side result that this version does not compute in a step; leave it out"
        )
    return found[name]


_REARRANGING = ("Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def _apply(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """What the node's rule makes of it; a final state may be rearranged on its way out, and nothing else."""
    final = [v for v in node.inputs if isinstance(v, Final)]
    if not final and any(isinstance(v, Frames) and v.source is not None for v in node.inputs):
        return attention_rule(node)(by_position(node, step, _framewise), step)
    if not final and is_scores(node):
        return scores(node, step)
    if not final:
        return RULES[node.op](node, step) if node.op in TIMED else _framewise(node, step)
    layers = tuple(dict.fromkeys(name for v in final for name in v.layers))
    if node.op in _REARRANGING and not any(isinstance(v, Frames) for v in node.inputs):
        return [Final(layers)] * len(node.proto.output)
    raise node.refuse(
        f"it reads the state of {', '.join(repr(name) for name in layers)} after the last frame, which is known only at the end of a stream",
        "compute from the layer's output of every frame (its last value is that state)",
    )


def _framewise(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """A rule that sees frames of one time only: paths of different delay wait for each other in delay lines."""
    frames = [settled(step, v) for v in node.inputs if isinstance(v, Frames)]
    clock = frames[0].clock
    for x in frames[1:]:
        if not x.clock.fits(clock, step.frames_per_step):
            raise node.refuse(
                f"its inputs have different numbers of frames: {clock.per_step} and {x.clock.per_step} a step, "
                f"{clock.length(1000)} and {x.clock.length(1000)} of a sequence of 1000",
                "cut or resample them alike first",
            )
        clock = replace(clock, lengths=clock.shorter(x.clock, step.frames_per_step))
    delay = max(x.clock.delay for x in frames)
    waiting = iter(
        [replace(v := delayed(step, x, delay), clock=replace(v.clock, lengths=clock.lengths)) for x in frames]
    )
    inputs = tuple(next(waiting) if isinstance(v, Frames) else v for v in node.inputs)
    return RULES[node.op](by_position(replace(node, inputs=inputs), step, _framewise), step)


def _reachable(graph: onnx.GraphProto, known: set[str]) -> list[onnx.NodeProto]:
    """The nodes that some output needs, in order; a known value needs nothing, and its node is not looked at."""
    return reachable(graph.node, [o.name for o in graph.output], known)


_REMEDIES = {
    "If": "what a stream computes must not depend on the values of its frames; use torch.where",
}


def _check_operators(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type in RULES and node.domain in ("", "ai.onnx"):
            continue
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        remedy = _REMEDIES.get(node.op_type, "write it with other operations, or leave it out of the exported module")
        raise ExportError(f"{where(node)}: this version has no rule for the operator {name} on frames; {remedy}")


def _checked_output(name: str, value: Tensor) -> Frames:
    if isinstance(value, Known):
        raise ExportError(f"output '{name}' does not depend on the frames; leave it out of what the module returns")
    assert isinstance(value, Frames)
    if value.lone:
        raise ExportError(
            f"output '{name}' depends on the positions of the frames alone; leave it out of what the module returns"
        )
    kept = [label for label in value.labels if label != TIME]
    if (TIME not in value.labels and not value.running) or kept[:1] != [BATCH]:
        raise ExportError(
            f"output '{name}' has axes {value.labels} (B batch, T time, BT both in one), expected a batch axis and a time axis of their own, "
            "the batch before all features; reshape or transpose it before it is returned"
        )
    return value
