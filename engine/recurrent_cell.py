"""What LSTM, GRU and RNN share: weights of each direction, activations, sums of gates in registers. Formulas: ONNX operator specification."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arguments import text
from .gemm import GATE_ROWS, PANEL, SUMS, group, pack
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
        return self.program.scratch((BATCH, gates * self.width), items=-(-gates * self.width // PANEL) * PANEL)

    def bias(self, vectors: np.ndarray, order: Sequence[int]) -> Value:
        padded = self.columns(vectors.reshape(-1, 1), order).reshape(-1)
        return self.program.parameter(np.concatenate([padded, np.zeros(PANEL, np.float32)]))

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
        order: Sequence[int],
        biases: Sequence[np.ndarray],
        places: Sequence[tuple[str, Value]],
        body: Callable[[list[str]], None],
    ) -> None:
        """For sixteen lanes of each row at a time `body(sums)`, with the sums of x @ w and h @ r in registers.

        order: which gate's weights each of the kind's sums takes. biases: (H,) of each sum. Lanes are the outer loop: a
        group's weights stay in the first caches while all rows go by. Where x is a row of a constant table, its products are
        made here and the sums start from a row of those.
        """
        count, of_x, of_h = SUMS[kind]
        start = np.stack([self.columns(b.reshape(-1, 1), (0,))[0].reshape(-1, LANES) for b in biases], 1)
        table = self._products(direction, x, start, [order[c] for c in of_x], of_x)
        parts = [(self.r[direction], of_h)] if table else [(self.w[direction], of_x), (self.r[direction], of_h)]
        weights = self.program.parameter(self._grouped(parts, order))
        begin = self.program.parameter(start if table is None else table[0])
        say, read = self.program.say, ("h_in",) if table else ("x", "h_in")
        group_bytes = 4 * weights.row_shape[-1]
        whole = f"n - n % {GATE_ROWS}" if GATE_ROWS > 1 else "0"
        for rows, numbers in ((GATE_ROWS, f"0, {whole}"), (1, f"{whole}, n")):
            if rows == 1 and numbers.startswith("0, 0"):
                continue
            say(f"for j in range(0, {4 * self.width}, {4 * LANES}):")
            say(f"for r in range({numbers}, {rows}):", indent=2)
            each = [("h_in", h), *places] if table else [("x", x), ("h_in", h), *places]
            for q in range(rows):
                say(*[f"{name}_at{q} = {value.at(f'(r + {q})')}" for name, value in each], indent=3)
                say(f"start_at{q} = get_int64(c) + {begin.offset} + j * {count}", indent=3)
                if table:
                    index, entries = table[1], len(table[0])
                    place(self.program, index, index.at(f"(r + {q})"), entries, "k", 3)
                    say(f"start_at{q} = start_at{q} + k * {table[0][0].nbytes}", indent=3)
            given = ", ".join([f"{name}_at{q}" for name in (*read, "start") for q in range(rows)])
            how = f"{kind}_gates_{'looked_up_' if table else ''}{'rows' if rows > 1 else 'row'}"
            say(
                f"sums_{rows} = {how}({given}, get_int64(c) + {weights.offset} + j // {4 * LANES} * {group_bytes}, "
                f"{self.inputs}, {self.hidden})",
                indent=3,
            )
            for q in range(rows):
                say(*[f"{name}_at = {name}_at{q}" for name, _ in places], indent=3)
                body([f"sums_{rows}[{q * count + i}]" for i in range(count)])

    def _products(
        self, direction: int, x: Value, start: np.ndarray, gates: Sequence[int], sums: Sequence[int]
    ) -> tuple[np.ndarray, Value] | None:
        """The sums (entries, H / 16, sums, 16) that each entry of the table that x is looked up in begins with, and the index."""
        if x.looked_up is None or self.steps > 1:
            return None
        entries, index = x.looked_up
        if entries.nbytes // entries.shape[1] * start.size > MOST_TABLE_BYTES:
            return None
        w = self.columns(self.w[direction], gates).astype(np.float64)
        made = (entries.astype(np.float64) @ w).reshape(len(entries), len(gates), -1, LANES).transpose(0, 2, 1, 3)
        table = np.repeat(start[None].astype(np.float64), len(entries), 0)
        table[:, :, list(sums)] += made
        return table.astype(np.float32), index

    def _grouped(self, parts: Sequence[tuple[np.ndarray, Sequence[int]]], order: Sequence[int]) -> np.ndarray:
        """Weights (gates * H, K) of each part as (H / 16, K * sums * 16), the parts one behind the other in a group."""
        found = []
        for rows, chosen in parts:
            gates = self.columns(rows, [order[c] for c in chosen])
            found.append(group(gates.reshape(len(gates), len(chosen), self.width)))
        return np.concatenate(found, 1)


def _spread(names: Sequence[str], given: list[float], defaults: dict[str, float]) -> list[float]:
    """Values for those activations that take one, in order, at their places."""
    rest = iter(given)
    return [next(rest, defaults[n]) if n in defaults else 0.0 for n in names]
