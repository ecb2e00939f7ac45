"""A whole-sequence ONNX model, from any framework, to a step artifact."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from ..engine.artifact import Origin, StepSpec, TensorSpec, load_model
from ..engine.errors import ExportError
from .approximating import approximated
from .batchwise import time_first
from .finishing import Asked, Reference, finished, rows
from .joining import Part, Port, at_opset, opset, tidy
from .plain import pruned
from .report import ExportReport
from .sequence_export import to_sequence
from .sequences import Draw, draws
from .sequences import Sequence as Frames
from .step_graph import Bounds, dtype_name
from .step_pass import Step, to_step
from .worlds import plain_session

OLDEST_OPSET = 18
Feed = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Whole:
    """The model as it was read, and where all of its inputs have batch and time. frames: by input, one frame's shape."""

    path: Path
    model: onnx.ModelProto
    batch_axis: int
    time_axis: int
    frames: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Axes:
    """Where the inputs have time and batch (None: in front of time, or after it where that is first), and the shapes of frames, by input."""

    time: int
    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]


def convert(source: str | os.PathLike[str], asked: Asked, axes: Axes, bounds: Bounds) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.convert`."""
    asked.check()
    time_axis, batch_axis = axes.time, (0 if axes.time else 1) if axes.batch is None else axes.batch
    if time_axis < 0 or batch_axis < 0 or time_axis == batch_axis:
        raise ExportError(
            f"time_axis is {time_axis} and batch_axis {batch_axis}, expected two different axes, counted from 0"
        )
    whole = _read(Path(source), batch_axis, time_axis, axes.shapes)
    asked.say("the step graph")
    free, step = _stepped(whole, asked.frames_per_step, bounds)
    return finished(step, asked, _origin(whole.model), _reference(whole, free, step, bounds))


def _reference(whole: Whole, free: onnx.ModelProto, step: Step, bounds: Bounds) -> Reference:
    """What the steps must give: the model's own outputs, or those of the model as it was asked to be approximated."""
    session = plain_session(whole.model)
    runtime = f"ONNX Runtime {onnxruntime.__version__}, {whole.path.name}"

    def exact(sequence: Frames) -> dict[str, np.ndarray]:
        return _by_runtime(session, whole, step, sequence)

    if step.running:
        return Reference(f"{runtime} at each sequence's end", "model", {}, exact, last=True)
    other = approximated(free, step, bounds)
    if other is None:
        return Reference(f"{runtime} on the whole sequence", "model", {}, exact)
    held = plain_session(other.model)
    return Reference(
        f"{runtime} with {other.words}",
        "model",
        {},
        lambda sequence: _by_runtime(held, whole, step, sequence),
        exact,
        other.asked,
    )


def _read(path: Path, batch_axis: int, time_axis: int, shapes: Mapping[str, tuple[int, ...]]) -> Whole:
    part = Part(path, time_first(tidy(load_model(path))))
    if unknown := sorted(set(shapes) - set(part.inputs)):
        raise ExportError(f"shapes: there is no input '{unknown[0]}'; the graph has {sorted(part.inputs)}")
    frames = {n: _frame(path, p, batch_axis, time_axis, shapes.get(n)) for n, p in part.inputs.items()}
    return Whole(path, part.model, batch_axis, time_axis, frames)


def _frame(path: Path, port: Port, batch: int, time_axis: int, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one frame. Raises ExportError where the input has no batch and time axis of free size."""
    if len(port.dims) <= max(batch, time_axis):
        raise ExportError(
            f"{path.name}: input {port.text} has no batch axis {batch} and time axis {time_axis}; every input must be frames. "
            "Initial states are the engine's business: export the model without them; see time_axis and batch_axis"
        )
    if isinstance(port.dims[time_axis], int):
        raise ExportError(
            f"{path.name}: input {port.text}: the time axis {time_axis} is fixed at {port.dims[time_axis]} frames; export it with a free length (dynamic_axes)"
            ", or use `adopt` if the graph is a step already"
        )
    if isinstance(port.dims[batch], int) and port.dims[batch] != 1:
        raise ExportError(
            f"{path.name}: input {port.text}: axis {batch} is fixed at {port.dims[batch]}, expected a batch of free size or 1; see batch_axis"
        )
    features = [d for i, d in enumerate(port.dims) if i not in (batch, time_axis)]
    if given is not None and (
        len(given) != len(features) or any(isinstance(d, int) and d != g for d, g in zip(features, given, strict=True))
    ):
        raise ExportError(f"shapes: a frame of input {port.text} is {features}, {list(given)} was given")
    features = list(given) if given is not None else features
    if any(isinstance(d, str) for d in features):
        raise ExportError(
            f"{path.name}: input {port.text}: a frame has an axis of no fixed size; say one frame's shape, as in shapes={{'{port.name}': (..)}}"
        )
    return tuple(int(d) for d in features)


def _stepped(whole: Whole, frames_per_step: int, bounds: Bounds) -> tuple[onnx.ModelProto, Step]:
    """The model with free sizes, and its step graph."""
    feed = _feeds(whole)
    model = _any_batch(whole, feed)
    if bounds.whole:
        return model, to_sequence(model, feed, time_axis=whole.time_axis, batch_axis=whole.batch_axis)
    step = to_step(
        model,
        feed,
        time_axis=whole.time_axis,
        batch_axis=whole.batch_axis,
        frames_per_step=frames_per_step,
        bounds=bounds,
    )
    return model, step


def _any_batch(whole: Whole, feed: Callable[[int, int], Feed]) -> onnx.ModelProto:
    """The model with free sizes. With a fixed batch of 1 its reshapes are freed first, for they may swallow a batch without a word."""
    as_is = _free(at_opset(whole.model, OLDEST_OPSET, whole.path), whole)
    freed = _free_reshapes(as_is, whole.batch_axis)
    fixed = any(isinstance(p.dims[whole.batch_axis], int) for p in Part(whole.path, whole.model).inputs.values())
    model, other = (freed, as_is) if fixed else (as_is, freed)
    try:
        _check_runs(model, feed)
    except ExportError:
        _check_runs(other, feed)
        return other
    return model


def _check_runs(model: onnx.ModelProto, feed: Callable[[int, int], Feed]) -> None:
    """Raises ExportError where three streams of no length run together."""
    session, failed = plain_session(model), None
    for length in (24, 60, 240, 1008, 4032, 16_128):
        try:
            session.run(None, feed(3, length))
        except Exception as error:  # onnxruntime's errors share no base
            failed = failed or error
        else:
            return
    raise ExportError(
        f"the model does not run on a batch of three streams: {failed}; export it with a batch axis of free size"
    )


def _free(model: onnx.ModelProto, whole: Whole) -> onnx.ModelProto:
    """The model with batch and time of free size, and no notes on shapes that say otherwise."""
    result = pruned(model)
    kept = list(result.graph.input)
    del result.graph.input[:]
    for value in kept:
        dims: list[int | str] = list(whole.frames[value.name])
        for axis, name in sorted([(whole.batch_axis, "batch"), (whole.time_axis, "time")]):
            dims.insert(axis, name)
        result.graph.input.append(
            onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims)
        )
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    return result


def _free_reshapes(model: onnx.ModelProto, batch_axis: int) -> onnx.ModelProto:
    """Reshapes to constant sizes that have a 1 where the batch is take the size that is there."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {t.name: t for t in result.graph.initializer}
    constants |= {
        n.output[0]: a.t for n in result.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    for node in result.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            sizes = numpy_helper.to_array(constants[node.input[1]]).copy()
            if len(sizes) > batch_axis and sizes[batch_axis] == 1:
                sizes[batch_axis] = 0
                node.input[1] = f"{node.output[0]}.sizes"
                result.graph.initializer.append(numpy_helper.from_array(sizes, node.input[1]))
    return result


def _feeds(whole: Whole) -> Callable[[int, int], Feed]:
    """Random inputs of a batch and a length, in the range that the model takes."""
    ports = Part(whole.path, whole.model).inputs
    tensors = tuple(TensorSpec(name, shape, dtype_name(ports[name].dtype)) for name, shape in whole.frames.items())
    ways = draws(StepSpec(tensors, tensors, ()), whole.model, {})

    def feed(batch: int, length: int) -> Feed:
        rng = np.random.default_rng((batch, length))
        return {name: _laid(_streams(way, rng, batch, length), whole) for name, way in ways.items()}

    return feed


def _streams(way: Draw, rng: np.random.Generator, batch: int, length: int) -> np.ndarray:
    return np.stack([way.sequence(rng, length) for _ in range(batch)])


def _laid(streams: np.ndarray, whole: Whole) -> np.ndarray:
    """(B, T, *frame) with the axes where the model has them."""
    return np.ascontiguousarray(np.moveaxis(streams, (0, 1), (whole.batch_axis, whole.time_axis)))


def _by_runtime(
    session: onnxruntime.InferenceSession, whole: Whole, step: Step, sequence: Frames
) -> dict[str, np.ndarray]:
    """What the model as it was read gives for the whole sequence, alone."""
    made = session.run(list(step.sources.values()), {n: _laid(array[None], whole) for n, array in sequence.items()})
    return rows(step, dict(zip(step.sources, map(np.asarray, made), strict=True)))


def _origin(model: onnx.ModelProto) -> Origin:
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
    maker = f"{model.producer_name or 'onnx'} {model.producer_version}".strip()
    versions = {"onnx": version("onnx"), "undertow": version("undertow"), "onnxruntime": onnxruntime.__version__}
    return Origin(maker, versions | {"opset": str(opset(model))}, digest)
