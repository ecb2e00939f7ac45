"""The text around a program's lines: how blocks of streams are stepped over the arena, and one frame of one stream."""

import math
from dataclasses import dataclass

import numpy as np

from .artifact import Artifact
from .layout import FRAMES, LAST_ACTIVE
from .program import Program

BLOCK = 64  # streams stepped together; their scratch should stay in the second-level cache
SCRATCH_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A program before it is compiled: the block's step as `head`, and with what runs it as `text`.

    tables: names in their order. limits: for integer inputs used as an index, how many entries there are.
    """

    head: str
    text: str
    parameters: np.ndarray
    tables: tuple[str, ...]
    block: int
    scratch_row: int
    limits: dict[str, int]


def assemble(program: Program, artifact: Artifact) -> Source:
    """The program's whole source around the block's lines."""
    spec = artifact.spec
    xs, ys = [f"x{i}" for i in range(len(spec.inputs))], [f"y{i}" for i in range(len(spec.outputs))]
    tables = ["rows", "c", "s", *xs, *ys, "valid", *program.tables]
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
        f"from {package}.gemm import *",
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
    head = "\n".join(lines)
    arrays = [f"{x}" for x in (*xs, *ys)]
    at = {name: f"memory + {i * block * 8}" for i, name in enumerate(tables)}
    lines += [
        "@njit(nogil=True, cache=True, error_model='numpy')",
        f"def run(memory, arena, stride, slots, first, length, valid, now, begin, end, {', '.join(arrays)}):",
        f'    """Steps streams begin..end, {block} at a time: stream i takes rows first[i] .. first[i] + length[i] of the frames, in order."""',
        *[f"    {name}_address = {name}.ctypes.data" for name in arrays],
        "    valid_address = valid.ctypes.data",
        f"    for start in range(begin, end, {block}):",
        f"        stop = min(start + {block}, end)",
        "        longest = 0",
        "        for i in range(start, stop):",
        "            longest = max(longest, length[i])",
        "            row = arena + slots[i] * stride",
        f"            set_int64(row + {FRAMES}, get_int64(row + {FRAMES}) + valid[i])",
        f"            set_int64(row + {LAST_ACTIVE}, now)",
        "        for t in range(longest):",
        "            n = np.int64(0)",  # a literal type would have numba compile the block once more
        "            for i in range(start, stop):",
        "                if t < length[i]:",
        f"                    set_int64({at['rows']} + 8 * n, arena + slots[i] * stride)",
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
        f"def one(context, {', '.join(arrays)}):",
        '    """One frame of one stream: the frames that it has seen, or why not: -1 the handle is stale or the engine is',
        "    stepping a batch without the GIL, -2 a frame is not finite or of a wrong size. Holds the GIL, which serves as its lock.",
        '    """',
        "    slot = get_int64(context + 32)",
        "    if get_int64(get_int64(context + 8) + 8 * slot) != get_int64(context + 40) or get_int64(get_int64(context + 24)) != 0:",
        "        return -1",
        "    memory = get_int64(context + 16)",
        "    row = get_int64(context) + slot * get_int64(context + 48)",
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
        "    block(np.int64(1), memory)",
        f"    seen = get_int64(row + {FRAMES}) + {steps}",
        f"    set_int64(row + {FRAMES}, seen)",
        "    return seen",
    ]
    parameters = np.zeros(len(program.parameters) + 64, np.uint8)
    skew = -parameters.ctypes.data % 64
    parameters = parameters[skew : skew + len(program.parameters)]
    parameters[:] = np.frombuffer(bytes(program.parameters), np.uint8)
    limits = {spec.inputs[int(table[1:])].name: limit for table, limit in program.limits.items()}
    text = "\n".join(lines) + "\n"
    return Source(head, text, parameters, tuple(tables), block, scratch_row, limits)


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
