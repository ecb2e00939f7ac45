"""Sequences that a user brings, as the model takes them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import FrameError
from .sequences import Sequence


def real_sequences(spec: StepSpec, given: Iterable[Any]) -> list[Sequence]:
    """Each sequence as arrays `(T, *frame)` by input: an array where the model has one input, else a dict by name.

    Raises FrameError, with the sequence's place, where names, shapes or dtypes are not the model's, a number is not
    finite, or inputs differ in length.
    """
    return [_sequence(spec, f"sequence {place}", one) for place, one in enumerate(given)]


def load_sequence(path: Path) -> Any:
    """The arrays of a .npy or, by input, of a .npz file; no code in it is run. Raises FrameError."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return found
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError) as error:
        raise FrameError(f"{path}: is not a .npy or .npz file of plain numbers ({error})") from error


def _sequence(spec: StepSpec, where: str, given: Any) -> Sequence:
    named = dict(given) if isinstance(given, Mapping) else {spec.inputs[0].name: given}
    wanted = {t.name for t in spec.inputs}
    if set(named) != wanted:
        raise FrameError(
            f"{where}: has inputs {sorted(named)}, the model takes {sorted(wanted)}; give a dict of arrays by name"
        )
    arrays = {t.name: _array(f"{where}, input '{t.name}'", t.shape, t.dtype, named[t.name]) for t in spec.inputs}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise FrameError(f"{where}: inputs differ in their number of frames: {lengths}")
    return arrays


def _array(where: str, shape: tuple[int, ...], dtype: str, given: Any) -> np.ndarray:
    array = np.asarray(given)
    if array.shape[1:] != shape or array.ndim != len(shape) + 1 or not len(array):
        raise FrameError(
            f"{where}: has shape {array.shape}, expected (T, {', '.join(map(str, shape))}) with T of 1 or more"
        )
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise FrameError(f"{where}: is {array.dtype}, the model takes {dtype}; convert it")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FrameError(f"{where}: has a number that is not finite")
    return array.astype(dtype)
