"""From a plain graph with axes in any order to the step artifact's: batch in front, frames after it, overlap as a state."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..engine.artifact import Stage, StateSpec, StepSpec, TensorSpec
from ..engine.errors import ExportError
from .batching import Batched
from .joining import opset, rename
from .placing import Axes, Place
from .plain import pruned
from .roles import Roles
from .step_graph import dtype_name

LAST = np.iinfo(np.int64).max


@dataclass(slots=True)
class _Border:
    """Nodes before and after the graph's own, and what the graph's own tensors are called between them."""

    opset: int
    taken: set[str]
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def add(
        self, nodes: list[onnx.NodeProto], kind: str, inputs: list[str], wish: str, **attributes: int | list[int]
    ) -> str:
        """A node's output. `axes` is an attribute or, since operator set 13, an input."""
        axes = attributes.pop("axes", None)
        if isinstance(axes, list) and self.opset >= 13:
            inputs = [*inputs, self.ints(axes)]
        elif axes is not None:
            attributes["axes"] = axes
        name = self.fresh(wish)
        node = helper.make_node(kind, inputs, [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        nodes.append(node)
        return name

    def ints(self, values: list[int]) -> str:
        name = self.fresh("sizes")
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def order(place: Place) -> list[int]:
    """The place's axes as the artifact has them: batch, time, then the rest."""
    front = [i for i in (place.batch, place.time) if i is not None]
    return front + [i for i in range(len(place.sizes)) if i not in front]


def bounded(
    graph: Batched, roles: Roles, axes: Axes, outputs: Mapping[str, Place], initial: Mapping[str, np.ndarray]
) -> tuple[onnx.ModelProto, StepSpec]:
    """The step artifact's model and what it means, without a certificate."""
    taken = {n for node in graph.model.graph.node for n in (*node.input, *node.output)} | {
        *graph.inputs,
        *graph.results,
    }
    border = _Border(opset(graph.model), taken)
    frames, states = [], []
    for name in roles.frames:
        tensor, kept = _frame(border, graph.inputs[name], axes)
        frames.append(tensor)
        states += kept
    for name, after in roles.states.items():
        states.append(_state(border, graph, name, after, initial.get(name)))
    made = [_output(border, outputs[name], axes) for name in roles.outputs if name not in roles.states.values()]
    made += [TensorSpec(s.next, s.shape, s.dtype) for s in states if s.next in roles.outputs]
    spec = StepSpec(
        inputs=tuple(frames),
        outputs=tuple(sorted(made, key=lambda t: roles.outputs.index(t.name))),
        states=tuple(states),
        frames_per_step=axes.frames_per_step,
        outputs_per_step=axes.outputs_per_step,
        lengths=_whole_steps(axes.frames_per_step, axes.outputs_per_step),
        batchable=not graph.reason,
    )
    return _assembled(border, graph, spec), spec


def _whole_steps(frames: int, outputs: int) -> tuple[Stage, ...]:
    """A graph that takes so many frames at once says nothing about fewer: what is left at the end of a stream is not stepped."""
    return ((1, 0, frames, 0), (outputs, 0, 1, 0)) if frames > 1 and outputs > 1 else ()


def _frame(border: _Border, place: Place, axes: Axes) -> tuple[TensorSpec, list[StateSpec]]:
    """One frame's shape, and the state that keeps what the next step reads again."""
    extra, nodes, last = axes.overlap.get(place.name, 0), border.before, place.name
    sizes = [place.sizes[i] for i in order(place) if i != place.batch]
    along = 0 if place.time is not None else len(sizes) - 1
    states = []
    if place.time is not None and axes.frames_per_step == 1:
        last = border.add(nodes, "Unsqueeze", [last], f"{place.name}.in_time", axes=[1])
    if extra:
        shape = (*sizes[:along], extra, *sizes[along + 1 :])
        kept, after = border.fresh(f"{place.name}.before"), border.fresh(f"{place.name}.after")
        last = border.add(nodes, "Concat", [kept, last], f"{place.name}.overlapped", axis=along + 1)
        cut = [border.ints(v) for v in ([-extra], [LAST], [along + 1])]
        nodes.append(helper.make_node("Slice", [last, *cut], [after], name=after))
        states.append(StateSpec(kept, after, shape, dtype_name(place.dtype)))
        sizes[along] -= extra
    last = _turned_in(border, place, last)
    if last != place.name:
        border.names[place.name] = last
    frame = tuple(sizes) if place.time is None else tuple(sizes[1:])
    return TensorSpec(place.name, frame, dtype_name(place.dtype)), states


def _state(border: _Border, graph: Batched, name: str, after: str, initial: np.ndarray | None) -> StateSpec:
    place = graph.inputs[name]
    result = _next_place(graph, name, after)
    if result.frame != place.frame or result.dtype != place.dtype or graph.results[after].sizes != result.sizes:
        got = graph.results[after]
        raise ExportError(
            f"state '{name}' has shape {list(place.sizes)} ({place.dtype}), its next value '{after}' {list(got.sizes)} ({got.dtype}); "
            "they must be alike for a step to follow another"
        )
    last = _turned_in(border, place, name)
    if last != name:
        border.names[name] = last
    _turned_out(border, result, squeeze=None)
    first = 0.0 if initial is None else np.ascontiguousarray(initial, np.dtype(place.dtype).newbyteorder("<")).tobytes()
    return StateSpec(name, after, place.frame, dtype_name(place.dtype), first)


def _next_place(graph: Batched, name: str, after: str) -> Place:
    """Where a state's next value has its batch: a graph of one stream leaves open what is a batch of one, so as the state has it."""
    return replace(graph.inputs[name], name=after) if graph.reason else graph.results[after]


def _output(border: _Border, place: Place, axes: Axes) -> TensorSpec:
    _turned_out(border, place, squeeze=place.time if axes.outputs_per_step == 1 else None)
    return TensorSpec(place.name, place.frame, dtype_name(place.dtype))


def _turned_in(border: _Border, place: Place, last: str) -> str:
    """From batch, time, rest to the order that the graph has."""
    ordered = order(place)
    if place.batch is None:
        last = border.add(border.before, "Squeeze", [last], f"{place.name}.alone", axes=[0])
    if ordered != sorted(ordered):
        perm = [ordered.index(i) for i in range(len(ordered))]
        last = border.add(border.before, "Transpose", [last], f"{place.name}.turned", perm=perm)
    return last


def _turned_out(border: _Border, place: Place, squeeze: int | None) -> None:
    """From the order that the graph has to batch, time, rest."""
    ordered, nodes = order(place), border.after
    inner = last = border.fresh(f"{place.name}.within")
    if ordered != sorted(ordered):
        last = border.add(nodes, "Transpose", [last], f"{place.name}.turned", perm=ordered)
    if place.batch is None:
        last = border.add(nodes, "Unsqueeze", [last], f"{place.name}.alone", axes=[0])
    if squeeze is not None:
        last = border.add(nodes, "Squeeze", [last], f"{place.name}.now", axes=[1])
    if last != inner:
        nodes[-1].output[0] = place.name
        border.names[place.name] = inner


def _assembled(border: _Border, graph: Batched, spec: StepSpec) -> onnx.ModelProto:
    body = onnx.ModelProto()
    body.CopyFrom(graph.model)
    rename(body.graph, border.names)
    batch = "B" if spec.batchable else 1
    k, m = spec.frames_per_step, spec.outputs_per_step
    given = [_value(t, batch, k) for t in spec.inputs] + [_value(s, batch) for s in spec.states]
    made = [_value(t, batch, m) for t in spec.outputs]
    made += [
        _value(TensorSpec(s.next, s.shape, s.dtype), batch)
        for s in spec.states
        if s.next not in {t.name for t in spec.outputs}
    ]
    nodes = [*border.before, *body.graph.node, *border.after]
    built = helper.make_graph(nodes, "step", given, made, [*body.graph.initializer, *border.weights])
    model = helper.make_model(
        built, opset_imports=list(body.opset_import), ir_version=body.ir_version, producer_name="undertow"
    )
    model = pruned(model)
    onnx.checker.check_model(model)
    return model


def _value(tensor: TensorSpec | StateSpec, batch: str | int, count: int = 1) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, kind, [batch, *([count] if count > 1 else []), *tensor.shape])


def output_places(graph: Batched, roles: Roles, axes: Axes) -> dict[str, Place]:
    """Where each output of a step has its batch and time. Raises ExportError where it has no M outputs."""
    fed_back = {after: name for name, after in roles.states.items()}
    found = {}
    for name in roles.outputs:
        place = graph.results[name]
        if name in fed_back:
            found[name] = _next_place(graph, fed_back[name], name)
            continue
        time = axes.time
        if axes.outputs_per_step > 1:
            time = len(place.sizes) - 1 if time is None else time
            if time >= len(place.sizes) or place.sizes[time] != axes.outputs_per_step:
                raise ExportError(
                    f"output '{name}' has shape {list(place.sizes)}, and outputs_per_step={axes.outputs_per_step} are expected at axis {time}; "
                    "see outputs_per_step and time_axis"
                )
        elif time is not None and (time >= len(place.sizes) or place.sizes[time] != 1 or time == place.batch):
            time = None
        found[name] = replace(place, time=time)
    return found
