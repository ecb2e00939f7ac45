"""A torch module to a step artifact: whole-sequence graph, step graph, certificate, file."""

import hashlib
import os
import time
from collections.abc import Sequence as Several
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import nn

from ..engine.artifact import Artifact, Origin, StepSpec, make_artifact, write_artifact
from ..engine.errors import ArtifactError, ExportError
from .calling import Call
from .nn import OverTime
from .parity import LENGTHS, SEEDS, Comparison, compare
from .report import ExportReport
from .sequences import Sequence, draws, random_sequences
from .step_pass import Step, to_step
from .stepping import Outputs
from .torch_graph import evaluation, whole_sequence

BACKENDS = ("ort", "engine:numba")  # what the certificate is about, see `parity.compare`


def export(
    module: nn.Module,
    example: Any,
    path: str | os.PathLike[str],
    *,
    time_axis: int,
    lookahead: int,
    frames_per_step: int,
    sample_rate_hz: float | None,
    labels: Several[str] | None,
) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export`."""
    began = time.monotonic()
    path = Path(path)
    _check(module, path, time_axis, lookahead, frames_per_step)
    origin = _origin(module)
    call = Call(OverTime(module) if isinstance(module, nn.RNNCellBase) else module, example, time_axis)
    with evaluation(module):
        whole = whole_sequence(call)
        step = to_step(whole, _feed(call), time_axis=time_axis, batch_axis=call.batch_axis, lone_name=_lone_name(call))
        spec = msgspec.structs.replace(
            step.spec, origin=origin, sample_rate_hz=sample_rate_hz, labels=None if labels is None else tuple(labels)
        )
        _check_labels(spec)
        try:
            artifact = make_artifact(step.model, spec, path)
        except ArtifactError as error:
            raise ExportError(f"the step graph is not a valid artifact: {error}") from error
        lines = _certified(artifact, step, call)
    spec = msgspec.structs.replace(spec, certificate=tuple(line.as_parity() for line in lines))
    write_artifact(path, step.model, spec)
    return ExportReport(path, spec, spec.certificate, _notes(step), path.stat().st_size, time.monotonic() - began)


def _check(module: Any, path: Path, time_axis: int, lookahead: int, frames_per_step: int) -> None:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ExportError(f"module is a {type(module).__name__}, expected a torch.nn.Module (not a scripted one)")
    if lookahead != 0:
        raise ExportError(f"lookahead is {lookahead}; this version exports models without lookahead: lookahead=0")
    if frames_per_step != 1:
        raise ExportError(
            f"frames_per_step is {frames_per_step}; this version exports one frame a step: frames_per_step=1"
        )
    if time_axis < 0:
        raise ExportError(f"time_axis is {time_axis}, expected 0 or more: count axes from the first")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the folder does not exist; make it first")


def _feed(call: Call) -> Any:
    def feed(batch: int, length: int) -> dict[str, np.ndarray]:
        return {n: t.detach().cpu().numpy() for n, t in zip(call.input_names, call.sized(batch, length), strict=True)}

    return feed


def _lone_name(call: Call) -> str:
    return "output_out" if "output" in call.input_names else "output"


def _check_labels(spec: StepSpec) -> None:
    sizes = {o.name: o.shape[-1] for o in spec.outputs if o.shape}
    if spec.labels is not None and len(spec.labels) not in sizes.values():
        raise ExportError(
            f"{len(spec.labels)} labels are given, and no output has as many features: {sizes}; give one label for each"
        )


def _certified(artifact: Artifact, step: Step, call: Call) -> list[Comparison]:
    """The certificate's lines. Raises ExportError where one is above its tolerance."""
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.input_names, call.example, strict=True)}
    sequences = random_sequences(draws(artifact.spec, artifact.model, examples), LENGTHS, SEEDS)
    expected = _by_torch(call, step, sequences)
    found = compare(artifact, sequences, expected, f"torch {torch.__version__}", BACKENDS)
    lines = [line for line in found if not line.problem]
    for line in lines:
        if not line.ok:
            raise ExportError(
                f"the step graph is not the module: {line}; nothing was written. If the module is deterministic, and its outputs for a "
                "stream do not depend on other streams or on earlier calls, please report this with the module"
            )
    return lines


def _by_torch(call: Call, step: Step, sequences: list[Sequence]) -> Outputs:
    """What the module itself gives for each whole sequence, alone."""
    results = []
    with torch.no_grad():
        for sequence in sequences:
            tensors = []
            for name, example in zip(call.input_names, call.example, strict=True):
                whole = np.moveaxis(sequence[name][None], (0, 1), (call.batch_axis, call.time_axis))
                tensors.append(torch.from_numpy(np.ascontiguousarray(whole)).to(example.device))
            outputs = dict(zip(call.output_names, call(*tensors), strict=True))
            whole_outputs = {name: outputs[source].cpu().numpy() for name, source in step.sources.items()}
            results.append({name: np.moveaxis(a, step.time_axes[name], 0)[:, 0] for name, a in whole_outputs.items()})
    return results


def _notes(step: Step) -> tuple[str, ...]:
    if not step.finals:
        return ()
    names = ", ".join(repr(name) for name in step.finals)
    return (f"left out {names}: the state after the last frame; read it with engine.state(key)",)


def _origin(module: nn.Module) -> Origin:
    """torch, the versions that took part, and a hash of all weights and buffers by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    versions = {name: version(name) for name in ("torch", "onnx", "onnxscript", "undertow")}
    versions["onnxruntime"] = onnxruntime.__version__
    return Origin("torch", versions, digest.hexdigest())
