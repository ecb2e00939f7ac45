"""The graphs that keep states where ONNX Runtime computes: arenas `(max_streams, *shape)` in, rows of them stepped, fetched or put.

An arena is bound as a graph's input and as its output at once. ONNX Runtime's ScatterND (CPU and CUDA) copies its input only
where the output lies elsewhere, so it writes the rows that are named and touches no other. ONNX Runtime does not know that
both are one tensor; what must come before a write therefore gives it its indices.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .artifact import Artifact, StateSpec
from .errors import BackendError

SLOTS = "undertow.slots"  # int64 (B,), distinct
_ZERO, _ONE, _INDICES = "undertow.zero", "undertow.one", "undertow.indices"
_OLDEST_OPSET = 12  # Min and Max of int64
_OPSET, _IR_VERSION = 17, 8


def arena(state: StateSpec) -> str:
    """The graph input that is a state's arena."""
    return f"undertow.arena.{state.name}"


def written(state: StateSpec) -> str:
    """The graph output that is the same arena after the write."""
    return f"undertow.written.{state.name}"


def rows(state: StateSpec) -> str:
    """The rows `(B, *shape)` of a state in the graphs that fetch and put."""
    return f"undertow.rows.{state.name}"


def changing(states: Iterable[StateSpec]) -> list[StateSpec]:
    """The states that a step writes: the others are handed on as they are, or hold no element."""
    return [s for s in states if s.next != s.name and 0 not in s.shape]


def step_model(artifact: Artifact) -> onnx.ModelProto:
    """The step graph with slots and arenas for its states: nothing is written before all else is computed.

    Raises BackendError where the graph's operator set is too old to say so.
    """
    spec, model = artifact.spec, onnx.ModelProto()
    opset = max((o.version for o in artifact.model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise BackendError(
            f"{artifact.name}: has operator set {opset}, states on a device need {_OLDEST_OPSET} or later; "
            "convert the model with onnx.version_converter, or run it with backend='auto' or 'numba'"
        )
    model.CopyFrom(artifact.model)
    graph, states = model.graph, changing(spec.states)
    wanted = [t.name for t in spec.outputs]
    computed = [*wanted, *(s.next for s in states)]
    given = [v for v in graph.input if v.name not in {s.name for s in spec.states}]
    results = [v for v in graph.output if v.name in wanted]
    nodes = [helper.make_node("Gather", [arena(s), SLOTS], [s.name]) for s in spec.states]
    nodes += [*_needed(graph.node, computed), *_last([*(s.name for s in spec.states), *computed])]
    nodes += [_scatter(s, s.next) for s in states]
    _replace(graph.input, [*given, _slots(), *(_arena(s, arena(s)) for s in spec.states)])
    _replace(graph.output, [*results, *(_arena(s, written(s)) for s in states)])
    _replace(graph.node, nodes)
    graph.initializer.extend(_numbers())
    return model


def fetch_model(states: Sequence[StateSpec]) -> onnx.ModelProto:
    """Slots and arenas in, their rows out."""
    nodes = [helper.make_node("Gather", [arena(s), SLOTS], [rows(s)]) for s in states]
    return _model(nodes, [_slots(), *(_arena(s, arena(s)) for s in states)], [_rows(s) for s in states])


def put_model(states: Sequence[StateSpec]) -> onnx.ModelProto:
    """Slots, arenas and rows in; the arenas with those rows out."""
    nodes = [*_last([rows(s) for s in states]), *(_scatter(s, rows(s)) for s in states)]
    given = [_slots(), *(_arena(s, arena(s)) for s in states), *(_rows(s) for s in states)]
    return _model(nodes, given, [_arena(s, written(s)) for s in states])


def _needed(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """Without the nodes that no wanted value needs: they would run, and could fail, after a write."""
    names, kept = set(wanted), []
    for node in reversed(nodes):
        if names & set(node.output):
            kept.append(node)
            names.update(_reads(node))
    return kept[::-1]


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs within it do."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from (v.name for v in inner.output)
            for each in inner.node:
                yield from _reads(each)


def _last(before: Sequence[str]) -> list[NodeProto]:
    """Nodes that give the indices (B, 1) of the slots only once all of `before`, each (B, ...), is there; fail where one is not (B, ...).

    Reshapes to sizes that come from all of those: nothing that can be known when the graph is loaded.
    """
    nodes, sizes = [], []
    for i, name in enumerate(dict.fromkeys(before)):
        shape, size = f"undertow.shape.{i}", f"undertow.size.{i}"
        nodes.append(helper.make_node("Shape", [name], [shape]))
        nodes.append(helper.make_node("Gather", [shape, _ZERO], [size]))
        sizes.append(size)
    smallest, largest, column, same = (f"undertow.{n}" for n in ("smallest", "largest", "column", "same"))
    nodes.append(helper.make_node("Min", sizes, [smallest]))
    nodes.append(helper.make_node("Max", sizes, [largest]))
    nodes.append(helper.make_node("Reshape", [SLOTS, smallest], [same]))
    nodes.append(helper.make_node("Concat", [largest, _ONE], [column], axis=0))
    nodes.append(helper.make_node("Reshape", [same, column], [_INDICES]))
    return nodes


def _scatter(state: StateSpec, value: str) -> NodeProto:
    return helper.make_node("ScatterND", [arena(state), _INDICES, value], [written(state)])


def _slots() -> ValueInfoProto:
    return helper.make_tensor_value_info(SLOTS, TensorProto.INT64, ["B"])


def _arena(state: StateSpec, name: str) -> ValueInfoProto:
    return _value(state, name, "max_streams")


def _rows(state: StateSpec) -> ValueInfoProto:
    return _value(state, rows(state), "B")


def _value(state: StateSpec, name: str, first: str) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(state.dtype))
    return helper.make_tensor_value_info(name, kind, [first, *state.shape])


def _numbers() -> list[TensorProto]:
    return [numpy_helper.from_array(np.array([n], np.int64), name) for n, name in ((0, _ZERO), (1, _ONE))]


def _replace(field, values) -> None:  # a repeated field of protobuf
    values = list(values)
    del field[:]
    field.extend(values)


def _model(nodes: list[NodeProto], given: list[ValueInfoProto], results: list[ValueInfoProto]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "states", given, results, _numbers())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
