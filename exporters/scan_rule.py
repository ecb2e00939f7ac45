"""ONNX Scan along time: what it carries becomes states of the step graph, and its body becomes part of the step.

The body is walked like the graph itself, by the same rules: its tensors are frames without a time axis. Where a step has several
frames, the body is there once for each, one after the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from .bodies import captured, reachable
from .clocks import Clock
from .recurrent_rule import LAYER_KEY
from .rule_parts import Rule
from .step_graph import StepGraph
from .timing import aligned, batch_first, delayed, hold, transposed
from .tracked import BATCH, TIME, Final, Frames, Known, Node, Tensor, step_axis, uniform
from .worlds import Worlds

_TORCH = re.compile(
    r"_(scan_combine|while_loop_body)_graph_\d+__subgraph_in$"
)  # what torch's exporter appends to the names of a body's inputs
_NOW = Clock()  # of every tensor in a body: the frame that it is run for


def scan_by(rules: Mapping[str, Rule]) -> Rule:
    """The rule for Scan. rules: for the nodes of its body."""

    def scan(node: Node, step: StepGraph) -> Sequence[Tensor]:
        return _Scan(node, step, rules).stepped()

    return scan


@dataclass(frozen=True, slots=True)
class _Scan:
    """One Scan node on its way into the step graph."""

    node: Node
    step: StepGraph
    rules: Mapping[str, Rule]

    @property
    def body(self) -> onnx.GraphProto:
        return self.node.attribute("body")

    @property
    def carried(self) -> int:
        """How many values go from one run of the body to the next."""
        return len(self.node.proto.input) - int(self.node.attribute("num_scan_inputs"))

    @property
    def layer(self) -> str:
        proto = self.node.proto
        named = next((p.value for p in proto.metadata_props if p.key == LAYER_KEY), proto.name or self.node.hint)
        return named.removeprefix("node_")

    def _named(self, carried: str) -> str:
        short = _TORCH.sub("", carried)
        return short if short.startswith(f"{self.layer}.") else f"{self.layer}.{short}"

    def stepped(self) -> list[Tensor]:
        """The node's outputs: what it carries is known at the end alone."""
        step, n = self.step, self.carried
        self._check_directions()
        names = [self._named(v.name) for v in self.body.input[:n]]
        old = [self._state(i, name) for i, name in enumerate(names)]
        scanned, clock = self._scanned()
        worlds = self._worlds(old, scanned)
        now: list[Tensor] = [x for _, x in old]
        made = []
        for e in range(clock.per_step):
            bound = [*now, *(self._at(x, e) for x in scanned)]
            results = self._run(worlds, dict(zip((v.name for v in self.body.input), bound, strict=True)))
            now = [self._like(i, x, now[i]) for i, x in enumerate(results[:n])]
            made.append(results[n:])
        for (name, before), after in zip(old, now, strict=True):
            assert isinstance(after, Frames)
            new = batch_first(step, after).name
            self._becomes(name, hold(step, clock, name, new, len(before.labels) + int(before.lone)))
        outputs = [self._joined(k, list(blocks), clock) for k, blocks in enumerate(zip(*made, strict=True))]
        return [*([Final((self.layer,))] * n), *outputs]

    def _becomes(self, state: str, new: str) -> None:
        """Says what the state is next; a tensor of its own, for a graph has each output once, and no input among them."""
        taken = {s.next for s in self.step.states}
        if new in taken or not any(new in made.output for made in self.step.nodes):
            copy = self.step.unique(f"{state}_next")
            self.step.nodes.append(helper.make_node("Identity", [new], [copy], copy))
            new = copy
        self.step.set_next(state, new)

    def _check_directions(self) -> None:
        node = self.node
        if any(node.attribute("scan_input_directions") or []) or any(node.attribute("scan_output_directions") or []):
            raise node.refuse(
                "it runs from the last frame to the first: the first frame's output needs the last frame",
                "run it forwards; a bounded look ahead must be a window of frames (a convolution, stacked frames)",
            )

    def _state(self, index: int, name: str) -> tuple[str, Frames]:
        """A value that is carried: the state of the step graph, and the same with its axes as the body has them."""
        node, step, given = self.node, self.step, self.node.inputs[index]
        if not isinstance(given, Known):
            raise node.refuse(
                f"what it carries as '{self.body.input[index].name}' begins with a value that is computed from the frames",
                "begin with zeros or with a learned parameter",
            )
        value, labels = uniform(node, given)
        if TIME in labels or labels.count(BATCH) > 1:
            raise node.refuse(
                f"what it carries as '{self.body.input[index].name}' has shape {given.values[0].shape}, one entry for each frame of the sequence",
                "carry a state of fixed size, and give what is computed for a frame as a scan output",
            )
        at = labels.index(BATCH) if BATCH in labels else -1
        order = list(range(len(labels))) if at < 0 else [at, *(i for i in range(len(labels)) if i != at)]
        first = value if at < 0 else np.moveaxis(value, at, 0)[0]
        state = step.state(name, first)
        turned = Frames(
            state,
            tuple(labels[i] for i in order),
            tuple(tuple(s[i] for i in order) for s in given.shapes),
            _NOW,
            value.dtype.name,
            lone=at < 0,
        )
        return state, transposed(step, turned, [order.index(i) for i in range(len(order))], f"{state}.turned")

    def _scanned(self) -> tuple[list[tuple[Tensor, int]], Clock]:
        """What the body gets a frame of, with the axis of its frames: all of one time."""
        node, n = self.node, self.carried
        axes = node.attribute("scan_input_axes") or [0] * (len(node.proto.input) - n)
        found: list[tuple[Tensor, int]] = []
        for i, axis in enumerate(axes):
            x = node.inputs[n + i]
            assert x is not None
            if isinstance(x, Frames):
                axis %= len(x.labels)
                if x.labels[axis] != TIME:
                    what = "the batch" if x.labels[axis] == BATCH else "features or the batch and time in one"
                    raise node.refuse(
                        f"it runs along an axis that is {what}, not time", "scan over the time axis alone"
                    )
                x = aligned(self.step, x)
            elif isinstance(x, Known):
                axis %= x.values[0].ndim
            found.append((x, axis))
        frames = [x for x, _ in found if isinstance(x, Frames)]
        if not frames:
            raise node.refuse("nothing that it scans is computed from the frames", "scan the frames themselves")
        clock = frames[0].clock
        if any(not x.clock.fits(clock, self.step.frames_per_step) for x in frames):
            raise node.refuse("what it scans has different numbers of frames", "cut or resample them alike first")
        late = max(x.clock.delay for x in frames)
        found = [(delayed(self.step, x, late) if isinstance(x, Frames) else x, axis) for x, axis in found]
        return found, replace(clock, delay=late)

    def _at(self, scanned: tuple[Tensor, int], e: int) -> Tensor:
        """The block's frame `e`, without the time axis."""
        x, axis = scanned
        if isinstance(x, Known):
            if any((v != v.take([0], axis)).any() for v in x.values):
                raise self.node.refuse(
                    f"it scans '{x.name}', which depends on the position of the frame",
                    "count frames in a state that is carried: a number that grows by one",
                )
            return Known(x.name, tuple(v.take(0, axis) for v in x.values))
        assert isinstance(x, Frames)
        labels = x.labels[:axis] + x.labels[axis + 1 :]
        name = x.name
        if x.clock.per_step > 1:
            at = self.step.constant(np.array(e, np.int64), "frame")
            name = self.step.emit("Gather", [name, at], f"{x.name}.{e}", axis=step_axis(x, axis, full=True))[0]
        return replace(x, name=name, labels=labels, shapes=_without(x.shapes, axis), clock=_NOW, warm=None)

    def _worlds(self, old: list[tuple[str, Frames]], scanned: list[tuple[Tensor, int]]) -> Worlds:
        """The body at the sizes that the graph around it was run at. What depends on frames is zeros there."""
        node = self.node
        known = self._captured()
        zeros = [x for _, x in old] + [
            replace(x, shapes=_without(x.shapes, axis)) if isinstance(x, Frames) else self._at((x, axis), 0)
            for x, axis in scanned
        ]
        given = {v.name: x for v, x in zip(self.body.input, zeros, strict=True)} | known
        places = {size: i for i, size in reversed(list(enumerate(node.sizes)))}

        def feed(batch: int, length: int) -> dict[str, np.ndarray]:
            world = places[batch, length]
            return {
                name: x.values[world] if isinstance(x, Known) else np.zeros(x.shapes[world], x.dtype)
                for name, x in given.items()
                if isinstance(x, (Known, Frames))
            }

        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
            for name, array in feed(*node.sizes[0]).items()
        ]
        nodes = reachable(self.body.node, [o.name for o in self.body.output])
        graph = helper.make_graph(nodes, self.body.name or "body", inputs, [], list(self.body.initializer))
        model = helper.make_model(graph, opset_imports=self.step.opsets, ir_version=self.step.ir_version)
        (_, short), _, (_, long) = node.sizes
        free = {name for name, x in given.items() if isinstance(x, Known)}
        return Worlds(model, feed, ((short, long),), free)

    def _captured(self) -> dict[str, Known]:
        """The constants of the graph around it that the body reads."""
        count = len(self.node.proto.input)
        found = {}
        for name, x in zip(captured(self.node.proto), self.node.inputs[count:], strict=True):
            if not isinstance(x, Known):
                raise self.node.refuse(
                    f"its body reads '{name}', which has all frames of the sequence",
                    "scan it, so that the body gets one frame of it at a time",
                )
            found[name] = x
        return found

    def _run(self, worlds: Worlds, bound: dict[str, Tensor]) -> list[Tensor]:
        """The body's outputs, its nodes written into the step graph. bound: what it is given, by the names of its inputs."""
        found: dict[str, Tensor] = {name: Known(name, values) for name, values in worlds.known.items()}
        found |= {**self._captured(), **bound}
        outputs = [o.name for o in self.body.output]
        for proto in reachable(self.body.node, outputs, worlds.known):
            inputs = tuple(found[name] if name else None for name in [*proto.input, *captured(proto)])
            inner = Node(proto, inputs, tuple(worlds.shapes.get(name, ()) for name in proto.output), self.node.sizes)
            for name, value in zip(proto.output, self._rule(inner)(inner, self.step), strict=False):
                typed = isinstance(value, Frames) and name
                found[name] = replace(value, dtype=worlds.dtypes[name]) if typed else value
        return [found[name] for name in outputs]

    def _rule(self, inner: Node) -> Callable[[Node, StepGraph], Sequence[Tensor]]:
        if inner.op not in self.rules or inner.proto.domain not in ("", "ai.onnx"):
            raise inner.refuse(
                f"in the body of '{self.layer}': this version has no rule for the operator {inner.op} on frames",
                "write it with other operations",
            )
        return self.rules[inner.op]

    def _like(self, index: int, after: Tensor, before: Tensor) -> Tensor:
        """What is carried on, which must be laid out as it was."""
        assert isinstance(before, Frames)
        if isinstance(after, Known):
            after = self._spread(after, before)
        if not isinstance(after, Frames) or (after.labels, after.lone) != (before.labels, before.lone):
            raise self.node.refuse(
                f"what it carries as '{self.body.input[index].name}' has its batch axis elsewhere after a frame, or none",
                "give it the same axes before and after",
            )
        return after

    def _spread(self, constant: Known, like: Frames) -> Frames:
        """A constant as a tensor that depends on the stream, which every state is."""
        zero = self.step.constant(np.zeros((), like.dtype), "zero")
        nothing = self.step.emit("Mul", [like.name, zero], f"{constant.name}.nothing")[0]
        value, _ = uniform(self.node, constant)
        given = self.step.constant(value[None] if like.lone else value, constant.name)
        return replace(like, name=self.step.emit("Add", [nothing, given], f"{constant.name}.rows")[0])

    def _joined(self, k: int, blocks: list[Tensor], clock: Clock) -> Tensor:
        """Scan output `k` of the block's frames."""
        step, shapes = self.step, self.node.shapes[self.carried + k]
        axes = self.node.attribute("scan_output_axes") or [0] * (k + 1)
        first = blocks[0]
        if isinstance(first, Known):
            at = axes[k] % (first.values[0].ndim + 1)
            pairs = zip(first.values, shapes, strict=True)
            return Known(first.name, tuple(np.broadcast_to(np.expand_dims(v, at), s) for v, s in pairs))
        assert isinstance(first, Frames)
        axis = axes[k] % (len(first.labels) + 1)
        made = replace(first, labels=(*first.labels[:axis], TIME, *first.labels[axis:]), shapes=shapes, clock=clock)
        if clock.per_step == 1:
            return made
        at = step_axis(made, axis, full=True)
        parts = [
            step.emit("Unsqueeze", [x.name, step.ints(at)], f"{x.name}.frame")[0]
            for x in blocks
            if isinstance(x, Frames)
        ]
        return replace(made, name=step.emit("Concat", parts, f"{self.node.hint}.frames", axis=at)[0])


def _without(shapes: tuple[tuple[int, ...], ...], axis: int) -> tuple[tuple[int, ...], ...]:
    return tuple(s[:axis] + s[axis + 1 :] for s in shapes)
