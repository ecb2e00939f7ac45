"""The text around a program's lines, and what runs it has to know; see `runners`."""

import math
from dataclasses import dataclass

import numpy as np

from .artifact import Artifact
from .contexts import FIRST_TENSOR
from .program import Program

BLOCK = 64  # streams stepped together; their scratch should stay in the second-level cache
SCRATCH_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A program before it is compiled: `text`, which defines the C function `block(n, memory)`.

    tables: names in their order. sizes: bytes that a step takes of each input and output. limits: for integer inputs used as an
    index, how many entries there are.
    """

    text: str
    parameters: np.ndarray
    tables: tuple[str, ...]
    block: int
    scratch_row: int
    steps: int
    sizes: tuple[int, ...]
    limits: dict[str, int]


def assemble(program: Program, artifact: Artifact) -> Source:
    """The program's whole source around the block's lines."""
    spec = artifact.spec
    xs, ys = [f"x{i}" for i in range(len(spec.inputs))], [f"y{i}" for i in range(len(spec.outputs))]
    tables = ["rows", "c", "s", *xs, *ys, "valid", *program.tables]
    assert tables[FIRST_TENSOR] == "x0"
    scratch_row = -(-program.scratch_bytes // 64) * 64 + 64
    scratch_row += 64 if scratch_row % 4096 == 0 else 0
    block = max(4, min(BLOCK, SCRATCH_BYTES // scratch_row // 4 * 4))
    steps, outs = spec.frames_per_step, spec.outputs_per_step
    in_bytes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize * steps for t in spec.inputs]
    out_bytes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize * outs for t in spec.outputs]
    lines = ['"""A compiled step graph."""', "", "import numpy as np", "from numba import cfunc, types", ""]
    package = __name__.rpartition(".")[0]
    lines += [
        f"from {package}.functions import *",
        f"from {package}.gemm import *",
        f"from {package}.simd import *",
        "",
    ]
    lines += [f"{name} = constant({value!r})" for name, value in program.constants.items()] + ["", ""]
    lines += [
        "@cfunc(types.int64(types.int64, types.int64), cache=True, error_model='numpy')",
        "def block(n, memory):",
        f'    """One step of n <= {block} streams whose tables are filled."""',
    ]
    lines += (
        [f"    {name} = memory + {i * block * 8}" for i, name in enumerate(tables)] + program.lines + ["    return n"]
    )
    parameters = np.zeros(len(program.parameters) + 64, np.uint8)
    skew = -parameters.ctypes.data % 64
    parameters = parameters[skew : skew + len(program.parameters)]
    parameters[:] = np.frombuffer(bytes(program.parameters), np.uint8)
    limits = {spec.inputs[int(table[1:])].name: limit for table, limit in program.limits.items()}
    text = "\n".join(lines) + "\n"
    return Source(text, parameters, tuple(tables), block, scratch_row, steps, (*in_bytes, *out_bytes), limits)
