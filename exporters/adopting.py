"""A graph that is one step already, or several in a chain, to a step artifact."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime

from ..engine.artifact import Artifact, Origin, write_artifact
from ..engine.errors import ExportError
from .batching import Batched, batched, draw
from .boundary import bounded, output_places
from .certifying import made
from .constants import constant_of, with_constants
from .finishing import check_labels
from .hand_loop import Loop
from .joining import Part, Port, joined, opset, read_parts
from .layer_checks import check_changes, check_directions
from .parity import Comparison
from .placing import Axes, Place, frame_place, state_places
from .quantizing import Kind
from .report import ExportReport
from .roles import Roles, Wishes, roles_of
from .step_certificate import small_step, step_certificate

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class About:
    """What the artifact says beside its graph, and what it is compared with."""

    reference: Path | None
    reference_time_axis: int
    sample_rate_hz: float | None
    labels: tuple[str, ...] | None
    quantize: Kind | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Values that the caller gave, by input: what never changes, and what states are before the first frame."""

    constants: Mapping[str, Any]
    initial: Mapping[str, Any]


def adopt(
    source: Paths,
    path: str | os.PathLike[str],
    wishes: Wishes,
    axes: Axes,
    values: Known,
    about: About,
    say: Callable[[str], None],
) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.adopt`."""
    began, path = time.monotonic(), Path(path)
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the folder does not exist; make it first")
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    parts = read_parts([Path(s) for s in sources])
    roles = roles_of(parts, wishes)
    _check_options(roles, axes, values.initial)
    say("whether streams can be batched")
    graph, constants = _plain_graph(parts, roles, axes, values)
    notes = check_directions(graph.model, list(roles.states))
    check_changes(graph.model, roles.states, draw(list(graph.inputs.values()), np.random.default_rng(1)))
    artifact, loop = _artifact(parts, roles, axes, graph, values, constants, about, path)
    lines = step_certificate(artifact, loop, about.reference, about.reference_time_axis, say)
    certificate = tuple(line.as_parity() for line in lines if not line.problem)
    artifact = replace(artifact, spec=msgspec.structs.replace(artifact.spec, certificate=certificate))
    if about.quantize is not None:
        artifact = small_step(artifact, loop, about.quantize, say)
    spec = artifact.spec
    write_artifact(path, artifact.model, spec)
    notes = (*_notes(graph, lines), *notes)
    return ExportReport(path, spec, spec.certificate, notes, path.stat().st_size, time.monotonic() - began)


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


def _plain_graph(
    parts: Sequence[Part], roles: Roles, axes: Axes, values: Known
) -> tuple[Batched, dict[str, np.ndarray]]:
    """The parts as one graph, of any number of streams where it can be; and its constants, as the parts take them."""
    ports: dict[str, Port] = {name: port for part in parts for name, port in part.inputs.items()}
    constants = {name: constant_of(ports[name], value) for name, value in values.constants.items()}
    frames = [frame_place(ports[name], axes) for name in roles.frames]
    first = {name: np.asarray(value) for name, value in values.initial.items()}
    states = [state_places(ports[n], [ports[f] for f in roles.frames], axes, first.get(n)) for n in roles.states]
    results = list(dict.fromkeys([*roles.outputs, *roles.states.values()]))
    model = with_constants(joined(parts, roles.links), constants, ports, frames)
    return batched(_giving(model, results), frames, states, results), constants


def _giving(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with those outputs alone."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [v for v in model.graph.output if v.name in names]
    del result.graph.output[:]
    result.graph.output.extend(kept)
    return result


def _artifact(
    parts: Sequence[Part],
    roles: Roles,
    axes: Axes,
    graph: Batched,
    values: Known,
    constants: Mapping[str, np.ndarray],
    about: About,
    path: Path,
) -> tuple[Artifact, Loop]:
    """The artifact, without a certificate, and the loop that it must agree with."""
    starts = {n: _initial(graph.inputs[n], np.asarray(value)) for n, value in values.initial.items()}
    outputs = output_places(graph, roles, axes)
    model, spec = bounded(graph, roles, axes, outputs, starts)
    spec = msgspec.structs.replace(
        spec, origin=_origin(parts), sample_rate_hz=about.sample_rate_hz, labels=about.labels
    )
    check_labels(spec)
    first = {name: _as_read(graph.inputs[name], starts.get(name)) for name in roles.states}
    frames = {name: graph.inputs[name] for name in roles.frames}
    return made(model, spec, path), Loop(parts, roles, axes, frames, outputs, first, constants)


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


def _as_read(place: Place, value: np.ndarray | None) -> np.ndarray:
    """The state at the start as its graph takes it."""
    value = np.zeros(place.frame, place.dtype) if value is None else value
    return value if place.batch is None else np.expand_dims(value, place.batch)


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
