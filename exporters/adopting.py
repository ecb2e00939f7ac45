"""A graph that is one step already, or several in a chain, to a step artifact."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from ..engine.artifact import Artifact, Origin, make_artifact, write_artifact
from ..engine.errors import ArtifactError, ExportError
from .batching import Batched, batched, draw
from .boundary import bounded, output_places
from .finishing import check_labels
from .hand_loop import Loop
from .joining import Part, Port, at_opset, joined, opset, read_parts
from .layer_checks import check_changes, check_directions
from .parity import SEEDS, Comparison, compare, lengths_for
from .placing import Axes, Place, frame_place, state_places
from .report import ExportReport
from .roles import Roles, Wishes, roles_of
from .sequences import draws, random_sequences
from .stepping import Outputs
from .whole_reference import outputs_of_whole

BACKENDS = ("engine:ort", "engine:numba")  # what the certificate is about, see `parity.compare`
OLDEST_OPSET = 11  # before it, Slice and Pad have their sizes in attributes
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def adopt(
    source: Paths,
    path: str | os.PathLike[str],
    *,
    wishes: Wishes,
    axes: Axes,
    constants: Mapping[str, Any],
    initial: Mapping[str, Any],
    reference: str | os.PathLike[str] | None,
    reference_time_axis: int,
    sample_rate_hz: float | None,
    labels: Sequence[str] | None,
) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.adopt`."""
    began, path = time.monotonic(), Path(path)
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the folder does not exist; make it first")
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    parts = tuple(
        replace(p, model=at_opset(p.model, OLDEST_OPSET, p.path)) for p in read_parts([Path(s) for s in sources])
    )
    roles = roles_of(parts, wishes)
    ports = {name: port for part in parts for name, port in part.inputs.items()}
    _check_options(roles, axes, initial)
    fixed = {name: _constant(ports[name], value) for name, value in constants.items()}
    frames = [frame_place(ports[name], axes) for name in roles.frames]
    first = {name: np.asarray(value) for name, value in initial.items()}
    states = [state_places(ports[n], [ports[f] for f in roles.frames], axes, first.get(n)) for n in roles.states]
    model = _with_constants(joined(parts, roles.links), fixed, ports, frames)
    model = _giving(model, [*roles.outputs, *roles.states.values()])
    graph = batched(model, frames, states, list(dict.fromkeys([*roles.outputs, *roles.states.values()])))
    notes = check_directions(graph.model, list(roles.states))
    check_changes(graph.model, roles.states, draw(list(graph.inputs.values()), np.random.default_rng(1)))
    outputs = output_places(graph, roles.outputs, axes)
    starts = {name: _initial(graph.inputs[name], first[name]) for name in roles.states if name in first}
    step, spec = bounded(graph, roles, axes, outputs, starts)
    spec = msgspec.structs.replace(
        spec, origin=_origin(parts), sample_rate_hz=sample_rate_hz, labels=None if labels is None else tuple(labels)
    )
    check_labels(spec)
    try:
        artifact = make_artifact(step, spec, path)
    except ArtifactError as error:
        raise ExportError(f"the step graph is not a valid artifact: {error}") from error
    loop = _loop(parts, roles, axes, graph, outputs, starts, fixed)
    lines = _certified(artifact, loop, reference, reference_time_axis)
    spec = msgspec.structs.replace(spec, certificate=tuple(line.as_parity() for line in lines if not line.problem))
    write_artifact(path, step, spec)
    notes += _notes(graph, lines)
    return ExportReport(path, spec, spec.certificate, tuple(notes), path.stat().st_size, time.monotonic() - began)


def _check_options(roles: Roles, axes: Axes, initial: Mapping[str, Any]) -> None:
    checks = [
        ("overlap", axes.overlap, roles.frames, "frame input"),
        ("initial", initial, roles.states, "state"),
        ("shapes", axes.shapes, (*roles.frames, *roles.states), "frame input or state"),
        ("batch_axes", axes.batch, (*roles.frames, *roles.states), "frame input or state"),
    ]
    for option, given, known, what in checks:
        for name in given:
            if name not in known:
                raise ExportError(f"{option}: '{name}' is no {what}; those are {sorted(known)}")
    for option, count in (("frames_per_step", axes.frames_per_step), ("outputs_per_step", axes.outputs_per_step)):
        if count < 1:
            raise ExportError(f"{option} is {count}, expected 1 or more")
    if axes.outputs_per_step > 1 and axes.frames_per_step == 1 and axes.time is None:
        raise ExportError(f"outputs_per_step is {axes.outputs_per_step}: say which axis they are on, as in time_axis=1")


def _constant(port: Port, value: Any) -> np.ndarray:
    """The value as the graph's input takes it; axes of no fixed size have 1, or the value's own."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ExportError(f"constants: '{port.name}' is {value!r}, expected a number or an array of numbers")
    shape = tuple(d if isinstance(d, int) else 1 for d in port.dims)
    if array.ndim == len(port.dims) and all(
        isinstance(d, str) or d == s for d, s in zip(port.dims, array.shape, strict=True)
    ):
        return array.astype(port.dtype)
    if array.size != 1:
        raise ExportError(f"constants: '{port.name}' has shape {list(array.shape)}, the graph takes {port.text}")
    return np.full(shape, array.reshape(()), port.dtype)


def _with_constants(
    model: onnx.ModelProto, constants: Mapping[str, np.ndarray], ports: Mapping[str, Port], frames: Sequence[Place]
) -> onnx.ModelProto:
    """The graph with those inputs as initializers; one with an axis of free size in front has a row for each stream."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [v for v in model.graph.input if v.name not in constants]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    for name, value in constants.items():
        dims = ports[name].dims
        if dims and isinstance(dims[0], str) and value.shape[0] == 1 and frames[0].batch is not None:
            _repeat_rows(result, name, value, frames[0])
        else:
            result.graph.initializer.append(numpy_helper.from_array(value, name))
    return result


def _repeat_rows(model: onnx.ModelProto, name: str, value: np.ndarray, frame: Place) -> None:
    weights = {
        f"{name}.row": value,
        f"{name}.axis": np.array([frame.batch], np.int64),
        f"{name}.rest": np.array(value.shape[1:], np.int64),
    }
    nodes = [
        helper.make_node("Shape", [frame.name], [f"{name}.all"]),
        helper.make_node("Gather", [f"{name}.all", f"{name}.axis"], [f"{name}.batch"], axis=0),
        helper.make_node("Concat", [f"{name}.batch", f"{name}.rest"], [f"{name}.shape"], axis=0),
        helper.make_node("Expand", [f"{name}.row", f"{name}.shape"], [name]),
    ]
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights.items())


def _giving(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with those outputs alone."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [v for v in model.graph.output if v.name in names]
    del result.graph.output[:]
    result.graph.output.extend(kept)
    return result


def _initial(place: Place, value: np.ndarray) -> np.ndarray:
    """One stream's state at the start, of the state's shape without the batch axis."""
    if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise ExportError(f"initial: '{place.name}' is not finite numbers")
    if place.batch is not None and value.shape == place.sizes:
        value = np.take(value, 0, axis=place.batch)
    if value.ndim and value.shape != place.frame:
        raise ExportError(
            f"initial: '{place.name}' has shape {list(value.shape)}, one stream's state has {list(place.frame)}; a single number fills it"
        )
    return np.broadcast_to(value, place.frame).astype(place.dtype)


def _loop(
    parts: Sequence[Part],
    roles: Roles,
    axes: Axes,
    graph: Batched,
    outputs: Mapping[str, Place],
    starts: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
) -> Loop:
    initial = {}
    for name in roles.states:
        place = graph.inputs[name]
        value = starts.get(name, np.zeros(place.frame, place.dtype))
        initial[name] = value if place.batch is None else np.expand_dims(value, place.batch)
    frames = {name: graph.inputs[name] for name in roles.frames}
    results = {name: outputs[name] for name in roles.outputs}
    return Loop(parts, roles, axes, frames, results, initial, constants)


def _certified(
    artifact: Artifact, loop: Loop, reference: str | os.PathLike[str] | None, time_axis: int
) -> list[Comparison]:
    """The certificate's lines. Raises ExportError where one is above its tolerance."""
    spec = artifact.spec
    sequences = random_sequences(draws(spec, artifact.model, {}), lengths_for(spec), SEEDS)
    files = ", ".join(part.path.name for part in loop.parts)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    references: list[tuple[str, Outputs]] = [(f"{runtime}, {files} in a loop, one stream", loop.run(spec, sequences))]
    if reference is not None:
        whole = outputs_of_whole(Path(reference), spec, sequences, time_axis)
        references.append((f"{runtime}, {Path(reference).name} on the whole sequence", whole))
    lines = [line for name, expected in references for line in compare(artifact, sequences, expected, name, BACKENDS)]
    for line in lines:
        if not line.problem and not line.ok:
            raise ExportError(
                f"the step differs from its reference: {line}; nothing was written. Are the states paired rightly?"
            )
    if all(line.problem for line in lines):
        raise ExportError(f"no backend runs the step: {lines[0]}")
    return lines


def _notes(graph: Batched, lines: Sequence[Comparison]) -> list[str]:
    notes = [
        f"{line.backend.removeprefix('engine:')} does not run it: {line.problem}" for line in lines if line.problem
    ]
    if graph.reason:
        notes.insert(0, f"the graph takes one stream at a time, so streams are run one by one: {graph.reason}")
    return list(dict.fromkeys(notes))


def _origin(parts: Sequence[Part]) -> Origin:
    """Who made the graphs, the versions that took part, and a hash of all that decides a result."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.model.graph.SerializeToString(deterministic=True))
    makers = [f"{p.model.producer_name or 'onnx'} {p.model.producer_version}".strip() for p in parts]
    versions = {"onnx": version("onnx"), "undertow": version("undertow"), "onnxruntime": onnxruntime.__version__}
    versions["opset"] = str(max(opset(p.model) for p in parts))
    return Origin(", ".join(dict.fromkeys(makers)), versions, digest.hexdigest())
