"""Random sequences that a model takes: of each input's dtype, in the range that it accepts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from ..engine.artifact import StepSpec

Sequence = dict[str, np.ndarray]  # for each input (T, *frame)


@dataclass(frozen=True, slots=True)
class Draw:
    """How one input's values are drawn: floats normal(a, b), integers from a to b inclusive."""

    shape: tuple[int, ...]
    dtype: np.dtype
    a: float
    b: float

    def sequence(self, rng: np.random.Generator, length: int) -> np.ndarray:
        shape = (length, *self.shape)
        if self.dtype.kind == "f":
            return rng.normal(self.a, self.b, shape).astype(self.dtype)
        return rng.integers(int(self.a), int(self.b), shape, endpoint=True).astype(self.dtype)


def draws(spec: StepSpec, model: onnx.ModelProto, examples: Mapping[str, np.ndarray]) -> dict[str, Draw]:
    """For each input: a token from all rows of its table; else like its example; else standard normal, or 0 and 1."""
    rows = _table_rows(model.graph)
    found = {}
    for tensor in spec.inputs:
        dtype, example = np.dtype(tensor.dtype), examples.get(tensor.name)
        if tensor.name in rows and dtype.kind in "iu":
            low, high = 0.0, float(min(rows[tensor.name] - 1, np.iinfo(dtype).max))
        elif dtype.kind != "f":
            low, high = (
                (0.0, 1.0) if example is None or dtype.kind == "b" else (float(example.min()), float(example.max()))
            )
        elif example is None or not np.isfinite(example).all() or not example.std() > 0:
            low, high = 0.0, 1.0
        else:
            low, high = float(example.mean()), float(example.std())
        found[tensor.name] = Draw(tensor.shape, dtype, low, high)
    return found


def random_sequences(draws: Mapping[str, Draw], lengths: tuple[int, ...], seeds: int) -> list[Sequence]:
    """`seeds` sequences of each length; the same ones every time."""
    sequences = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        sequences += [{name: draw.sequence(rng, n) for name, draw in draws.items()} for n in lengths]
    return sequences


def _table_rows(graph: onnx.GraphProto) -> dict[str, int]:
    """For each input that indexes a constant table, the table's rows."""
    origin = {v.name: v.name for v in graph.input}
    tables = {t.name: t.dims[0] for t in graph.initializer if t.dims}
    rows: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze") and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origin:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            name = origin[node.input[1]]
            if axis == 0:
                rows[name] = min(rows.get(name, tables[node.input[0]]), tables[node.input[0]])
    return rows
