"""The pass from a whole-sequence ONNX graph to the step graph that does the same frame by frame.

It walks the graph in order and follows the batch and time axes through each node by the node's rule (`rules.RULES`).
What depends on sizes alone is folded (`worlds`). What cannot be stepped exactly is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import ExportError
from .rules import RULES
from .step_graph import StepGraph, dtype_name
from .tracked import BATCH, FEATURE, TIME, Final, Frames, Known, Node, Tensor, step_shape, where
from .worlds import Feed, Worlds, value_free


@dataclass(frozen=True, slots=True)
class Step:
    """A step graph with what it means. time_axes: where each output has its time axis in the whole-sequence graph.

    finals: outputs of the whole-sequence graph that are states after the last frame, and so no outputs of a step.
    """

    model: onnx.ModelProto
    spec: StepSpec
    time_axes: dict[str, int]
    sources: dict[str, str]
    finals: tuple[str, ...]


def to_step(
    model: onnx.ModelProto,
    feed: Callable[[int, int], Feed],
    *,
    time_axis: int,
    batch_axis: int,
    lone_name: str | None = None,
) -> Step:
    """The step graph of `model`, whose inputs all have `batch_axis` and `time_axis`.

    feed: valid inputs for a batch and a length. lone_name: what to call the one output that is left of several.
    """
    graph = model.graph
    nodes = _reachable(graph)
    _check_operators(nodes, value_free(graph))
    worlds = Worlds(model, feed)
    step = StepGraph()
    step.reserve([o.name for o in graph.output] + ([lone_name] if lone_name else []))
    found: dict[str, Tensor] = {name: Known(name, values) for name, values in worlds.known.items()}
    for value in graph.input:
        labels = [FEATURE] * len(value.type.tensor_type.shape.dim)
        labels[batch_axis], labels[time_axis] = BATCH, TIME
        found[value.name] = Frames(step.unique(value.name), tuple(labels), worlds.shapes[value.name])
    for proto in nodes:
        if not all(name in worlds.known for name in proto.output if name):
            inputs = tuple(_read(proto, name, found) if name else None for name in proto.input)
            shapes = tuple(worlds.shapes.get(name, ()) for name in proto.output)
            results = _apply(Node(proto, inputs, shapes), step)
            found.update(zip(proto.output, results, strict=False))
    finals = tuple(o.name for o in graph.output if isinstance(found[o.name], Final))
    outputs = {o.name: _checked_output(o.name, found[o.name]) for o in graph.output if o.name not in finals}
    if not outputs:
        raise ExportError(
            f"every output ({', '.join(finals)}) is a state after the last frame, known only at the end; return the layer's output of every frame"
        )
    alone = lone_name is not None and len(outputs) == 1 < len(graph.output)
    named = {lone_name if alone and lone_name else n: (n, value) for n, value in outputs.items()}
    inputs = {v.name: value for v in graph.input if isinstance(value := found[v.name], Frames)}
    return replace(_assembled(model, step, inputs, named), finals=finals)


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
    if not final:
        return RULES[node.op](node, step)
    layers = tuple(dict.fromkeys(name for v in final for name in v.layers))
    if node.op in _REARRANGING and not any(isinstance(v, Frames) for v in node.inputs):
        return [Final(layers)] * len(node.proto.output)
    raise node.refuse(
        f"it reads the state of {', '.join(repr(name) for name in layers)} after the last frame, which is known only at the end of a stream",
        "compute from the layer's output of every frame (its last value is that state)",
    )


def _reachable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that some output needs, in order."""
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(n for a in node.attribute if a.HasField("g") for inside in a.g.node for n in inside.input)
            kept.append(node)
    return kept[::-1]


_REMEDIES = {
    "Loop": "a loop over time must be one of torch's recurrent layers",
    "Scan": "a loop over time must be one of torch's recurrent layers",
    "If": "what a stream computes must not depend on the values of its frames; use torch.where",
}


def _check_operators(nodes: list[onnx.NodeProto], free: set[str]) -> None:
    for node in nodes:
        if node.op_type in RULES and node.domain in ("", "ai.onnx"):
            continue
        if not all(name in free for name in node.output if name):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            remedy = _REMEDIES.get(
                node.op_type, "write it with other operations, or leave it out of the exported module"
            )
            raise ExportError(f"{where(node)}: this version has no rule for the operator {name} on frames; {remedy}")


def _checked_output(name: str, value: Tensor) -> Frames:
    if isinstance(value, Known):
        raise ExportError(f"output '{name}' does not depend on the frames; leave it out of what the module returns")
    assert isinstance(value, Frames)
    kept = [label for label in value.labels if label != TIME]
    if TIME not in value.labels or kept[0] != BATCH:
        raise ExportError(
            f"output '{name}' has axes {value.labels} (B batch, T time, BT both in one), expected a batch axis and a time axis of their own, "
            "the batch before all features; reshape or transpose it before it is returned"
        )
    return value


def _assembled(
    model: onnx.ModelProto, step: StepGraph, inputs: dict[str, Frames], outputs: dict[str, tuple[str, Frames]]
) -> Step:
    """The step graph as a model, with its spec. outputs: by their names in the step graph, with their old names."""
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    _name_outputs(step, {name: value.name for name, (_, value) in outputs.items()})
    step.prune(list(outputs))
    given = [(v.name, types[name], step_shape(v)[1:]) for name, v in inputs.items()]
    made = [(name, types[old], step_shape(v)[1:]) for name, (old, v) in outputs.items()]
    states = [(s, helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype))) for s in step.states]
    graph = helper.make_graph(
        step.nodes,
        "step",
        [*_values(given), *_values([(s.name, t, list(s.shape)) for s, t in states])],
        [*_values(made), *_values([(s.next, t, list(s.shape)) for s, t in states])],
        step.initializers(),
    )
    opsets = [o for o in model.opset_import if o.domain in ("", "ai.onnx")]
    result = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version, producer_name="undertow")
    onnx.checker.check_model(result, full_check=True)
    spec = StepSpec(inputs=_specs(given), outputs=_specs(made), states=tuple(step.states))
    return Step(
        result,
        spec,
        {name: v.labels.index(TIME) for name, (_, v) in outputs.items()},
        {n: old for n, (old, _) in outputs.items()},
        (),
    )


def _values(tensors: list[tuple[str, int, list[int]]]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, kind, ["B", *shape]) for name, kind, shape in tensors]


def _specs(tensors: list[tuple[str, int, list[int]]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(n, tuple(shape), dtype_name(helper.tensor_dtype_to_np_dtype(kind))) for n, kind, shape in tensors
    )


def _name_outputs(step: StepGraph, wanted: dict[str, str]) -> None:
    """Calls each output's tensor by the output's name; one that has another use at the boundary is copied."""
    fixed = {s.name for s in step.states} | {s.next for s in step.states}
    made = {name for node in step.nodes for name in node.output}
    for name, tensor in wanted.items():
        if tensor in fixed or tensor not in made:
            step.nodes.append(helper.make_node("Identity", [tensor], [name], name))
            continue
        for node in step.nodes:
            for names in (node.input, node.output):
                names[:] = [name if n == tensor else n for n in names]
            node.name = name if node.name == tensor else node.name
        if tensor in step.matrices:
            step.matrices.add(name)
        fixed.add(name)
        wanted.update({n: name for n, t in wanted.items() if t == tensor and n != name})
