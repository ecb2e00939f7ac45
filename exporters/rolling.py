"""Loops over time that were written in Python: torch unrolls them for one length, here they become one ONNX Scan of any length.

The module is exported at two lengths. In each graph the unrolled steps are rolled up (`rolled_loop`), loop after loop; then both graphs
must be the same but for numbers that follow the length, which are computed from it. What comes out is run beside the module.
"""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from ..engine.errors import ExportError
from .any_length import of_any_length
from .bodies import name_apart
from .calling import Call
from .rolled_loop import RolledLoop, State
from .unrolled import LATER, STEADY, Stack, Unrolled, unrolled
from .values import Values
from .worlds import plain_session

LENGTHS = (7, 8)  # of the two exports
CHECKED = (1, 2, 5, 13)
_MOST_LOOPS = 64


def rolled(first: onnx.ModelProto, second: onnx.ModelProto, call: Call) -> onnx.ModelProto | None:
    """The graph for any length, of exports at LENGTHS; None where they hold no loop over time. Raises ExportError where that is no step."""
    shorter, longer = (_without_loops(m, n) for m, n in zip((first, second), LENGTHS, strict=True))
    if shorter is None or longer is None:
        return None
    model = of_any_length(shorter, longer, LENGTHS, (call.input_names[0], call.time_axis))
    name_apart(model.graph)
    _check(model, call)
    return model


def _without_loops(model: onnx.ModelProto, length: int) -> onnx.ModelProto | None:
    count = 0
    while count < _MOST_LOOPS:
        values = Values.read(model)
        found = unrolled(values, length)
        if not found.stacks:
            break
        count += 1
        model = _Rolling(model, values, found, length, f"loop{count}" if count > 1 else "loop").rolled()
    return model if count else None


class _Rolling:
    """One loop of the graph, and the graph around it."""

    def __init__(self, model: onnx.ModelProto, values: Values, found: Unrolled, length: int, label: str):
        self.model, self.values, self.found, self.label = model, values, found, label
        self.loop = RolledLoop(values, found, length, label)
        self.length = length

    def rolled(self) -> onnx.ModelProto:
        """The graph with a Scan in the place of the loop."""
        values, loop, graph = self.values, self.loop, self.model.graph
        results = [loop.value(s.frames) for s in self.found.stacks]
        loop.settle()
        finals = {v: state for v in self._finals() if (state := loop.last(v)) is not None}
        body, carried = loop.body(results)
        given: dict[int, str] = {}
        begin = [(s, s.family[0] if s.family and self._known(s.family[0]) else None) for s in carried]
        before = [v for _, v in begin if v is not None] + [v for v, _ in loop.scanned] + sorted(loop.captured)
        nodes, constants = values.written(before, given)
        starts = []
        for s, v in begin:
            starts.append(given[v] if v is not None else self._blank(s, nodes, constants))
        ends = [f"{s.name}.last" for s in carried]
        stacked = [f"{self.label}.result{i}" for i in range(len(results))]
        scan = helper.make_node(
            "Scan",
            [*starts, *(given[v] for v, _ in loop.scanned)],
            [*ends, *stacked],
            self.label,
            body=body,
            num_scan_inputs=len(loop.scanned),
            scan_input_axes=[axis for _, axis in loop.scanned],
        )
        nodes.append(scan)
        for name, stack in zip(stacked, self.found.stacks, strict=True):
            given[stack.of] = self._unstacked(name, stack, nodes, constants)
        given |= {v: ends[carried.index(state)] for v, state in finals.items()}
        wanted = [values.of[o.name] for o in graph.output]
        after, more = values.written(wanted, given)
        self._check_rest(after)
        nodes += after
        for o, v in zip(graph.output, wanted, strict=True):
            if given[v] != o.name:
                nodes.append(helper.make_node("Identity", [given[v]], [o.name], o.name))
        made = onnx.ModelProto()
        made.CopyFrom(self.model)
        del made.graph.node[:], made.graph.initializer[:]
        made.graph.node.extend(nodes)
        made.graph.initializer.extend({t.name: t for t in [*constants, *more]}.values())
        return made

    def _known(self, v: int | None) -> bool:
        return v is not None and self.found.time[v] is None

    def _finals(self) -> list[int]:
        """Values of the last step that the graph after the loop reads."""
        time, values = self.found.time, self.values
        stacked = {s.of for s in self.found.stacks}
        ends = {values.of[o.name] for o in self.model.graph.output}
        read = {i for v, m in enumerate(values.made) if time[v] == LATER and v not in stacked for i in m.inputs}
        found: list[int] = []
        stack = [v for v in sorted(ends | read) if v != Values.NOTHING and time[v] not in (None, LATER)]
        while stack:
            v = stack.pop()
            if self.loop.last(v) is not None:
                found.append(v)
            else:
                stack += [i for i in values.made[v].inputs if i != Values.NOTHING and time[i] not in (None, LATER)]
        return list(dict.fromkeys(found))

    def _check_rest(self, after: list[onnx.NodeProto]) -> None:
        """No step of the loop may be left outside of it."""
        for node in after:
            v = self.values.of.get(next(o for o in node.output if o))
            time = None if v is None else self.found.time[v]
            if time is not None and time != LATER and time < self.length - 1:
                raise ExportError(
                    f"a Python loop over time cannot become a step: what frame {time} alone gives is used after the loop; use the result of every frame"
                )

    def _blank(self, s: State, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> str:
        """Zeros in the shape of a state that no step reads before it is written, and of the count of frames."""
        name = f"{s.name if s.family else f'{self.label}.count'}.begin"
        if not s.family:
            constants.append(numpy_helper.from_array(np.array(0, np.int64), name))
            return name
        v = next(v for v in s.family[STEADY:] if v is not None)
        shape = self.values.shape[v]
        if shape is None:
            raise ExportError(
                f"a Python loop over time cannot become a step: the shape of '{self.values.name[v]}' is not known"
            )
        value = next(i for i in self.model.graph.input)
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]
        batch = dims.index(0)
        sizes = []
        nodes.append(
            helper.make_node("Shape", [value.name], [f"{name}.batch"], f"{name}.batch", start=batch, end=batch + 1)
        )
        for i, size in enumerate(shape):
            sizes.append(f"{name}.batch" if size is None else f"{name}.{i}")
            if size is not None:
                constants.append(numpy_helper.from_array(np.array([size], np.int64), f"{name}.{i}"))
        nodes.append(helper.make_node("Concat", sizes, [f"{name}.shape"], f"{name}.shape", axis=0))
        kind = self._kind(v)
        zero = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(kind)), "value")
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}.shape"], [name], name, value=zero))
        return name

    def _kind(self, v: int) -> int:
        infos = {i.name: i.type.tensor_type.elem_type for i in [*self.model.graph.value_info, *self.model.graph.output]}
        return infos.get(self.values.name[v], TensorProto.FLOAT)

    def _unstacked(
        self, name: str, stack: Stack, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
    ) -> str:
        """The scan output (T, ...) as the tensor that the graph had: frames along its axis."""
        shape = self.values.shape[stack.frames[0]]
        if shape is None:
            raise ExportError(f"a Python loop over time cannot become a step: the shape of '{name}' is not known")
        rank, axis, out = len(shape), stack.axis, self.values.name[stack.of]
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
        turned = out if stack.extended else f"{name}.turned"
        nodes.append(helper.make_node("Transpose", [name], [turned], turned, perm=order))
        if stack.extended:
            return turned
        if any(size is None for size in shape[axis + 1 :]):
            raise ExportError(
                "a Python loop over time cannot become a step: it joins frames along an axis before the batch; use torch.stack"
            )
        target = [0] * axis + [-1] + [size or 0 for size in shape[axis + 1 :]]
        constants.append(numpy_helper.from_array(np.array(target, np.int64), f"{name}.shape"))
        nodes.append(helper.make_node("Reshape", [turned, f"{name}.shape"], [out], out))
        return out


def _check(model: onnx.ModelProto, call: Call) -> None:
    """Raises ExportError where the graph does not give what the module gives, at lengths that it was not made from."""
    session, checked = plain_session(model), 0
    generator = torch.Generator().manual_seed(0)
    for length in CHECKED:
        tensors = [_drawn(t, generator) for t in call.sized(3, length)]
        try:
            expected = call(*tensors)
        except Exception:  # the module's own: a length that it does not take
            continue
        checked += 1
        feed = {n: t.detach().cpu().numpy() for n, t in zip(call.input_names, tensors, strict=True)}
        for name, whole, found in zip(call.output_names, expected, _run(session, feed), strict=True):
            right = whole.detach().cpu().numpy()
            if found.shape != right.shape or not np.allclose(found, right, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise ExportError(
                    f"a Python loop over time cannot become a step: at {length} frames output '{name}' is not what the module gives; "
                    "do the same in every step"
                )
    if not checked:
        raise ExportError(f"the module takes none of the lengths {CHECKED}, so its loop over time cannot be checked")


def _run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    wanted = {i.name for i in session.get_inputs()}
    try:
        return [np.asarray(a) for a in session.run(None, {n: a for n, a in feed.items() if n in wanted})]
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        shapes = {n: a.shape for n, a in feed.items()}
        raise ExportError(
            f"a Python loop over time cannot become a step: what it became fails on inputs of shapes {shapes} ({error})"
        ) from error


def _drawn(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other values than the example's, where any do."""
    if not like.is_floating_point():
        return like
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
