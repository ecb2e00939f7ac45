"""What LSTM, GRU and RNN share: weights of each direction, activations, sums of gates in registers. Formulas: ONNX operator specification."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arguments import text
from .gemm import COLUMN, pack
from .indexing import place
from .program import BATCH, Program, Unsupported, Value, view
from .simd import LANES

_DEFAULT_ALPHA = {
    "LeakyRelu": 0.01,
    "ThresholdedRelu": 1.0,
    "HardSigmoid": 0.2,
    "Elu": 1.0,
    "ScaledTanh": 1.0,
    "Affine": 1.0,
}
# Of each kind the gate whose weights each of its sums takes, and the sums that take products with x and with h
SUMS = {"lstm": ((0, 1, 2, 3), range(4), range(4)), "gru": ((2, 1, 0, 2), range(3), range(1, 4))}
MOST_TABLE_BYTES = 32 * 2**20  # of products with an embedding that are made at compile time
_DEFAULT_BETA = {"HardSigmoid": 0.5, "ScaledTanh": 1.0, "Affine": 0.0}


def activation(program: Program, name: str, x: str, alpha: float, beta: float) -> str:
    """The named activation of the vector expression x."""
    a, b = program.literal(alpha), program.literal(beta)
    forms = {
        "Sigmoid": "gate({x})",
        "Tanh": "vtanh({x})",
        "Relu": "vmax({x}, ZERO())",
        "LeakyRelu": "where_less({x}, ZERO(), {a} * {x}, {x})",
        "ThresholdedRelu": "where_less({a}, {x}, {x}, ZERO())",
        "HardSigmoid": "vmin(vmax({a} * {x} + {b}, ZERO()), ONE())",
        "Elu": "where_less({x}, ZERO(), {a} * (vexp({x}) - ONE()), {x})",
        "Softsign": "{x} / (ONE() + vabs({x}))",
        "Softplus": "vsoftplus({x})",
        "ScaledTanh": "{a} * vtanh({b} * {x})",
        "Affine": "{a} * {x} + {b}",
    }
    if name not in forms:
        raise Unsupported(f"activation {name}")
    return forms[name].format(x=x, a=a, b=b)


class Cell:
    """What the three layers share: constants of each direction, activations, places of the old and new state."""

    def __init__(
        self,
        program: Program,
        inputs: list[Value | None],
        attributes: dict[str, Any],
        gates: int,
        defaults: Sequence[str],
    ):
        self.program, self.attributes, self.gates = program, attributes, gates
        x, w, r, b, lengths, h = (inputs + [None] * 8)[:6]
        if (
            x is None
            or w is None
            or r is None
            or w.const is None
            or r.const is None
            or (b is not None and b.const is None)
        ):
            raise Unsupported("weights that are computed")
        if lengths is not None:
            raise Unsupported("sequence_lens")
        self.layout = attributes.get("layout", 0)
        self.hidden, self.directions = r.const.shape[2], w.const.shape[0]
        if len(x.shape) != 3 or x.shape[1 - self.layout] != BATCH:
            raise Unsupported(f"a sequence of shape {x.shape}, whose batch axis is not at {1 - self.layout}")
        self.width = -(-self.hidden // LANES) * LANES
        self.x, self.inputs, self.steps = x, w.const.shape[2], x.shape[self.layout]
        self.w, self.r = w.const, r.const
        self.b = (
            np.zeros((self.directions, 2 * gates * self.hidden), np.float32)
            if b is None or b.const is None
            else b.const
        )
        self.h = h or program.parameter(np.zeros((self.directions, self.hidden), np.float32))
        self.backwards = (
            {1} if self.directions == 2 else {0} if text(attributes, "direction", "") == "reverse" else set()
        )
        names = [
            n.decode() if isinstance(n, bytes) else n
            for n in attributes.get("activations", list(defaults) * self.directions)
        ]
        given_alpha, given_beta = (
            list(attributes.get("activation_alpha", [])),
            list(attributes.get("activation_beta", [])),
        )
        if (
            (given_alpha or given_beta)
            and len(names) != max(len(given_alpha), len(given_beta))
            and any(n in _DEFAULT_ALPHA for n in names)
        ):
            given_alpha = _spread(names, given_alpha, _DEFAULT_ALPHA)
            given_beta = _spread(names, given_beta, _DEFAULT_BETA)
        alphas = [given_alpha[i] if i < len(given_alpha) else _DEFAULT_ALPHA.get(n, 0.0) for i, n in enumerate(names)]
        betas = [given_beta[i] if i < len(given_beta) else _DEFAULT_BETA.get(n, 0.0) for i, n in enumerate(names)]
        self.functions = list(zip(names, alphas, betas, strict=True))
        self.per_direction = len(defaults)

    def act(self, direction: int, which: int, x: str) -> str:
        name, alpha, beta = self.functions[direction * self.per_direction + which]
        clip = self.attributes.get("clip")
        if clip:
            x = f"vmin(vmax({x}, {self.program.literal(-clip)}), {self.program.literal(clip)})"
        self.program.say(f"t = {x}", indent=3)
        return activation(self.program, name, "t", alpha, beta)

    def columns(self, rows: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """Gate rows (gates * H, K) as columns (K, len(order) * width), each gate filled up to whole vectors."""
        out = np.zeros((rows.shape[1], len(order) * self.width), np.float32)
        for i, g in enumerate(order):
            out[:, i * self.width : i * self.width + self.hidden] = rows[g * self.hidden : (g + 1) * self.hidden].T
        return out

    def multiply(self, out: Value, x: Value, start: Value, weights: np.ndarray) -> None:
        packed = self.program.parameter(pack(weights))
        self.program.gemm(out, x, start, packed, weights.shape[0], packed.shape[0])

    def room(self, gates: int) -> Value:
        return self.program.scratch((BATCH, gates * self.width))

    def bias(self, vectors: np.ndarray, order: Sequence[int]) -> Value:
        return self.program.parameter(self.columns(vectors.reshape(-1, 1), order).reshape(-1))

    def of(self, value: Value, direction: int, width: int | None = None) -> Value:
        """A direction's row of a value (directions, width)."""
        return view(value, (BATCH, self.hidden), direction * (width or self.hidden))

    def lanes(self, *places: tuple[str, Value]) -> None:
        """Opens the loop over a row's vectors; `name_at` is the address of each place."""
        self.program.rows()
        self.program.say(*[f"{name}_at = {value.at()}" for name, value in places], indent=2)
        self.program.say(f"for j in range(0, {4 * self.width}, {4 * LANES}):", indent=2)

    def take(self, name: str, value: Value) -> str:
        """The vector of an old state at j; where the state's end is not a vector's, no byte past it is read."""
        if value.padded or self.hidden % LANES == 0:
            return f"load({name}_at + j)"
        return f"load_some({name}_at + j, min({LANES}, {self.hidden} - j // 4), np.float32(0))"

    def each_group(
        self,
        kind: str,
        direction: int,
        x: Value,
        h: Value,
        biases: Sequence[np.ndarray],
        places: Sequence[tuple[str, Value]],
        body: Callable[[list[str]], None],
    ) -> None:
        """For sixteen lanes of each row at a time `body(sums)`, with the vectors of the sums of x @ w and h @ r.

        biases: (H,) of each of the kind's sums. Lanes are the outer loop: a group's weights stay in the first caches while all
        rows go by. Where x is a row of a constant table, its products are made here and the sums begin with a row of those.
        """
        program, (gates, of_x, of_h) = self.program, SUMS[kind]
        count, w, r = len(gates), None, self._grouped(self.r[direction], [gates[c] for c in of_h])
        begin = np.stack([self.columns(b.reshape(-1, 1), (0,))[0].reshape(-1, LANES) for b in biases], 1)
        table = self._products(direction, x, begin, [gates[c] for c in of_x], of_x)
        if table is None:
            start, w = program.parameter(begin), self._grouped(self.w[direction], [gates[c] for c in of_x])
        else:
            start = self._looked_up(*table)
        z = program.scratch((BATCH, count, LANES))
        program.say(f"for j in range(0, {4 * self.width}, {COLUMN}):")
        start = start.moved("j", count)
        if w:
            self._multiply(z, x, start, w, of_x)
            for c in set(of_h) - set(of_x):
                program.say("for r in range(n):", f"    z_at, start_at = {z.at()}, {start.at()}", indent=2)
                program.say(f"store(z_at + {c * COLUMN}, load(start_at + {c * COLUMN}))", indent=3)
        self._multiply(z, h, z if w else start, r, of_h)
        program.say("for r in range(n):", indent=2)
        every = [("z", z), ("start", start), *places]
        program.say(*[f"{name}_at = {value.at()}" for name, value in every], indent=3)
        body([f"load({'z' if w or c in of_h else 'start'}_at + {c * COLUMN})" for c in range(count)])

    def _multiply(self, z: Value, x: Value, start: Value, weights: Value, sums: range) -> None:
        """These of a group's sums: z = start + x @ weights, at the group's lanes j."""
        columns, k, lanes = weights.row_shape[1:]
        first = (BATCH, len(sums), lanes)
        z, start = view(z, first, sums[0] * lanes), view(start, first, sums[0] * lanes)
        self.program.gemm(z, x, start, weights.moved("j", columns * k), k, columns, indent=2)

    def _looked_up(self, table: np.ndarray, index: Value) -> Value:
        """Each stream's row of a table, as `_products` gives it."""
        program, begin, name = self.program, self.program.parameter(table), self.program.table()
        program.rows()
        place(program, index, index.at(), len(table), "k", 2)
        program.say(f"set_int64({name} + 8 * r, get_int64(c) + {begin.offset} + k * {table[0].nbytes})", indent=2)
        return Value((BATCH, *table.shape[1:]), "float32", name, 0)

    def _products(
        self, direction: int, x: Value, start: np.ndarray, gates: Sequence[int], sums: range
    ) -> tuple[np.ndarray, Value] | None:
        """The sums (entries, H / 16, sums, 16) that each entry of the table that x is looked up in begins with, and the index."""
        if x.looked_up is None or self.steps > 1:
            return None
        entries, index = x.looked_up
        if entries.nbytes // entries.shape[1] * start.size > MOST_TABLE_BYTES:
            return None
        made = self._lanes_of(entries.astype(np.float64) @ self.columns(self.w[direction], gates).astype(np.float64))
        table = np.repeat(start[None].astype(np.float64), len(entries), 0)
        table[:, :, list(sums)] += made.transpose(1, 0, 2, 3)
        return table.astype(np.float32), index

    def _grouped(self, rows: np.ndarray, gates: Sequence[int]) -> Value:
        """Gate rows (gates * H, K) as columns (H / 16, len(gates), K, 16) in the parameters: those of a group together."""
        return self.program.parameter(self._lanes_of(self.columns(rows, gates)).transpose(0, 2, 1, 3))

    def _lanes_of(self, columns: np.ndarray) -> np.ndarray:
        """Columns (K, gates * width) as (H / 16, K, gates, 16)."""
        return columns.reshape(len(columns), -1, self.width // LANES, LANES).transpose(2, 0, 1, 3)


def _spread(names: Sequence[str], given: list[float], defaults: dict[str, float]) -> list[float]:
    """Values for those activations that take one, in order, at their places."""
    rest = iter(given)
    return [next(rest, defaults[n]) if n in defaults else 0.0 for n in names]
