"""Lowerings of LSTM, GRU and RNN: a step's frames of each stream, all standard attributes. Formulas: ONNX operator specification."""

from typing import Any

import numpy as np

from .passage import Moment, Passage
from .program import Program, Unsupported, Value
from .recurrent_cell import Cell, activation


def lstm(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    cell = Cell(program, inputs, attributes, 4, ("Sigmoid", "Tanh", "Tanh"))
    old_c = (inputs + [None] * 8)[6] or program.parameter(np.zeros((cell.directions, cell.hidden), np.float32))
    peep = (inputs + [None] * 8)[7]
    if peep is not None and peep.const is None:
        raise Unsupported("weights that are computed")
    passage = Passage(cell, old_c)
    for d in range(cell.directions):
        bias = (cell.b[d][: 4 * cell.hidden] + cell.b[d][4 * cell.hidden :]).reshape(4, -1)
        with passage.through(d) as at:
            places = [("old_c", at.old_c), ("h_out", at.new_h), ("c_out", at.new_c)]
            if peep is not None and peep.const is not None:
                places.append(("peep", cell.bias(peep.const[d], (0, 1, 2))))

            def body(z: list[str], d: int = d, c: Value = at.old_c) -> None:
                seen = [f" + load(peep_at + j + {4 * cell.width * g}) * " if peep else "" for g in range(3)]
                program.say(f"old = {cell.take('old_c', c)}", indent=3)
                program.say(f"i = {cell.act(d, 0, z[0] + (seen[0] and seen[0] + 'old'))}", indent=3)
                kept = (
                    "ONE() - i"
                    if attributes.get("input_forget")
                    else cell.act(d, 0, z[2] + (seen[2] and seen[2] + "old"))
                )
                program.say(f"f = {kept}", indent=3)
                program.say(f"g = {cell.act(d, 1, z[3])}", "new = f * old + i * g", indent=3)
                program.say(f"o = {cell.act(d, 0, z[1] + (seen[1] and seen[1] + 'new'))}", indent=3)
                name, alpha, beta = cell.functions[d * 3 + 2]
                program.say(
                    "store(c_out_at + j, new)",
                    f"store(h_out_at + j, o * {activation(program, name, 'new', alpha, beta)})",
                    indent=3,
                )

            cell.each_group("lstm", d, at.x, at.old_h, bias, places, body)
    return passage.outputs()


def gru(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    cell = Cell(program, inputs, attributes, 3, ("Sigmoid", "Tanh"))
    passage = Passage(cell)
    direction = _gru_reset_after if attributes.get("linear_before_reset", 0) else _gru_reset_before
    for d in range(cell.directions):
        with passage.through(d) as at:
            direction(cell, d, at)
    return passage.outputs()


def _gru_reset_before(cell: Cell, d: int, at: Moment) -> None:
    program, size, step, h = cell.program, cell.hidden, 4 * cell.width, at.old_h
    zr, xn, hn = cell.room(2), cell.room(1), cell.room(1)
    w, r, bias = cell.w[d], cell.r[d], cell.b[d][: 3 * size] + cell.b[d][3 * size :]
    cell.multiply(zr, at.x, cell.bias(bias, (0, 1)), cell.columns(w, (0, 1)))
    cell.multiply(zr, h, zr, cell.columns(r, (0, 1)))
    cell.multiply(xn, at.x, cell.bias(bias, (2,)), cell.columns(w, (2,)))
    cell.lanes(("zr", zr), ("h_in", h), ("reset", hn))
    reset = cell.act(d, 0, f"load(zr_at + j + {step})")
    program.say(f"store(reset_at + j, {reset} * {cell.take('h_in', h)})", indent=3)
    cell.multiply(xn, hn, xn, cell.columns(r, (2,)))
    cell.lanes(("zr", zr), ("xn", xn), ("h_in", h), ("h_out", at.new_h))
    program.say(f"update = {cell.act(d, 0, 'load(zr_at + j)')}", indent=3)
    program.say(f"new = {cell.act(d, 1, 'load(xn_at + j)')}", indent=3)
    program.say(f"store(h_out_at + j, (ONE() - update) * new + update * {cell.take('h_in', h)})", indent=3)


def _gru_reset_after(cell: Cell, d: int, at: Moment) -> None:
    """torch's and cuDNN's: the reset gate takes the product with the state, not the state."""
    program, h = cell.program, at.old_h
    w_bias, r_bias = cell.b[d].reshape(2, 3, -1)
    bias = [w_bias[2], w_bias[1] + r_bias[1], w_bias[0] + r_bias[0], r_bias[2]]

    def body(z: list[str]) -> None:
        program.say(f"reset = {cell.act(d, 0, z[1])}", indent=3)
        program.say(f"update = {cell.act(d, 0, z[2])}", indent=3)
        program.say(f"new = {cell.act(d, 1, f'{z[0]} + reset * {z[3]}')}", indent=3)
        program.say(f"store(h_out_at + j, (ONE() - update) * new + update * {cell.take('h_old', h)})", indent=3)

    places = [("h_old", h), ("h_out", at.new_h)]
    cell.each_group("gru", d, at.x, h, bias, places, body)


def rnn(program: Program, node: Any, inputs: list[Value | None], attributes: dict[str, Any]) -> list[Value]:
    cell = Cell(program, inputs, attributes, 1, ("Tanh",))
    passage = Passage(cell)
    for d in range(cell.directions):
        bias = cell.bias(cell.b[d][: cell.hidden] + cell.b[d][cell.hidden :], (0,))
        with passage.through(d) as at:
            z = cell.room(1)
            cell.multiply(z, at.x, bias, cell.columns(cell.w[d], (0,)))
            cell.multiply(z, at.old_h, z, cell.columns(cell.r[d], (0,)))
            cell.lanes(("z", z), ("h_out", at.new_h))
            program.say(f"store(h_out_at + j, {cell.act(d, 0, 'load(z_at + j)')})", indent=3)
    return passage.outputs()
