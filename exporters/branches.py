"""Choices that are made before any frame comes: an If whose condition is a constant becomes the branch that it takes."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from .joining import rename
from .worlds import value_free

Known = Mapping[str, np.ndarray]


def choose_branches(model: onnx.ModelProto, known: Callable[[onnx.ModelProto, list[str]], Known]) -> onnx.ModelProto:
    """The model without those Ifs. known: the values of tensors that neither frames, states nor the batch size decide."""
    while True:
        free = value_free(model.graph)
        conditions = [n.input[0] for n in model.graph.node if n.op_type == "If" and n.input[0] in free]
        values = known(model, conditions) if conditions else {}
        if not values:
            return model
        model = _chosen(model, {name: bool(np.asarray(value).reshape(-1)[0]) for name, value in values.items()})


def _chosen(model: onnx.ModelProto, conditions: Mapping[str, bool]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    taken = {name for node in graph.node for name in node.output} | {t.name for t in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in conditions:
            nodes.extend(_branch(node, conditions[node.input[0]], graph, taken))
        else:
            nodes.append(node)
    ordered = [_copy(n) for n in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    return result


def _branch(node: onnx.NodeProto, condition: bool, graph: onnx.GraphProto, taken: set[str]) -> list[onnx.NodeProto]:
    """The nodes of the branch, then one for each of the If's outputs. Siblings may share names, so those that are taken change."""
    wanted = "then_branch" if condition else "else_branch"
    body = next(_copy_graph(a.g) for a in node.attribute if a.name == wanted)
    names: dict[str, str] = {}
    for name in [*(o for n in body.node for o in n.output if o), *(t.name for t in body.initializer)]:
        fresh = name
        while fresh in taken:
            fresh += "_"
        taken.add(fresh)
        names[name] = fresh
    rename(body, names)
    graph.initializer.extend(body.initializer)
    results = [v.name for v in body.output]
    copies = [helper.make_node("Identity", [a], [b]) for a, b in zip(results, node.output, strict=True) if b]
    return [*body.node, *copies]


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _copy_graph(graph: onnx.GraphProto) -> onnx.GraphProto:
    copied = onnx.GraphProto()
    copied.CopyFrom(graph)
    return copied
