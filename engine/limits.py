"""Inputs that index a constant table: checked before a step, since a step reads memory by them."""

from .artifact import Artifact

_VIEWS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Cast")


def index_limits(artifact: Artifact) -> dict[str, int]:
    """For each input that is, reshaped or not, the index of a Gather from a constant: how many entries that has."""
    sizes = {t.name: list(t.dims) for t in artifact.model.graph.initializer}
    origin, limits = {t.name: t.name for t in artifact.spec.inputs}, {}
    for node in artifact.model.graph.node:
        if node.op_type in _VIEWS and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type != "Gather" or node.input[1] not in origin or node.input[0] not in sizes:
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        name, entries = origin[node.input[1]], sizes[node.input[0]][axis]
        limits[name] = min(entries, limits.get(name, entries))
    return limits
