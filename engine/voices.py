"""Models that can feed themselves: token ids in, logits over as many tokens out."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .artifact import StepSpec, TensorSpec


@dataclass(frozen=True, slots=True)
class Voices:
    """The inputs that generation feeds, in the model's order; pairs: the place of each one's output among the outputs.

    sizes: entries of each output. limits: tokens of a prompt are below them. beside: outputs that are no voice's, and bytes of one row of each.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    limits: tuple[int, ...]
    beside: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def voices_of(spec: StepSpec, limits: Mapping[str, int]) -> Voices | str:
    """The model's voices, or why it has none. limits: of inputs that are an index into a table, how many entries that has."""
    have = f"the model has inputs {_named(spec.inputs)} and outputs {_named(spec.outputs)}"
    if not spec.at_once:
        return (
            "generation needs a step graph that answers each token at once: no delay, one frame and one output a step"
        )
    wrong = [t for t in spec.inputs if t.shape or t.dtype not in ("int64", "int32")]
    logits = spec.outputs[: len(spec.inputs)]
    wrong += [t for t in logits if len(t.shape) != 1 or t.shape[0] < 2 or t.dtype != "float32"]
    if wrong or len(spec.inputs) > len(spec.outputs):
        return f"generation needs integer inputs of shape () and for each one output of logits, float32 (V,), before all other outputs; {have}"
    outputs = paired([t.name for t in spec.inputs], [t.name for t in logits])
    sizes = tuple(spec.outputs[y].shape[0] for y in outputs)
    entries = tuple(limits.get(t.name, size) for t, size in zip(spec.inputs, sizes, strict=True))
    for t, size, limit in zip(spec.inputs, sizes, entries, strict=True):
        if limit < size:
            return f"generation needs every output to be an input: '{t.name}' takes {limit} tokens, its logits have {size}; {have}"
    others = spec.outputs[len(logits) :]
    beside = [(i, math.prod(t.shape) * np.dtype(t.dtype).itemsize) for i, t in enumerate(others, len(logits))]
    return Voices(tuple(t.name for t in spec.inputs), tuple(enumerate(outputs)), sizes, entries, tuple(beside))


def paired(inputs: list[str], outputs: list[str]) -> list[int]:
    """The place of each input's output: the one whose name has the input's among its words, where that tells all of them
    apart ('bass' and 'bass_logits'); else the order."""
    words = [set(re.split(r"[._/ -]+", name)) for name in outputs]
    found = [[i for i, each in enumerate(words) if name in each] for name in inputs]
    if all(len(f) == 1 for f in found) and len({f[0] for f in found}) == len(inputs):
        return [f[0] for f in found]
    return list(range(len(inputs)))


def _named(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"'{t.name}' {t.dtype} {t.shape}" for t in tensors)
