"""What every wave through ONNX Runtime does with frames and outputs, wherever the states lie."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arena import address
from .artifact import StepSpec

Arrays = dict[str, np.ndarray]


def wave_arrays(
    spec: StepSpec,
    rows: np.ndarray,
    valid: np.ndarray,
    inputs: list[np.ndarray],
    outputs: list[np.ndarray],
    more: Mapping[str, np.ndarray],
) -> tuple[Arrays, Arrays]:
    """By name what a wave over these rows is given, and where ONNX Runtime writes its outputs: in place where that is all rows.

    more: what it is given beside frames. An output that is an input going through is not among them, since ONNX Runtime does not write it.
    """
    whole = len(rows) == len(inputs[0]) and rows[0] == 0 and bool((np.diff(rows) == 1).all())
    given = {t.name: x if whole else x[rows] for t, x in zip(spec.inputs, inputs, strict=True)} | dict(more)
    if spec.valid_input:
        given[spec.valid_input] = np.clip(valid, 0, spec.frames_per_step)
    made = {
        t.name: y if whole else np.empty((len(rows), *y.shape[1:]), y.dtype)
        for t, y in zip(spec.outputs, outputs, strict=True)
        if t.name not in given
    }
    return given, made


def run_bound(session: Any, binding: Any, given: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> None:
    """One call that reads the given arrays and writes the made ones, all in the CPU's memory, without a copy of ours."""
    for name, array in given.items():
        binding.bind_cpu_input(name, array)
    for name, array in made.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, address(array))
    session.run_with_iobinding(binding)


def hand_out(spec: StepSpec, rows: np.ndarray, results: Mapping[str, np.ndarray], outputs: list[np.ndarray]) -> None:
    """Puts a wave's outputs into their rows, where they were not written there."""
    for tensor, array in zip(spec.outputs, outputs, strict=True):
        if results[tensor.name] is not array:
            array[rows] = results[tensor.name]
