"""Where: one of two values by a mask, whole runs of memory at a time where the mask is spread over trailing axes."""

from typing import Any

from .arguments import Attributes, Inputs, given
from .elementwise import common_shape, pointwise
from .program import BATCH, Lowering, Program, Value
from .simd import LANES


def chosen(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    mask, x, y = (given(inputs, i) for i in range(3))
    if mask.dtype != "bool" or x.dtype != "float32" or y.dtype != "float32":
        return [pointwise(program, "Where", [mask, x, y])]
    shape = common_shape([mask, x, y])
    operands, out = [program.placed(program.broadcast(v, shape)) for v in (x, y)], program.scratch(shape)
    run = _run(mask, shape)
    if run > 1:
        _by_runs(program, out, program.placed(mask), operands, run)
    else:
        _by_lanes(program, out, program.padded(program.broadcast(mask, shape)), [program.padded(v) for v in operands])
    return [out]


def _run(mask: Value, shape: tuple[int, ...]) -> int:
    """How many elements in a row take one entry of the mask; 1 where its entries do not just repeat along the last axes."""
    have = [d for d, w in zip((1,) * (len(shape) - len(mask.shape)) + mask.shape, shape, strict=True) if w != BATCH]
    want = [d for d in shape if d != BATCH]
    run = 1
    while have and have[-1] in (1, BATCH):
        run *= want.pop()
        have.pop()
    return run if have == want else 1


def _by_runs(program: Program, out: Value, mask: Value, operands: list[Value], run: int) -> None:
    program.rows()
    addresses = [f"a{i} = {v.at()}" for i, v in enumerate(operands)]
    program.say(f"o = {out.at()}", f"e = {mask.at()}", *addresses, f"for i in range({mask.size}):", indent=2)
    for i, (v, test) in enumerate(zip(operands, ("if get_bool(e + i):", "else:"), strict=True)):
        program.say(test, indent=3)
        if v.size == 1:
            program.say(
                f"for j in range(0, {4 * run}, {4 * LANES}):", indent=4
            )  # past its end comes the next run, later
            program.say(f"store(o + i * {4 * run} + j, splat(get_float32(a{i})))", indent=5)
        else:
            program.say(f"copy_bytes(o + i * {4 * run}, a{i} + i * {4 * run}, {4 * run})", indent=4)


def _by_lanes(program: Program, out: Value, mask: Value, operands: list[Value]) -> None:
    program.rows()
    program.say(f"o = {out.at()}", f"e = {mask.at()}", *[f"a{i} = {v.at()}" for i, v in enumerate(operands)], indent=2)
    names = [
        f"splat(get_float32(a{i}))" if v.size == 1 < out.size else f"load(a{i} + j)" for i, v in enumerate(operands)
    ]
    program.say(f"for j in range(0, {4 * out.size}, {4 * LANES}):", indent=2)
    program.say(f"store(o + j, where_set(e + j // 4, {names[0]}, {names[1]}))", indent=3)


MASKS: dict[str, Lowering] = {"Where": chosen}
