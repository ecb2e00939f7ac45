"""Graphs inside nodes: which tensors of the graph around them they read, and which nodes some output needs."""

from collections.abc import Container, Iterable, Iterator

import onnx

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among the node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> list[str]:
    """Names that the node's graphs read of the graph around it, each once, in the order in which they are read."""
    return list(dict.fromkeys(name for body in bodies(node) for name in _outer(body)))


def _outer(body: onnx.GraphProto) -> Iterator[str]:
    made = {"", *(v.name for v in body.input), *(t.name for t in body.initializer)}
    for node in body.node:
        yield from (name for name in [*node.input, *captured(node)] if name not in made)
        made.update(node.output)
    yield from (o.name for o in body.output if o.name not in made)


def is_random(node: onnx.NodeProto) -> bool:
    """Whether the node, or one inside, gives something else each time."""
    return node.op_type in RANDOM or any(is_random(inner) for body in bodies(node) for inner in body.node)


def reachable(
    nodes: Iterable[onnx.NodeProto], outputs: Iterable[str], known: Container[str] = ()
) -> list[onnx.NodeProto]:
    """The nodes that some output needs, in order; a known value needs nothing, and its node is not among them."""
    needed, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output) and not all(name in known for name in node.output if name):
            needed.update(node.input, captured(node))
            kept.append(node)
    return kept[::-1]


def name_apart(graph: onnx.GraphProto, taken: set[str] | None = None) -> None:
    """Gives nodes that share a name, in graphs inside of others too, names of their own, which ONNX Runtime asks for."""
    taken = set() if taken is None else taken
    for node in graph.node:
        for body in bodies(node):
            name_apart(body, taken)
        name, count = node.name, 1
        while node.name and node.name in taken:
            count += 1
            node.name = f"{name}.{count}"
        taken.add(node.name)
