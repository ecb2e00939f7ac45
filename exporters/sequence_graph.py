"""What `sequence_export` does to a whole-sequence graph: its boundary, the lengths of its sequences, whether those are enough."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..engine.artifact import TensorSpec
from ..engine.errors import ExportError
from .step_graph import dtype_name
from .step_pass import to_step
from .worlds import Feed, Worlds

RECURRENT = ("LSTM", "GRU", "RNN")
Place = tuple[str, int, int | None]  # a tensor, and its axes of batch and time; without time it has one row a stream


def framewise(
    model: onnx.ModelProto,
    worlds: Worlds,
    feed: Callable[[int, int], Feed],
    time_axis: int,
    batch_axis: int,
    outputs: Sequence[str],
) -> bool:
    """Whether time is mixed in recurrent layers alone: then, told the lengths, they make of padded sequences what they make of each alone.

    The step pass is the judge: with a forward layer in place of every recurrent one, the graph has a step of one frame,
    without delay, whose states are those layers' alone. An output that is the same in every row, made of what layers end with,
    needs their inputs to be so.
    """
    plain, states = _with_stand_ins(model, worlds)
    if plain is None:
        return False
    held = {name: made_of_ends(model, worlds, name) for name in outputs}
    needed = {x for ends in held.values() for x in ends or ()} - {v.name for v in model.graph.input}
    wanted = [o.name for o in plain.graph.output if o.name in outputs and held[o.name] is None]
    outputs = list(dict.fromkeys([*wanted, *sorted(needed)]))
    if not outputs:
        return True
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(worlds.dtypes[n])) for n in outputs]
    del plain.graph.output[:]
    plain.graph.output.extend(helper.make_tensor_value_info(n, k, None) for n, k in zip(outputs, kinds, strict=True))
    try:
        step = to_step(plain, feed, time_axis=time_axis, batch_axis=batch_axis)
    except ExportError:
        return False
    spec = step.spec
    one = spec.frames_per_step == spec.outputs_per_step == 1 and not spec.delay and not spec.lengths
    return one and set(step.sources.values()) == set(outputs) and {s.name for s in spec.states} <= states


def made_of_ends(model: onnx.ModelProto, worlds: Worlds, output: str) -> set[str] | None:
    """The inputs of the recurrent layers whose last states alone an output is made of, repeated for each row; None where it is made of more."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    node = makers.get(output)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.input[0])
    if node is None or node.op_type != "Expand":
        return None
    waiting, seen, found = [node.input[0]], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        node = makers.get(name)
        if name in worlds.known:
            if not np.array_equal(worlds.known[name][0], worlds.known[name][2]):  # of one batch, and of two lengths
                return None
        elif node is None or any(a.HasField("g") for a in node.attribute):
            return None
        elif node.op_type in RECURRENT and name != node.output[0]:
            found.add(node.input[0])
        else:
            waiting += node.input
    return found


def _with_stand_ins(model: onnx.ModelProto, worlds: Worlds) -> tuple[onnx.ModelProto | None, set[str]]:
    """The graph with plain forward layers, and the names of their states; None where a layer begins in a state that is computed from frames."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    states: set[str] = set()
    del made.graph.node[:], made.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type not in RECURRENT:
            made.graph.node.append(node)
            continue
        free = [name for name in node.input[1:] if name]
        if not all(name in worlds.known for name in free) or (len(node.input) > 4 and node.input[4]):
            return None, states
        nodes, weights = _stand_in(node, worlds.shapes[node.input[0]][0][-1])
        made.graph.node.extend(nodes)
        made.graph.initializer.extend(weights)
        states |= {f"{n.name}.h" for n in nodes if n.op_type == "RNN"}
    return made, states


def _stand_in(node: onnx.NodeProto, features: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Forward layers that give tensors of the same names and shapes."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    size, name = attributes["hidden_size"], node.name or node.output[0]
    count = 2 if attributes.get("direction", b"forward") == b"bidirectional" else 1
    weights = [
        numpy_helper.from_array(np.zeros((1, size, k), np.float32), f"{name}.stand_in.{i}")
        for i, k in enumerate((features, size))
    ]
    names = [w.name for w in weights]
    nodes = [
        helper.make_node(
            "RNN", [node.input[0], *names], [f"{name}.y.{i}", f"{name}.h.{i}"], f"{name}.{i}", hidden_size=size
        )
        for i in range(count)
    ]
    for out, letter, axis in zip(node.output, "yhh", (1, 0, 0), strict=False):
        if out:
            nodes.append(
                helper.make_node("Concat", [f"{name}.{letter}.{i}" for i in range(count)], [out], out, axis=axis)
            )
    return nodes, weights


def bounded(
    model: onnx.ModelProto, worlds: Worlds, outputs: Mapping[str, Place], time_axis: int, batch_axis: int
) -> tuple[onnx.ModelProto, tuple[TensorSpec, ...]]:
    """The model with inputs (B, T, *frame) and outputs (B, T', *out) of these names; and the inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, before, after = made.graph, [], []
    taken = {n for node in graph.node for n in (*node.input, *node.output)} | {v.name for v in graph.input}
    inputs, infos = [], []
    for value in graph.input:
        kind, shape = value.type.tensor_type.elem_type, worlds.shapes[value.name][0]
        order = [batch_axis, time_axis] + [i for i in range(len(shape)) if i not in (batch_axis, time_axis)]
        frame = tuple(shape[i] for i in order[2:])
        inputs.append(TensorSpec(value.name, frame, dtype_name(helper.tensor_dtype_to_np_dtype(kind))))
        infos.append(helper.make_tensor_value_info(value.name, kind, ["B", "T", *frame]))
        if order != sorted(order):
            inside = _renamed(graph, value.name, taken)
            back = [order.index(i) for i in range(len(order))]
            before.append(helper.make_node("Transpose", [value.name], [inside], inside, perm=back))
    for name in outputs.keys() & taken - {source for source, _, _ in outputs.values()}:
        _renamed(graph, name, taken)
    results = []
    for name, (source, batch, time) in outputs.items():
        shape, kind = (
            worlds.shapes[source][0],
            next(o for o in graph.output if o.name == source).type.tensor_type.elem_type,
        )
        order = [batch, *([] if time is None else [time])]
        order += [i for i in range(len(shape)) if i not in order]
        rest = [shape[i] for i in order[1 if time is None else 2 :]]
        results.append(helper.make_tensor_value_info(name, kind, ["B", "rows", *rest]))
        if order == sorted(order) and time is not None and name == source:
            continue
        inside = _renamed(graph, source, taken)
        turned = inside if time is not None else f"{inside}.row"
        after.append(helper.make_node("Transpose", [inside], [name if time is not None else turned], name, perm=order))
        if time is None:
            graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{name}.axis"))
            after.append(helper.make_node("Unsqueeze", [turned, f"{name}.axis"], [name], f"{name}.rows"))
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.extend(infos)
    graph.output.extend(results)
    return made, tuple(inputs)


def _renamed(graph: onnx.GraphProto, name: str, taken: set[str]) -> str:
    """Calls a tensor otherwise within the graph, so that its name is free for the boundary."""
    new = f"{name}.whole"
    while new in taken:
        new += "_"
    taken.add(new)
    for node in graph.node:
        _rename(node, name, new)
    return new


def _rename(node: onnx.NodeProto, name: str, new: str) -> None:
    for names in (node.input, node.output):
        names[:] = [new if n == name else n for n in names]
    for inner in (n for a in node.attribute if a.HasField("g") for n in a.g.node):
        _rename(inner, name, new)


def give_lengths(model: onnx.ModelProto) -> str:
    """Adds an input, int64 (B,), that says how long the sequences of every recurrent layer are; its name."""
    graph, name = model.graph, "lengths"
    taken = {v.name for v in (*graph.input, *graph.output)} | {
        n for node in graph.node for n in (*node.input, *node.output)
    }
    while name in taken or f"{name}.int32" in taken:
        name += "_"
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["B"]))
    layers = [node for node in graph.node if node.op_type in RECURRENT]
    for node in layers:
        given = [*node.input, *[""] * (5 - len(node.input))]
        given[4] = f"{name}.int32"
        node.input[:] = given
    if layers:
        cast = helper.make_node("Cast", [name], [f"{name}.int32"], f"{name}.int32", to=TensorProto.INT32)
        nodes = [cast, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    return name
