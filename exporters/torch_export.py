"""A torch module to a step artifact: whole-sequence graph, step graph, certificate, file."""

import hashlib
import os
import time
from collections.abc import Callable
from collections.abc import Sequence as Several
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from ..engine.artifact import Artifact, Origin
from ..engine.errors import ExportError
from .calling import Call
from .certifying import BACKENDS
from .finishing import Asked, Reference, finished
from .nn import OverTime
from .quantizing import Kind
from .report import ExportReport
from .sequences import Sequence
from .step_pass import Step, to_step
from .torch_graph import evaluation, whole_sequence


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
    quantize: Kind | None,
    progress: Callable[[str], None] | None,
) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export`."""
    began = time.monotonic()
    path = Path(path)
    _check(module, path, time_axis, lookahead, frames_per_step)
    origin = _origin(module)
    call = Call(OverTime(module) if isinstance(module, nn.RNNCellBase) else module, example, time_axis)
    say = progress or (lambda _: None)
    with evaluation(module):
        say("tracing the module")
        whole = whole_sequence(call)
        say("the step graph")
        step = to_step(
            whole,
            _feed(call),
            time_axis=time_axis,
            batch_axis=call.batch_axis,
            frames_per_step=frames_per_step,
            lone_name=_lone_name(call),
        )
        asked = Asked(path, frames_per_step, sample_rate_hz, labels, quantize, progress, began)
        return finished(step, asked, origin, _reference(call, step), BACKENDS)


def _check(module: Any, path: Path, time_axis: int, lookahead: int, frames_per_step: int) -> None:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ExportError(f"module is a {type(module).__name__}, expected a torch.nn.Module (not a scripted one)")
    if lookahead != 0:
        raise ExportError(f"lookahead is {lookahead}; this version exports models without lookahead: lookahead=0")
    if frames_per_step < 1:
        raise ExportError(f"frames_per_step is {frames_per_step}, expected 1 or more")
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


def _reference(call: Call, step: Step) -> Reference:
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.input_names, call.example, strict=True)}
    return Reference(
        f"torch {torch.__version__}",
        "module",
        examples,
        lambda artifact, sequence: _by_torch(call, step, artifact, sequence),
    )


def _by_torch(call: Call, step: Step, artifact: Artifact, sequence: Sequence) -> dict[str, np.ndarray]:
    """What the module itself gives for the whole sequence, alone."""
    tensors = []
    for name, example in zip(call.input_names, call.example, strict=True):
        whole = np.moveaxis(sequence[name][None], (0, 1), (call.batch_axis, call.time_axis))
        tensors.append(torch.from_numpy(np.ascontiguousarray(whole)).to(example.device))
    with torch.no_grad():
        outputs = dict(zip(call.output_names, call(*tensors), strict=True))
    whole_outputs = {name: outputs[source].cpu().numpy() for name, source in step.sources.items()}
    return {name: np.moveaxis(a, step.time_axes[name], 0)[:, 0] for name, a in whole_outputs.items()}


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
