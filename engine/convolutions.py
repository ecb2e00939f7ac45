"""Convolutions over feature axes: each place's patch is copied together, then multiplied; transposed, the other way round."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, optional, text
from .gemm import pack
from .joins import copied, pieces_of, whole
from .products import multiplied
from .program import BATCH, Lowering, Program, Unsupported, Value, view
from .shapes import padded
from .simd import LANES
from .windows import Window, spatial


def convolution(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, w = spatial(inputs), constant(inputs, 1, "weights")
    groups, per_group = attributes.get("group", 1), w.shape[1]
    bias = constant(inputs, 2, "biases") if optional(inputs, 2) else np.zeros(w.shape[0], np.float32)
    if x.shape[1] != groups * per_group or w.shape[0] % groups:
        raise Unsupported(f"weights {w.shape} in {groups} groups for {x.shape[1]} channels")
    window = Window.of(x.shape[2:], w.shape[2:], attributes)
    if x.pieces and (any((*window.before, *window.after)) or x.pieces[0] < 2):
        x = whole(program, x)
    x = padded(program, x, [0, 0, *window.before], [0, 0, *window.after], np.zeros((), np.float32))
    window = replace(window, before=[0] * (w.ndim - 2), after=[0] * (w.ndim - 2))
    if per_group == 1 and groups > 1:
        return [_each_channel(program, x, w, bias, window)]
    return [_grouped(program, x, w.reshape(groups, -1, *w.shape[1:]), bias.reshape(groups, -1), window)]


def _grouped(program: Program, x: Value, w: np.ndarray, bias: np.ndarray, window: Window) -> Value:
    """w (groups, maps, channels, *kernel), bias (groups, maps)."""
    groups, maps, channels = w.shape[:3]
    places, inner = math.prod(window.places), w[0, 0].size
    packed = program.parameter(np.stack([pack(part.reshape(maps, inner).T) for part in w]))
    start = program.parameter(_wide(bias, packed.shape[1] * packed.shape[3]))
    out = program.scratch((BATCH, groups * maps, *window.places))
    with program.loop("group", range(groups)):
        patches = view(window.patches(program, _of_group(x, channels), channels, 0), (BATCH, places, inner))
        each = [v.moved("group", v.item * v.const[0].size) for v in (packed, start) if v.const is not None]
        z = multiplied(program, patches, each[0], each[1], inner, maps)
        program.strided(out.moved("group", 4 * maps * places), z, [maps, places], [places, 1], [1, maps])
    return out


def _of_group(x: Value, channels: int) -> Value:
    """The channels of a loop's group on, wherever they lie."""
    if x.pieces is None:
        return x.moved("group", channels * x.row_strides[1] * x.item)
    axis, pieces = pieces_of(x)
    return replace(x, pieces=(axis, tuple(p._replace(value=_of_group(p.value, channels)) for p in pieces)))


def _wide(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows filled up with zeros."""
    out = np.zeros((len(rows), width), np.float32)
    out[:, : rows.shape[1]] = rows
    return out


def _each_channel(program: Program, x: Value, w: np.ndarray, bias: np.ndarray, window: Window) -> Value:
    """Depthwise: sixteen channels at a time, a fused multiply-add for each entry of the kernel."""
    channels, places, taps = x.shape[1], math.prod(window.places), math.prod(window.kernel)
    many, out = w.shape[0] // channels, program.scratch((BATCH, w.shape[0], *window.places))
    patches = program.scratch((BATCH, places, taps, channels))
    walk = [*window.over(window.places, window.strides), *window.over(window.kernel, window.dilations)]
    copied(program, patches, x, [*walk, (channels, 1, 1)])
    z = program.scratch((BATCH, places, channels))
    for m in range(many):
        weights, start = program.parameter(w[m::many].reshape(channels, taps).T), program.parameter(bias[m::many])
        program.rows()
        program.say(f"o = {z.at()}", f"a = {patches.at()}", f"e = {weights.at()}", f"b = {start.at()}", indent=2)
        program.say(f"for i in range({places}):", f"    for j in range(0, {4 * channels}, {4 * LANES}):", indent=2)
        program.say("part = load(b + j)", f"for k in range({taps}):", indent=4)
        row = 4 * channels
        program.say(f"part = vfma(load(a + (i * {taps} + k) * {row} + j), load(e + k * {row} + j), part)", indent=5)
        program.say(f"store(o + i * {row} + j, part)", indent=4)
        program.strided(out, z, [channels, places], [many * places, 1], [1, channels], (m * places, 0))
    return out


def transposed_convolution(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Every entry times the whole kernel, added where it reaches; the places in order."""
    x, w = spatial(inputs), constant(inputs, 1, "weights")
    rank, groups, maps = w.ndim - 2, attributes.get("group", 1), w.shape[1]
    if text(attributes, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in attributes:
        raise Unsupported("a transposed convolution whose padding is computed; give it as pads")
    steps, dilations = (list(attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
    pads = list(attributes.get("pads", [0] * 2 * rank))
    more = list(attributes.get("output_padding", [0] * rank))
    sizes, kernel = x.shape[2:], w.shape[2:]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    reach = [(n - 1) * s + span + m for n, s, span, m in zip(sizes, steps, spans, more, strict=True)]
    results = [r - pads[i] - pads[rank + i] for i, r in enumerate(reach)]
    bias = constant(inputs, 2, "biases") if optional(inputs, 2) else np.zeros(groups * maps, np.float32)
    w = w.reshape(groups, -1, *w.shape[1:])
    channels, size = w.shape[1], math.prod(sizes)
    out = program.scratch((BATCH, groups * maps, *results))
    for g in range(groups):
        part = program.scratch((BATCH, size, channels))
        program.strided(part, x, [size, channels], [channels, 1], [1, size], (0, g * channels * size))
        taps = np.moveaxis(w[g], 1, -1).reshape(channels, -1)  # (channels, *kernel, maps)
        packed = program.parameter(pack(taps))
        start = program.parameter(np.zeros(packed.shape[0] * packed.shape[2], np.float32))
        z = multiplied(program, part, packed, start, channels, taps.shape[1])
        first = program.parameter(np.tile(bias[g * maps : (g + 1) * maps], math.prod(results)))
        total = program.scratch((BATCH, math.prod(results), maps))
        program.strided(total, first, [total.size], [1], [1])
        _add_where_it_reaches(program, total, z, sizes, kernel, (steps, dilations, pads[:rank]), results)
        count = math.prod(results)
        program.strided(out, total, [maps, count], [count, 1], [1, maps], (g * maps * count, 0))
    return [out]


def _add_where_it_reaches(
    program: Program,
    total: Value,
    z: Value,
    sizes: Sequence[int],
    kernel: Sequence[int],
    how: tuple[list[int], list[int], list[int]],
    results: Sequence[int],
) -> None:
    """total[p * stride + k * dilation - pad] += z[p, k] for each place p and entry k of the kernel, `maps` numbers at a time."""
    maps, indent, inside = total.shape[-1], 2, []
    program.rows()
    program.say(f"o = {total.at()}", f"a = {z.at()}", indent=2)
    source, target = "0", "0"
    for i, n in enumerate((*sizes, *kernel)):
        program.say(f"for i{i} in range({n}):", indent=indent)
        source, indent = f"({source}) * {n} + i{i}", indent + 1
    for i, (step, dilation, pad) in enumerate(zip(*how, strict=True)):
        program.say(f"t{i} = i{i} * {step} + i{i + len(sizes)} * {dilation} - {pad}", indent=indent)
        inside.append(f"0 <= t{i} < {results[i]}")
        target = f"({target}) * {results[i]} + t{i}"
    program.say(f"if {' and '.join(inside)}:", indent=indent)
    program.say(f"to, of = o + ({target}) * {4 * maps}, a + ({source}) * {4 * maps}", indent=indent + 1)
    whole, rest = maps - maps % LANES, maps % LANES
    if whole:
        program.say(f"for j in range(0, {4 * whole}, {4 * LANES}):", indent=indent + 1)
        program.say("store(to + j, load(to + j) + load(of + j))", indent=indent + 2)
    if rest:
        program.say(
            f"store_some(to + {4 * whole}, load(to + {4 * whole}) + load(of + {4 * whole}), {rest})", indent=indent + 1
        )


CONVOLUTIONS: dict[str, Lowering] = {"Conv": convolution, "ConvTranspose": transposed_convolution}
