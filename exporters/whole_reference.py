"""A whole-sequence ONNX model's outputs, for steps to be compared with."""

from pathlib import Path

import numpy as np

from ..engine.artifact import StepSpec, load_model
from ..engine.errors import ExportError
from .batchwise import time_first
from .joining import Part, tidy
from .sequences import Sequence
from .stepping import Outputs
from .worlds import plain_session


def outputs_of_whole(path: Path, spec: StepSpec, sequences: list[Sequence], time_axis: int) -> Outputs:
    """For each sequence, each output (T', *out) as the model at `path` gives it. Raises ExportError where the two do not belong together.

    Inputs and outputs are matched by name, or where there is one of a kind.
    """
    part = Part(path, time_first(tidy(load_model(path))))
    inputs = _matched(path, "input", [t.name for t in spec.inputs], list(part.inputs))
    outputs = _matched(path, "output", [t.name for t in spec.outputs], list(part.outputs))
    if extra := sorted(set(part.inputs) - set(inputs.values())):
        raise ExportError(
            f"{path.name}: the reference takes '{extra[0]}' too, which no frame goes to; give a model of the frames alone"
        )
    session, results = plain_session(part.model), []
    for sequence in sequences:
        feed = {inputs[n]: _laid(array, len(part.inputs[inputs[n]].dims), time_axis) for n, array in sequence.items()}
        try:
            made = session.run([outputs[t.name] for t in spec.outputs], feed)
        except Exception as error:  # onnxruntime's errors share no base
            shapes = {name: array.shape for name, array in feed.items()}
            raise ExportError(
                f"{path.name}: the reference does not run on inputs of shapes {shapes}: {error}"
            ) from error
        total = spec.outputs_of(len(next(iter(sequence.values()))))
        found = {}
        for tensor, array in zip(spec.outputs, made, strict=True):
            whole = (
                np.moveaxis(np.asarray(array), time_axis, 0)
                if np.asarray(array).ndim > time_axis
                else np.asarray(array)
            )
            if whole.size != total * int(np.prod(tensor.shape)):
                raise ExportError(
                    f"{path.name}: output '{outputs[tensor.name]}' has shape {list(np.asarray(array).shape)} for {len(next(iter(sequence.values())))} frames, "
                    f"the steps give {total} of {list(tensor.shape)}; see reference_time_axis"
                )
            found[tensor.name] = whole.reshape(total, *tensor.shape)
        results.append(found)
    return results


def _matched(path: Path, what: str, wanted: list[str], there: list[str]) -> dict[str, str]:
    if len(wanted) == len(there) == 1:
        return {wanted[0]: there[0]}
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ExportError(f"{path.name}: the reference has no {what} '{missing[0]}'; it has {there}; name them alike")
    return {name: name for name in wanted}


def _laid(frames: np.ndarray, rank: int, time_axis: int) -> np.ndarray:
    """One stream's frames (T, *frame) with the time axis where the model has it, and a batch of one where it has a batch."""
    if rank == frames.ndim:
        return np.moveaxis(frames, 0, time_axis)
    if rank != frames.ndim + 1:
        raise ExportError(
            f"the reference's input has {rank} axes, frames in time have {frames.ndim}, with a batch one more"
        )
    return np.ascontiguousarray(np.moveaxis(frames[:, None], (0, 1), (time_axis, 0 if time_axis else 1)))
