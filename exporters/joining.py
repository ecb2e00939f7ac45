"""Step graphs in a chain as one graph: outputs of earlier ones wired to inputs of later ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.compose
import onnx.inliner
from onnx import helper, version_converter

from ..engine.artifact import load_model
from ..engine.errors import ExportError

OLDEST_OPSET = 13


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph: dims are sizes, or names of sizes that are free ("" where it has none)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    @property
    def text(self) -> str:
        return f"'{self.name}' {self.dtype} {[d or '?' for d in self.dims]}"


@dataclass(frozen=True, slots=True)
class Part:
    """One of the graphs, with the names that it has in the chain."""

    path: Path
    model: onnx.ModelProto

    @property
    def inputs(self) -> dict[str, Port]:
        return {v.name: _port(v) for v in self.model.graph.input}

    @property
    def outputs(self) -> dict[str, Port]:
        return {v.name: _port(v) for v in self.model.graph.output}


def read_parts(paths: Sequence[Path]) -> tuple[Part, ...]:
    """The graphs, without initializers among their inputs, without functions. A name that an earlier graph has is `stem.name` in a later."""
    parts: list[Part] = []
    taken: set[str] = set()
    for path in paths:
        model = tidy(load_model(path))
        names = _names(model)
        if taken & names:
            prefix = f"{path.stem}."
            if any(f"{prefix}{name}" in taken for name in names):
                raise ExportError(f"{path}: a graph of that file name is in the chain already; copy it to another name")
            model = onnx.compose.add_prefix(model, prefix)
            names = _names(model)
        taken |= names
        parts.append(Part(path, model))
    return tuple(parts)


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions inlined, and without those inputs that have a value."""
    model = onnx.inliner.inline_local_functions(model) if model.functions else model
    held = {t.name for t in model.graph.initializer}
    kept = [v for v in model.graph.input if v.name not in held]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def at_opset(model: onnx.ModelProto, version: int, path: Path) -> onnx.ModelProto:
    """The model in that operator set or a newer one."""
    if opset(model) >= version:
        return model
    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # the converter's errors share no base
        raise ExportError(
            f"{path}: is in operator set {opset(model)}, and cannot be converted to {version} ({error}); export it again with opset {version} or newer"
        ) from error


def opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def joined(parts: Sequence[Part], links: Mapping[str, str]) -> onnx.ModelProto:
    """One graph of all nodes in order, in the newest operator set of the parts. links: an output's name to the input that reads it."""
    if len(parts) == 1:
        return parts[0].model
    newest = max(opset(p.model) for p in parts)
    models = [at_opset(p.model, newest, p.path) for p in parts]
    reads = {after: before for before, after in links.items()}
    nodes, weights, inputs, outputs = [], [], [], []
    for model in models:
        renamed = onnx.GraphProto()
        renamed.CopyFrom(model.graph)
        for node in renamed.node:
            rename_reads(node, reads)
        nodes.extend(renamed.node)
        weights.extend(renamed.initializer)
        inputs.extend(v for v in renamed.input if v.name not in reads)
        outputs.extend(renamed.output)
    opsets = {o.domain: o for model in models for o in model.opset_import}
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=list(opsets.values()), ir_version=max(m.ir_version for m in models))


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """What the node, or a graph inside of it, reads by an old name it reads by the new one."""
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inside in attribute.g.node:
                rename_reads(inside, names)
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)


def _names(model: onnx.ModelProto) -> set[str]:
    made = {name for node in model.graph.node for name in node.output if name}
    return made | {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer}


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ExportError(f"'{value.name}' is no tensor; sequences, maps and optional values cannot be streamed")
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return Port(value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, dims)
