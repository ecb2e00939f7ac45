"""From a step graph to one specialised function: walks the graph, lowers each node, and says the program's source.

The program steps blocks of streams over the arena in place: `run` takes ragged work (each stream's rows of the frames
array, in order), `one` a single frame of a single stream. A block's step reads every old state before it writes a new one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from .artifact import Artifact
from .folding import Constants
from .layout import FRAMES, LAST_ACTIVE, Layout
from .lowerings import RECURRENT, TABLE
from .program import ACCESS, BATCH, COMPILED, UNPLACED, Program, Unsupported, Value

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
    """The program's source and packed parameters. Raises Unsupported, naming the node.

    Integer states may be an index: a first walk finds what their next values lie between, whatever they are themselves.
    """
    bounds: dict[str, tuple[int, int]] = {}
    if any(s.dtype in ("int64", "int32") for s in artifact.spec.states):
        bounds = Walk(artifact, Program(probing=True), {}).bounds()
    walk = Walk(artifact, Program(), bounds)
    walk.store()
    return _assemble(walk.program, artifact, walk.layout)


class Walk:
    """One walk over the graph's nodes in order: what each value is, and which are not read any more."""

    def __init__(self, artifact: Artifact, program: Program, bounds: dict[str, tuple[int, int]]):
        self.spec, self.graph, self.program = artifact.spec, artifact.model.graph, program
        self.layout = Layout.of(self.spec)
        self.constants = Constants(artifact.model)
        self.values = self._inputs(bounds)
        self.last = {name: i for i, node in enumerate(self.graph.node) for name in node.input}
        self.last |= {name: len(self.graph.node) for name in self._wanted()}
        for i, node in enumerate(self.graph.node):
            try:
                self._lower(node)
            except Unsupported as error:
                raise Unsupported(f"node '{node.name or node.output[0]}' ({node.op_type}): {error}") from None
            self.values = {name: v for name, v in self.values.items() if self.last.get(name, -1) > i}
            program.places.keep(v.offset for v in self.values.values() if v.table == "s")

    def _wanted(self) -> list[str]:
        return [*(t.name for t in self.spec.outputs), *(s.next for s in self.spec.states)]

    def _inputs(self, bounds: dict[str, tuple[int, int]]) -> dict[str, Value]:
        values, spec = {}, self.spec
        frames = (spec.frames_per_step,) if spec.frames_per_step > 1 else ()
        for i, t in enumerate(spec.inputs):
            shape = (BATCH, *frames, *t.shape)
            values[t.name] = Value(shape, _supported(t.name, t.dtype), f"x{i}", 0, origin=f"x{i}")
        if spec.valid_input:
            values[spec.valid_input] = Value((BATCH,), "int64", "valid", 0, bounds=(0, spec.frames_per_step))
        for s in spec.states:
            dtype, offset = _supported(s.name, s.dtype), self.layout.states[s.name]
            values[s.name] = Value((BATCH, *s.shape), dtype, "rows", offset, bounds=bounds.get(s.name))
        return values

    def bounds(self) -> dict[str, tuple[int, int]]:
        """What each integer state lies between, now that its next value is known for any."""
        found = {}
        for s in self.spec.states:
            first = s.initial_value()
            if s.dtype in ("int64", "int32") and first.size:
                low, high = self._result(s.next).range
                found[s.name] = min(low, int(first.min())), max(high, int(first.max()))
        return found

    def _result(self, name: str) -> Value:
        """An output's value. One that has no batch axis is not a row's."""
        if name not in self.values:
            self.values[name] = self.program.parameter(self.constants.arrays[name][0])
        return self.values[name]

    def store(self) -> None:
        """Outputs and next states, at the end: every old state is read before a new one is written."""
        program, old = self.program, self.layout.states
        for i, t in enumerate(self.spec.outputs):
            _store(program, program.placed(self._result(t.name)), f"y{i}", 0)
        for s in self.spec.states:
            value = self._result(s.next)
            if value.table == "rows" and value.offset != old[s.name]:
                kept = program.scratch((BATCH, *s.shape), s.dtype)
                program.strided(kept, value, [value.size], [1], [1])
                self.values[s.next] = kept
        for s in self.spec.states:
            value = self._result(s.next)
            if value.table != "rows":
                _store(program, value, "rows", old[s.name])

    def _lower(self, node: Any) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"operator set {node.domain!r}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if self.constants.add(node, self.values, attributes):
            return
        if node.op_type not in TABLE:
            raise Unsupported("the operator is not in the compiled set")
        inputs = [self._input(name, node.op_type in RECURRENT) for name in node.input]
        results = TABLE[node.op_type](self.program, node, inputs, attributes)
        self.values.update({name: value for name, value in zip(node.output, results, strict=False) if name})

    def _input(self, name: str, placed: bool) -> Value | None:
        """A value, or a constant that is not in the parameters: most are packed or read at compile time."""
        if not name:
            return None
        if name in self.values:
            return self.values[name]
        array = self.constants.arrays[name]
        value = Value(array.shape, array.dtype.name, UNPLACED, 0, array)
        return self.program.placed(value) if placed and value.dtype in ACCESS else value


def _supported(name: str, dtype: str) -> str:
    if dtype not in COMPILED:
        raise Unsupported(f"'{name}' is {dtype}; compiled are {', '.join(COMPILED)}")
    return dtype


def _store(program: Program, value: Value, table: str, offset: int) -> None:
    program.rows()
    program.say(f"copy_bytes(get_int64({table} + 8 * r) + {offset}, {value.at()}, {value.size * value.item})", indent=2)


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
