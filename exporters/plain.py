"""A graph with everything in it computed once that neither frames, states nor the batch size decide."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ..engine.errors import ExportError
from .bodies import captured, name_apart, reachable
from .branches import choose_branches
from .worlds import plain_session, value_free

Feed = Mapping[str, np.ndarray]


def run(model: onnx.ModelProto, names: Sequence[str], feed: Feed) -> dict[str, np.ndarray]:
    """Those tensors of the graph, whether or not they are its outputs. Raises ExportError."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = plain_session(pruned(watched))  # it would run every node, those too that nothing asks for
    read = {i.name for i in session.get_inputs()}
    try:
        values = session.run(list(names), {k: v for k, v in feed.items() if k in read})
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        shapes = {name: array.shape for name, array in feed.items()}
        raise ExportError(f"the graph does not run on inputs of shapes {shapes}: {error}") from error
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def constant(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Those of the value-free tensors that are the same for every feed, that is for every batch size."""
    names = [name for name in names if name]
    if not names:
        return {}
    first, *others = [run(model, names, feed) for feed in feeds]
    return {
        name: value
        for name, value in first.items()
        if all(value.shape == o[name].shape and (value == o[name]).all() for o in others)
    }


def plain(model: onnx.ModelProto, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """The graph with its constant choices made and its constants folded. feeds: inputs of different batch sizes."""
    model = choose_branches(model, lambda m, names: constant(m, names, feeds))
    free = value_free(model.graph)
    made = [name for node in model.graph.node for name in node.output if name in free]
    values = constant(model, made, feeds)
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    kept = [n for n in model.graph.node if not all(name in values for name in n.output if name)]
    del folded.graph.node[:]
    folded.graph.node.extend(kept)
    folded.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return pruned(folded)


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the nodes, weights and notes on shapes that no output needs; no two nodes have one name."""
    kept = reachable(model.graph.node, [o.name for o in model.graph.output])
    needed = {o.name for o in model.graph.output}.union(*([*node.input, *captured(node)] for node in kept))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(kept)
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    name_apart(result.graph)
    return result
