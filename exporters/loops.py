"""ONNX Loops over time, as Keras, JAX and torch.while_loop write recurrences, as Scans.

The body of such a loop selects frame i of a sequence by the number of the iteration, and gives something for each frame: as a scan
output, or written into a tensor at i. Which numbers those are is seen by running the loop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from ..engine.errors import ExportError
from .bodies import captured, reachable
from .tracked import where
from .worlds import LENGTHS, plain_session, value_free

Feed = Callable[[int, int], Mapping[str, np.ndarray]]
_INDEXED = ("Gather", "Slice", "ScatterElements", "ScatterND")
_BATCH = 3


def loops_as_scans(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """The graph with a Scan in the place of every Loop that depends on frames. Raises ExportError where one is no loop over time."""
    free = value_free(model.graph)
    loops = [n for n in model.graph.node if n.op_type == "Loop" and not free.issuperset(o for o in n.output if o)]
    if not loops:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    read = {o.name for o in model.graph.output} | {i for n in model.graph.node for i in [*n.input, *captured(n)]}
    for node in model.graph.node:
        made.graph.node.extend(_Loop(model, node, free, read, feed).as_scan() if node in loops else [node])
    return made


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that goes from one iteration to the next: in the body `name` and then `new`; `begin` and `final` around it."""

    name: str
    begin: str
    new: str
    final: str


@dataclass(slots=True)
class _Loop:
    """One Loop on its way to a Scan. free: what depends on no frame; read: what the graph around reads."""

    model: onnx.ModelProto
    node: onnx.NodeProto
    free: set[str]
    read: set[str]
    feed: Feed
    body: onnx.GraphProto = field(default_factory=onnx.GraphProto)
    carried: list[Carried] = field(default_factory=list)
    scanned: dict[tuple[str, int], str] = field(default_factory=dict)
    around: list[onnx.NodeProto] = field(default_factory=list)
    seen: "list[_Seen]" = field(default_factory=list)

    def as_scan(self) -> list[onnx.NodeProto]:
        """The Scan, with the nodes that it needs around it."""
        label = self.node.name or self.node.output[0]
        zero = numpy_helper.from_array(np.array(0, np.int64), f"{label}.zero")
        self.around.append(helper.make_node("Constant", [], [zero.name], zero.name, value=zero))
        self.body = _plain(next(a.g for a in self.node.attribute if a.name == "body"))
        n = len(self.node.input) - 2
        ends = [o.name for o in self.body.output]
        names = [v.name for v in self.body.input[2:]]
        self.carried = [
            Carried(*four)
            for four in zip(names, self.node.input[2:], ends[1 : n + 1], self.node.output[:n], strict=True)
        ]
        self._check_end()
        whole = {c.name: c.begin for c in self.carried if c.name == c.new}
        self._watch(whole)
        nodes = [self._current(node, whole) for node in self.body.node]
        if not self.scanned:
            raise self._refuse(
                "its body selects no frame by the number of the iteration", "scan the frames, or use a recurrent layer"
            )
        results = dict(zip(self.node.output[n:], ends[n + 1 :], strict=True))
        kept, after = [], []
        for c in self.carried:
            update = self._written(c, nodes)
            if c.name in whole:
                after += [helper.make_node("Identity", [c.begin], [c.final], c.final)] if c.final in self.read else []
            elif update:
                results[f"{c.final}.frames"] = update[0]
                after += self._placed(c.final, update[1], update[2])
            else:
                kept.append(c)
        scan = self._scan(kept, results, nodes)
        return [*self.around, scan, *after]

    def _check_end(self) -> None:
        ends = self.body.output[0].name
        limits = [i for i in self.node.input[:2] if i and i not in self.free]
        if limits or (ends not in self._counted() and ends not in self.free):
            raise self._refuse("how often it runs depends on the values of frames", "run it once for each frame")

    def _counted(self) -> set[str]:
        """Tensors of the body that depend on the number of the iteration alone."""
        inner = {o for node in self.body.node for o in node.output} | {v.name for v in self.body.input}
        guess = {c.name for c in self.carried if c.begin in self.free}
        while True:
            found = {"", *guess, *(v.name for v in self.body.input[:2]), *(t.name for t in self.body.initializer)}
            for node in self.body.node:
                given = [*node.input, *captured(node)]
                if node.op_type in ("Shape", "Size") or all(
                    g in found or (g not in inner and g in self.free) for g in given
                ):
                    found.update(node.output)
            wrong = {c.name for c in self.carried if c.name in guess and c.new not in found}
            if not wrong:
                return found - {""}
            guess -= wrong

    # -------------------------------------------------------------------------------------------------- by running it

    def _watch(self, whole: dict[str, str]) -> None:
        """Runs the graph at two lengths, and keeps what indices are and which shapes updates have in each iteration."""
        inner = {o for node in self.body.node for o in node.output} | {v.name for v in self.body.input}
        names = {i for node in self.body.node if node.op_type in _INDEXED for i in node.input[1:] if i}
        sources = {whole.get(node.input[0], node.input[0]) for node in self.body.node if node.op_type in _INDEXED}
        begun = {c.begin for c in self.carried}
        watched = _watched(self.model, self.node, sorted(names), sorted({s for s in sources if s not in inner} | begun))
        session = plain_session(watched)
        failed: Exception | None = None
        for pair in LENGTHS[:3]:
            try:
                self.seen = [_shown(session, self.feed(_BATCH, t), self.body.input[0].name) for t in pair]
            except Exception as error:  # onnxruntime's errors share no base class but Exception
                failed = failed or error
            else:
                return
        raise self._refuse(f"it does not run: {failed}", "give it whole sequences of any length")

    def _counts(self, name: str, ahead: int = 0) -> bool:
        """Whether the tensor is the number of the iteration (plus `ahead`), every time."""
        arrays = [s.inner.get(name) for s in self.seen]
        return all(
            a is not None and a.size == len(a) and np.array_equal(a.reshape(-1), np.arange(len(a)) + ahead)
            for a in arrays
        )

    def _fixed(self, name: str) -> int | None:
        """The one number that the tensor is in every iteration."""
        found = {int(v) for s in self.seen for v in s.inner[name].reshape(-1)} if name else {1}
        return found.pop() if len(found) == 1 else None

    def _rank(self, name: str) -> int:
        return self.seen[0].inner[name].ndim - 1

    # ----------------------------------------------------------------------------------------------------- its parts

    def _current(self, node: onnx.NodeProto, whole: dict[str, str]) -> onnx.NodeProto:
        """The node; a selection of a frame by the number of the iteration is the frame itself."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [whole.get(i, i) for i in node.input]
        source = copy.input[0] if copy.input else ""
        outer = source in self.seen[0].outer and source not in self.free
        if not outer or node.op_type not in ("Gather", "Slice") or node.input[1] not in self._counted():
            return copy
        rank = len(self.seen[0].outer[source])
        if node.op_type == "Gather":
            axis: int | None = next((a.i for a in node.attribute if a.name == "axis"), 0)
            right, kept = self._counts(node.input[1]), self._rank(node.input[1]) > 0
        else:
            starts, ends, axes, steps = (*node.input[1:], "", "")[:4]
            axis, kept = self._fixed(axes), True
            right = self._counts(starts) and self._counts(ends, 1) and self._fixed(steps) == 1
        axis = None if axis is None else axis % rank
        if not right or axis is None or any(s.outer[source][axis] != s.trips for s in self.seen):
            raise self._refuse(
                f"iteration i does not read frame i of '{source}', one iteration a frame",
                "read the frames in their order, each once; what comes before must be carried",
            )
        frame = self.scanned.setdefault((source, axis), f"{source}.{axis}.frame")
        if not kept:
            return helper.make_node("Identity", [frame], list(node.output), node.name)
        return helper.make_node("Unsqueeze", [frame, self._ints(axis)], list(node.output), node.name)

    def _written(self, c: Carried, nodes: list[onnx.NodeProto]) -> tuple[str, int, bool] | None:
        """(what is written in each iteration, along which axis, whether it has that axis) of a tensor that is filled frame by frame."""
        maker = next((n for n in nodes if c.new in n.output), None)
        if maker is None or maker.op_type not in ("ScatterElements", "ScatterND") or maker.input[0] != c.name:
            return None
        if any(c.name in n.input for n in nodes if n is not maker and n.op_type not in ("Shape", "Size")):
            return None
        at, update = maker.input[1:3]
        axis, kept = 0, True
        if maker.op_type == "ScatterND":
            right, kept = self._counts(at), self._rank(at) == 2
        else:
            axis = next((a.i for a in maker.attribute if a.name == "axis"), 0) % self._rank(update)
            columns = [s.inner[at].reshape(s.trips, -1) for s in self.seen]
            right = (
                all((a == np.arange(len(a))[:, None]).all() for a in columns)
                and self.seen[0].inner[update].shape[axis + 1] == 1
            )
        if not right or any(s.outer[c.begin][axis] != s.trips for s in self.seen):
            raise self._refuse(
                f"iteration i does not write its result at i of '{c.final}'", "give a result for each frame, in order"
            )
        return update, axis, kept

    def _placed(self, final: str, axis: int, kept: bool) -> list[onnx.NodeProto]:
        """The scan output (T, ...) as the tensor that was filled. kept: with the axis of size 1 that frames are written along."""
        name, nodes = f"{final}.frames", []
        if kept:
            nodes.append(
                helper.make_node("Squeeze", [name, self._ints(axis + 1)], [f"{final}.joined"], f"{final}.joined")
            )
            name = f"{final}.joined"
        rank = len(self.seen[0].outer[next(c.begin for c in self.carried if c.final == final)])
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
        return [*nodes, helper.make_node("Transpose", [name], [final], final, perm=order)]

    def _scan(self, kept: list[Carried], results: dict[str, str], nodes: list[onnx.NodeProto]) -> onnx.NodeProto:
        label = self.node.name or self.node.output[0]
        count, following = self.body.input[0].name, f"{label}.count_next"
        one = numpy_helper.from_array(np.array(1, np.int64), f"{label}.one")
        nodes = [
            helper.make_node("Constant", [], [one.name], one.name, value=one),
            *nodes,
            helper.make_node("Add", [count, one.name], [following], following),
        ]
        counter = Carried(count, f"{label}.zero", following, f"{label}.count")
        kept = self._live([*kept, counter], list(results.values()), nodes)
        outputs, copies = [], []
        for i, name in enumerate([*(c.new for c in kept), *results.values()]):
            outputs.append(f"{label}.out{i}")
            copies.append(helper.make_node("Identity", [name], [outputs[-1]], outputs[-1]))
        inputs = [*(c.name for c in kept), *self.scanned.values()]
        graph = helper.make_graph(
            reachable([*nodes, *copies], outputs),
            "body",
            [onnx.ValueInfoProto(name=v) for v in inputs],
            [onnx.ValueInfoProto(name=o) for o in outputs],
            list(self.body.initializer),
        )
        made = helper.make_node(
            "Scan",
            [*(c.begin for c in kept), *(source for source, _ in self.scanned)],
            [*(c.final for c in kept), *results],
            label,
            body=graph,
            num_scan_inputs=len(self.scanned),
            scan_input_axes=[axis for _, axis in self.scanned],
        )
        made.metadata_props.extend(self.node.metadata_props)
        return made

    def _live(self, carried: list[Carried], results: list[str], nodes: list[onnx.NodeProto]) -> list[Carried]:
        """What is carried, without that which no result and no final value needs: the number of the iteration, mostly."""
        needed = set(results) | {c.new for c in carried if c.final in self.read}
        while True:
            read = {i for n in reachable(nodes, needed) for i in [*n.input, *captured(n)]} | needed
            more = {c.new for c in carried if c.name in read} - needed
            if not more:
                return [c for c in carried if c.new in needed]
            needed |= more

    def _ints(self, value: int) -> str:
        """A constant beside the Scan, which its body may read too."""
        name = f"{self.node.name or self.node.output[0]}.axis{value}"
        if all(name not in node.output for node in self.around):
            array = numpy_helper.from_array(np.array([value], np.int64), name)
            self.around.append(helper.make_node("Constant", [], [name], name, value=array))
        return name

    def _refuse(self, reason: str, remedy: str) -> ExportError:
        return ExportError(f"{where(self.node)}: {reason}; {remedy}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """One run: inner[name] (iterations, ...) of the body's tensors, outer[name] the shapes of those around."""

    inner: dict[str, np.ndarray]
    outer: dict[str, tuple[int, ...]]
    trips: int


_WATCH = "watch."


def _plain(body: onnx.GraphProto) -> onnx.GraphProto:
    """The body without nodes that only give on."""
    made = onnx.GraphProto()
    made.CopyFrom(body)
    del made.node[:]
    same: dict[str, str] = {}
    for node in body.node:
        if node.op_type == "Identity":
            same[node.output[0]] = same.get(node.input[0], node.input[0])
        else:
            made.node.append(node)
            made.node[-1].input[:] = [same.get(i, i) for i in node.input]
    for output in made.output:
        output.name = same.get(output.name, output.name)
    return made


def _watched(model: onnx.ModelProto, loop: onnx.NodeProto, inner: list[str], outer: list[str]) -> onnx.ModelProto:
    """The graph with those tensors of the loop's body, and of those around it, as outputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = next(n for n in made.graph.node if n.op_type == "Loop" and n.output == loop.output)
    body = next(a.g for a in node.attribute if a.name == "body")
    del made.graph.output[:]
    for name in [*inner, body.input[0].name]:
        shown = f"{_WATCH}{name}"
        if shown in node.output:
            continue
        body.node.append(helper.make_node("Identity", [name], [f"{shown}.inside"], f"{shown}.inside"))
        body.output.append(onnx.ValueInfoProto(name=f"{shown}.inside"))
        node.output.append(shown)
        made.graph.output.append(onnx.ValueInfoProto(name=shown))
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outer)
    return made


def _shown(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray], number: str) -> _Seen:
    """number: what the body calls the number of the iteration."""
    wanted = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    arrays = session.run(names, {n: a for n, a in feed.items() if n in wanted})
    found = dict(zip(names, map(np.asarray, arrays), strict=True))
    inner = {n.removeprefix(_WATCH): a for n, a in found.items() if n.startswith(_WATCH)}
    outer = {n: a.shape for n, a in found.items() if not n.startswith(_WATCH)}
    return _Seen(inner, outer, len(inner[number]))
