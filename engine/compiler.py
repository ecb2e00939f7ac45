"""From a step graph to one specialised function: walks the graph, lowers each node, and says the program's source.

The program steps blocks of streams over the arena in place: `run` takes ragged work (each stream's rows of the frames
array, in order), `one` a single frame of a single stream. A block's step reads every old state before it writes a new one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .artifact import Artifact
from .layout import FRAMES, LAST_ACTIVE, Layout
from .lowerings import TABLE
from .program import ACCESS, BATCH, Program, Unsupported, Value

BLOCK = 64  # streams stepped together; their scratch should stay in the second-level cache
SCRATCH_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A program before it is compiled. limits: for integer inputs used as an index, how many entries there are."""

    text: str
    parameters: np.ndarray
    tables: int
    block: int
    scratch_row: int
    limits: dict[str, int]


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
    return _assemble(program, artifact, layout)


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


def _assemble(program: Program, artifact: Artifact, layout: Layout) -> Source:
    spec = artifact.spec
    xs, ys = [f"x{i}" for i in range(len(spec.inputs))], [f"y{i}" for i in range(len(spec.outputs))]
    tables = ["rows", "c", "s", *xs, *ys, "valid"]
    scratch_row = -(-program.scratch_bytes // 64) * 64 + 64
    scratch_row += 64 if scratch_row % 4096 == 0 else 0
    block = max(4, min(BLOCK, SCRATCH_BYTES // scratch_row // 4 * 4))
    steps, outs = spec.frames_per_step, spec.outputs_per_step
    in_bytes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize * steps for t in spec.inputs]
    out_bytes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize * outs for t in spec.outputs]
    lines = ['"""A compiled step graph."""', "", "import numpy as np", "from numba import njit, types", ""]
    package = __name__.rpartition(".")[0]
    lines += [
        f"from {package}.functions import *",
        f"from {package}.gemm import gemm",
        f"from {package}.simd import *",
        "",
    ]
    lines += [f"{name} = constant({value!r})" for name, value in program.constants.items()] + ["", ""]
    lines += [
        "@njit(nogil=True, error_model='numpy')",
        "def block(n, memory):",
        f'    """One step of n <= {block} streams whose tables are filled."""',
    ]
    lines += (
        [f"    {name} = memory + {i * block * 8}" for i, name in enumerate(tables)]
        + program.lines
        + ["    return n", "", ""]
    )
    arrays = [f"{x}" for x in (*xs, *ys)]
    at = {name: f"memory + {i * block * 8}" for i, name in enumerate(tables)}
    lines += [
        "@njit(nogil=True, cache=True, error_model='numpy')",
        f"def run(memory, arena, slots, first, length, valid, now, begin, end, {', '.join(arrays)}):",
        f'    """Steps streams begin..end, {block} at a time: stream i takes rows first[i] .. first[i] + length[i] of the frames, in order."""',
        *[f"    {name}_address = {name}.ctypes.data" for name in arrays],
        "    valid_address = valid.ctypes.data",
        f"    for start in range(begin, end, {block}):",
        f"        stop = min(start + {block}, end)",
        "        longest = 0",
        "        for i in range(start, stop):",
        "            longest = max(longest, length[i])",
        f"            row = arena + slots[i] * {layout.row_bytes}",
        f"            set_int64(row + {FRAMES}, get_int64(row + {FRAMES}) + valid[i])",
        f"            set_int64(row + {LAST_ACTIVE}, now)",
        "        for t in range(longest):",
        "            n = 0",
        "            for i in range(start, stop):",
        "                if t < length[i]:",
        f"                    set_int64({at['rows']} + 8 * n, arena + slots[i] * {layout.row_bytes})",
    ]
    lines += [
        f"                    set_int64({at[x]} + 8 * n, {x}_address + (first[i] + t) * {size})"
        for x, size in zip((*xs, *ys), (*in_bytes, *out_bytes), strict=True)
    ]
    lines += [
        f"                    set_int64({at['valid']} + 8 * n, memory + {len(tables) * block * 8} + 8 * n)",
        f"                    set_int64(memory + {len(tables) * block * 8} + 8 * n, min({steps}, max(0, valid[i] - t * {steps})))",
        "                    n += 1",
        "            block(n, memory)",
        "",
        "",
        "@njit(cache=True, error_model='numpy')",
        f"def one(context, slot, generation, now, {', '.join(arrays)}):",
        '    """One frame of one stream: the frames that it has seen, -1 if the handle is stale, -2 if a frame is not finite or of a wrong size."""',
        "    if get_int64(get_int64(context + 8) + 8 * slot) != generation:",
        "        return -1",
        "    memory = get_int64(context + 16)",
        f"    row = get_int64(context) + slot * {layout.row_bytes}",
    ]
    for i, t in enumerate(spec.inputs):
        size = math.prod(t.shape) * steps
        lines += [f"    if x{i}.size != {size}:", "        return -2", f"    a = x{i}.ctypes.data"]
        if t.dtype == "float32":
            lines += _finite(size)
        lines.append(f"    set_int64({at[f'x{i}']}, a)")
    lines += [f"    set_int64({at[y]}, {y}.ctypes.data)" for y in ys]
    lines += [
        f"    set_int64({at['rows']}, row)",
        f"    set_int64({at['valid']}, memory + {len(tables) * block * 8})",
        f"    set_int64(memory + {len(tables) * block * 8}, {steps})",
        "    block(1, memory)",
        f"    seen = get_int64(row + {FRAMES}) + {steps}",
        f"    set_int64(row + {FRAMES}, seen)",
        f"    set_int64(row + {LAST_ACTIVE}, now)",
        "    return seen",
    ]
    parameters = np.zeros(len(program.parameters) + 64, np.uint8)
    skew = -parameters.ctypes.data % 64
    parameters = parameters[skew : skew + len(program.parameters)]
    parameters[:] = np.frombuffer(bytes(program.parameters), np.uint8)
    limits = {spec.inputs[int(table[1:])].name: limit for table, limit in program.limits.items()}
    return Source("\n".join(lines) + "\n", parameters, len(tables), block, scratch_row, limits)


def _finite(size: int) -> list[str]:
    """Lines that return -2 unless all of `size` floats at `a` are finite: x - x is zero only then."""
    whole, rest = size - size % 16, size % 16
    lines = ["    wrong = splat(np.float32(0))"]
    if whole:
        lines += [f"    for j in range(0, {4 * whole}, 64):", "        wrong = wrong + vabs(load(a + j) - load(a + j))"]
    if rest:
        tail = f"load_some(a + {4 * whole}, {rest}, np.float32(0))"
        lines.append(f"    wrong = wrong + vabs({tail} - {tail})")
    return [*lines, "    if fold_add(wrong) != np.float32(0):", "        return -2"]
