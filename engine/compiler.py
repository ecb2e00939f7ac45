"""From a step graph to one specialised function: walks the graph, lowers each node, and says the program's source.

The program steps blocks of streams over the arena in place: `run` takes ragged work (each stream's rows of the frames
array, in order), `one` a single frame of a single stream. A block's step reads every old state before it writes a new one.
"""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .artifact import Artifact
from .assembly import Source, assemble
from .layout import Layout
from .lowerings import TABLE
from .program import ACCESS, BATCH, Program, Unsupported, Value


def missing(artifact: Artifact) -> list[str]:
    """Why the compiled backend cannot run the model; empty where it can."""
    try:
        generate(artifact)
    except Unsupported as error:
        return [str(error)]
    return []


def generate(artifact: Artifact) -> Source:
    """The program's source and packed parameters. Raises Unsupported, naming the node."""
    spec, graph, program = artifact.spec, artifact.model.graph, Program()
    layout = Layout.of(spec)
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values: dict[str, Value] = {}
    frames = (spec.frames_per_step,) if spec.frames_per_step > 1 else ()
    for i, t in enumerate(spec.inputs):
        values[t.name] = Value((BATCH, *frames, *t.shape), _supported(t.name, t.dtype), f"x{i}", 0)
    if spec.valid_input:
        values[spec.valid_input] = Value((BATCH,), "int64", "valid", 0)
    for s in spec.states:
        values[s.name] = Value((BATCH, *s.shape), _supported(s.name, s.dtype), "rows", layout.states[s.name])
    domains = {o.domain for o in artifact.model.opset_import} - {"", "ai.onnx"}
    for node in graph.node:
        try:
            if node.domain not in ("", "ai.onnx"):
                raise Unsupported(f"operator set {node.domain!r} of {sorted(domains)}")
            _lower(program, node, constants, values)
        except Unsupported as error:
            raise Unsupported(f"node '{node.name or node.output[0]}' ({node.op_type}): {error}") from None
    outputs = [_result(program, constants, values, t.name) for t in spec.outputs]
    for i, value in enumerate(outputs):
        _store(program, value, f"y{i}", 0)
    for s in spec.states:
        value = _result(program, constants, values, s.next)
        if value.table == "rows" and value.offset != layout.states[s.name]:
            kept = program.scratch((BATCH, *s.shape), s.dtype)
            program.strided(kept, value, [value.size], [1], [1])
            values[s.next] = kept
    for s in spec.states:
        value = _result(program, constants, values, s.next)
        if value.table != "rows":
            _store(program, value, "rows", layout.states[s.name])
    return assemble(program, artifact, layout)


def _supported(name: str, dtype: str) -> str:
    if dtype not in ACCESS:
        raise Unsupported(f"'{name}' is {dtype}; compiled are {', '.join(ACCESS)}")
    return dtype


def _result(program: Program, constants: dict[str, np.ndarray], values: dict[str, Value], name: str) -> Value:
    if name in values:
        return values[name]
    return program.parameter(constants[name][None][0])


def _store(program: Program, value: Value, table: str, offset: int) -> None:
    program.rows()
    program.say(f"copy_bytes(get_int64({table} + 8 * r) + {offset}, {value.at()}, {value.size * value.item})", indent=2)


def _lower(program: Program, node: Any, constants: dict[str, np.ndarray], values: dict[str, Value]) -> None:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Constant":
        constants[node.output[0]] = _constant(attributes)
        return
    if all(not name or name in constants for name in node.input) and node.input:
        _fold(node, constants)
        return
    if node.op_type not in TABLE:
        raise Unsupported("the operator is not in the compiled set")
    inputs: list[Value | None] = []
    for name in node.input:
        if not name:
            inputs.append(None)
        elif name in values:
            inputs.append(values[name])
        else:
            array = constants[name]
            dtype = array.dtype.name
            inputs.append(
                program.parameter(array)
                if dtype in ACCESS and not _folds(node)
                else Value(array.shape, dtype, "c", 0, array)
            )
    results = TABLE[node.op_type](program, node, inputs, attributes)
    values.update({name: value for name, value in zip(node.output, results, strict=False) if name})


def _folds(node: Any) -> bool:
    """Constants of these are packed or read at compile time, not kept beside."""
    return node.op_type in (
        "LSTM",
        "GRU",
        "RNN",
        "Gemm",
        "MatMul",
        "Conv",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "LayerNormalization",
        "Gather",
    )


def _constant(attributes: dict[str, Any]) -> np.ndarray:
    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    (kind, value), *_ = attributes.items()
    return np.asarray(value, np.float32 if "float" in kind else np.int64)


def _fold(node: Any, constants: dict[str, np.ndarray]) -> None:
    from onnx.reference import ReferenceEvaluator

    results = ReferenceEvaluator(node).run(None, {n: constants[n] for n in node.input if n})
    constants.update(zip(node.output, map(np.asarray, results), strict=False))
