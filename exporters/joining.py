"""Step graphs in a chain as one graph: outputs of earlier ones wired to inputs of later ones."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from onnx import helper, version_converter

from ..engine.artifact import load_model
from ..engine.errors import ExportError

OLDEST_OPSET = 11  # before it, Slice and Pad have their sizes in attributes
NEWEST_OPSET = 21  # of the next, ONNX Runtime lacks operators that a certificate draws rounding errors with
_COMPOSED = ("Attention", "RMSNormalization", "RotaryEmbedding", "Swish")  # made of operators that there are before


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
    """The graphs, without initializers among their inputs, without functions, and with no name in two of them.

    An input or output whose name an earlier graph's input or output has is `stem.name`, stem being its file's.
    """
    models = [tidy(load_model(path)) for path in paths]
    taken: set[str] = set()
    seen: list[dict[str, str]] = []
    for path, model in zip(paths, models, strict=True):
        visible = [v.name for v in (*model.graph.input, *model.graph.output)]
        names = {name: f"{path.stem}.{name}" if name in taken else name for name in visible}
        if twice := taken.intersection(names.values()):
            raise ExportError(f"{path}: '{min(twice)}' is in the chain already; copy the file to another name")
        taken.update(names.values())
        seen.append(names)
    for path, model, names in zip(paths, models, seen, strict=True):
        for name in sorted(_names(model.graph) - set(names)):
            names[name] = _free_name(name, path.stem, taken)
        rename(model.graph, names)
    return tuple(Part(path, model) for path, model in zip(paths, models, strict=True))


def _free_name(name: str, stem: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{stem}.{name}"
    taken.add(name)
    return name


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions inlined, in a set of operators that ONNX Runtime has all of, and without those inputs that have a value."""
    model = onnx.inliner.inline_local_functions(model) if model.functions else model
    if any(node.op_type in _COMPOSED and node.domain == "" for node in model.graph.node):
        ids = [("", name) for name in _COMPOSED]
        model = onnx.inliner.inline_selected_functions(model, ids, inline_schema_functions=True)
    if opset(model) > NEWEST_OPSET:
        with contextlib.suppress(Exception):  # it is taken as it is then, and refused where it matters
            model = version_converter.convert_version(model, NEWEST_OPSET)
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
    newest = max(OLDEST_OPSET, *(opset(p.model) for p in parts))
    models = [at_opset(p.model, newest, p.path) for p in parts]
    reads = {after: before for before, after in links.items()}
    nodes, weights, inputs, outputs = [], [], [], []
    for model in models:
        renamed = onnx.GraphProto()
        renamed.CopyFrom(model.graph)
        given = [v for v in renamed.input if v.name not in reads]
        rename(renamed, reads)
        nodes.extend(renamed.node)
        weights.extend(renamed.initializer)
        inputs.extend(given)
        outputs.extend(renamed.output)
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o for model in models for o in model.opset_import}
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=list(opsets.values()), ir_version=max(m.ir_version for m in models))


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives tensors, wherever they are made or read and in graphs inside of it too, their new names."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g, names)


def _names(graph: onnx.GraphProto) -> set[str]:
    """Of every tensor, in graphs inside of it too."""
    found = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        found.update(name for name in (*node.input, *node.output) if name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _names(attribute.g)
    return found


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ExportError(f"'{value.name}' is no tensor; sequences, maps and optional values cannot be streamed")
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return Port(value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, dims)
