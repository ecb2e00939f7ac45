"""Windows that move over feature axes, and pooling: each place's patch is copied together, then reduced."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, floats, text
from .elementwise import pointwise
from .joins import copied
from .program import BATCH, Lowering, Program, Unsupported, Value
from .reductions import reduced
from .shapes import padded


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves over the spatial axes; pads before and after, and how many places there are."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    places: list[int]

    @classmethod
    def of(cls, sizes: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> "Window":
        rank = len(kernel)
        steps, dilations = (list(attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        before, after = _pads(sizes, spans, steps, attributes)
        room = [n + b + a - s for n, b, a, s in zip(sizes, before, after, spans, strict=True)]
        if min(room) < 0:
            raise Unsupported(f"a kernel of {spans} over {list(sizes)}")
        if attributes.get("ceil_mode", 0):
            places = [-(-r // s) + 1 for r, s in zip(room, steps, strict=True)]
            starts = [n + b for n, b in zip(sizes, before, strict=True)]
            places = [p - ((p - 1) * s >= n) for p, s, n in zip(places, steps, starts, strict=True)]
        else:
            places = [r // s + 1 for r, s in zip(room, steps, strict=True)]
        needed = [(p - 1) * s + w for p, s, w in zip(places, steps, spans, strict=True)]
        after = [max(a, w - n - b) for a, w, n, b in zip(after, needed, sizes, before, strict=True)]
        return cls(list(kernel), steps, dilations, before, after, places)

    def patches(self, program: Program, x: Value, channels: int, number: float) -> Value:
        """x (B, C, *sizes) as (B, places, channels, kernel) of the first channels; `number` where x has ended."""
        x = padded(program, x, [0, 0, *self.before], [0, 0, *self.after], np.array(number, np.float32))
        out = program.scratch((BATCH, math.prod(self.places), channels, math.prod(self.kernel)))
        copied(
            program,
            out,
            x,
            [*self.over(self.places, self.strides), (channels, 1, 1), *self.over(self.kernel, self.dilations)],
        )
        return out

    @staticmethod
    def over(sizes: Sequence[int], steps: Sequence[int]) -> list[tuple[int, int, int]]:
        """Dimensions that move along the spatial axes, for `copied`."""
        return [(n, 2 + i, step) for i, (n, step) in enumerate(zip(sizes, steps, strict=True))]


def _pads(
    sizes: Sequence[int], spans: Sequence[int], steps: Sequence[int], attributes: Attributes
) -> tuple[list[int], list[int]]:
    rank, auto = len(spans), text(attributes, "auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = list(attributes.get("pads", [])) if auto == "NOTSET" else []
        pads = pads or [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    total = [max((-(-n // s) - 1) * s + w - n, 0) for n, s, w in zip(sizes, steps, spans, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def spatial(inputs: Inputs) -> Value:
    """An input (B, channels, *sizes)."""
    x = floats(inputs)
    if x.shape[0] != BATCH or len(x.shape) < 3:
        raise Unsupported(f"a window over {x.shape}; expected the batch axis, channels, then spatial axes")
    return x


def pooling(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, kind = spatial(inputs), node.op_type
    if len([o for o in node.output if o]) > 1:
        raise Unsupported("the places of the largest")
    window = Window.of(x.shape[2:], attributes["kernel_shape"], attributes)
    channels, places, size = x.shape[1], math.prod(window.places), math.prod(window.kernel)
    patches = window.patches(program, x, channels, -math.inf if kind == "MaxPool" else 0.0)
    value = reduced(program, "max" if kind == "MaxPool" else "sum", patches, places * channels, size)
    out = program.scratch((BATCH, channels, *window.places))
    program.strided(out, value, [channels, places], [places, 1], [1, channels])
    if kind == "MaxPool":
        return [out]
    counts = _counts(window, x.shape[2:], attributes)
    return [pointwise(program, "Div", [out, program.parameter(counts)])]


def _counts(window: Window, sizes: Sequence[int], attributes: Attributes) -> np.ndarray:
    """How many entries an average is over, (1, 1, *places)."""
    total = np.ones((), np.float32)
    rank = len(sizes)
    pads, include = list(attributes.get("pads", [0] * 2 * rank)), attributes.get("count_include_pad", 0)
    for i, n in enumerate(sizes):
        first = np.arange(window.places[i])[:, None] * window.strides[i] - window.before[i]
        at = first + np.arange(window.kernel[i]) * window.dilations[i]
        after = pads[rank + i] if text(attributes, "auto_pad", "NOTSET") == "NOTSET" else window.after[i]
        low, high = (-window.before[i], n + after) if include else (0, n)
        total = total[..., None] * ((at >= low) & (at < high)).sum(axis=1).astype(np.float32)
    return total.reshape(1, 1, *total.shape)


WINDOWS: dict[str, Lowering] = {
    "MaxPool": pooling,
    "AveragePool": pooling,
}
