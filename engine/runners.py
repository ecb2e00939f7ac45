"""What steps compiled programs over the arena: the loops around a program's block, which no model decides.

A program is one C function, `block(n, memory)`: a step of n streams. Here the tables of addresses in its memory are filled, and
sizes are numbers that are read, so that a model compiles its block alone; these are compiled once for each kind of arrays.
Tables, in their order: rows, parameters, scratch, inputs, outputs, valid frames, the program's own; behind them the numbers of
valid frames.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import types

from .cache import load_program
from .contexts import (
    ARENA,
    BLOCK,
    BUSY,
    ELEMENTS,
    FIRST_TENSOR,
    GENERATION,
    GENERATIONS,
    MEMORY,
    PROGRAM,
    SIZES,
    SLOT,
    STEPS,
    STRIDE,
    TABLES,
    WIDTH,
)
from .layout import FRAMES, LAST_ACTIVE


def _head() -> list[str]:
    package = __name__.rpartition(".")[0]
    return [
        "import numpy as np",
        "from numba import njit",
        "",
        f"from {package}.kernels import call_block, finite_floats",
        f"from {package}.simd import get_int64, set_int64",
        "",
        "",
    ]


def _run_text(inputs: int, outputs: int) -> str:
    """`run`: ragged work, stream i takes rows first[i] .. first[i] + length[i] of the frames, in order."""
    arrays = [*(f"x{i}" for i in range(inputs)), *(f"y{i}" for i in range(outputs))]
    lines = [
        '"""Steps batches of streams."""',
        "",
        *_head(),
        "@njit(nogil=True, cache=True, error_model='numpy')",
        f"def run(program, arena, stride, slots, first, length, valid, now, begin, end, {', '.join(arrays)}):",
        '    """Steps streams begin..end, as many at a time as the program takes."""',
        f"    block, memory, width = get_int64(program + {BLOCK}), get_int64(program + {MEMORY}), get_int64(program + {WIDTH})",
        f"    steps, ones = get_int64(program + {STEPS}), memory + 8 * width * get_int64(program + {TABLES})",
        *[f"    {name}_at, {name}_size = {name}.ctypes.data, get_int64(program + {SIZES + 8 * i})" for i, name in enumerate(arrays)],
        "    for start in range(begin, end, width):",
        "        stop = min(start + width, end)",
        "        longest = 0",
        "        for i in range(start, stop):",
        "            longest = max(longest, length[i])",
        "            row = arena + slots[i] * stride",
        f"            set_int64(row + {FRAMES}, get_int64(row + {FRAMES}) + valid[i])",
        f"            set_int64(row + {LAST_ACTIVE}, now)",
        "        for t in range(longest):",
        "            n = np.int64(0)",
        "            for i in range(start, stop):",
        "                if t < length[i]:",
        "                    at = memory + 8 * n",
        "                    set_int64(at, arena + slots[i] * stride)",
        *[
            f"                    set_int64(at + {8 * (FIRST_TENSOR + i)} * width, {name}_at + (first[i] + t) * {name}_size)"
            for i, name in enumerate(arrays)
        ],
        f"                    set_int64(at + {8 * (FIRST_TENSOR + len(arrays))} * width, ones + 8 * n)",
        "                    set_int64(ones + 8 * n, min(steps, max(0, valid[i] - t * steps)))",
        "                    n += 1",
        "            call_block(block, n, memory)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _one_text(of_floats: bool) -> str:
    """`one`: one frame of one stream of a program with an input and an output."""
    lines = [
        '"""Steps one stream."""',
        "",
        *_head(),
        "@njit(cache=True, error_model='numpy')",
        "def one(context, x, y):",
        '    """The frames that the stream has seen, or why not: -1 the handle is stale or the engine is stepping a batch without the',
        '    GIL, -2 a frame is not finite or of a wrong size. Holds the GIL, which serves as its lock."""',
        f"    slot = get_int64(context + {SLOT})",
        f"    if get_int64(get_int64(context + {GENERATIONS}) + 8 * slot) != get_int64(context + {GENERATION}):",
        "        return -1",
        f"    if get_int64(get_int64(context + {BUSY})) != 0:",
        "        return -1",
        f"    if x.size != get_int64(context + {ELEMENTS}):",
        "        return -2",
        *(["    if not finite_floats(x.ctypes.data, x.size):", "        return -2"] if of_floats else []),
        f"    program, row = get_int64(context + {PROGRAM}), get_int64(context + {ARENA}) + slot * get_int64(context + {STRIDE})",
        f"    memory, line = get_int64(program + {MEMORY}), 8 * get_int64(program + {WIDTH})",
        f"    ones = memory + line * get_int64(program + {TABLES})",
        "    set_int64(memory, row)",
        f"    set_int64(memory + {FIRST_TENSOR} * line, x.ctypes.data)",
        f"    set_int64(memory + {FIRST_TENSOR + 1} * line, y.ctypes.data)",
        f"    set_int64(memory + {FIRST_TENSOR + 2} * line, ones)",
        "    set_int64(ones, 1)",
        f"    call_block(get_int64(program + {BLOCK}), np.int64(1), memory)",
        f"    seen = get_int64(row + {FRAMES}) + 1",
        f"    set_int64(row + {FRAMES}, seen)",
        "    return seen",
    ]
    return "\n".join(lines) + "\n"


_NUMBERS = {"float32": types.float32, "int64": types.int64, "int32": types.int32, "bool": types.boolean}
Arrays = tuple[tuple[str, int], ...]  # of each array its dtype and its rank


def _types(arrays: Arrays) -> list[types.Array]:
    return [types.Array(_NUMBERS[dtype], rank, "C") for dtype, rank in arrays]


@cache
def run_of(inputs: Arrays, outputs: Arrays) -> Any:
    """`run(program, arena, stride, slots, first, length, valid, now, begin, end, *inputs, *outputs)` for such arrays."""
    i64, index = types.int64, types.int64[::1]
    signature = (*[i64] * 3, *[index] * 4, *[i64] * 3, *_types((*inputs, *outputs)))
    return load_program(_run_text(len(inputs), len(outputs)), {"run": [signature]}).run


@cache
def one_of(x: tuple[str, int], y: tuple[str, int]) -> Any:
    """`one(context, x, y)` for such arrays."""
    signature = (types.int64, *_types((x, y)))
    return load_program(_one_text(x[0] == "float32"), {"one": [signature]}).one


def program_context(block: int, memory: int, width: int, tables: int, steps: int, sizes: Sequence[int]) -> np.ndarray:
    """In the order of the constants of `contexts`."""
    return np.array([block, memory, width, tables, steps, len(sizes), *sizes], np.int64)
