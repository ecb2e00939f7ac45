"""A torch module to a step artifact: whole-sequence graph, step graph, certificate, file."""

import hashlib
import os
import time
from collections.abc import Callable
from collections.abc import Sequence as Several
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import nn

from ..engine.artifact import Artifact, Origin, StepSpec, write_artifact
from ..engine.errors import ExportError
from .calling import Call
from .certifying import BACKENDS, Truth, certified, made
from .nn import OverTime
from .parity import SEEDS, lengths_for
from .quantizing import Kind
from .report import ExportReport
from .sequences import Draw, Sequence, draws, random_sequences
from .step_pass import Step, to_step
from .stepping import Outputs
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
        spec = msgspec.structs.replace(
            step.spec, origin=origin, sample_rate_hz=sample_rate_hz, labels=None if labels is None else tuple(labels)
        )
        _check_labels(spec)
        artifact = made(step.model, spec, path)
        say("what the module gives for random sequences")
        truth = _truth(artifact, step, call)
    artifact = certified(artifact, truth, quantize=quantize, backends=BACKENDS, progress=progress)
    spec = artifact.spec
    write_artifact(path, artifact.model, spec)
    return ExportReport(
        path, spec, spec.certificate, _notes(step, frames_per_step), path.stat().st_size, time.monotonic() - began
    )


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


def _check_labels(spec: StepSpec) -> None:
    sizes = {o.name: o.shape[-1] for o in spec.outputs if o.shape}
    if spec.labels is not None and len(spec.labels) not in sizes.values():
        raise ExportError(
            f"{len(spec.labels)} labels are given, and no output has as many features: {sizes}; give one label for each"
        )


def _truth(artifact: Artifact, step: Step, call: Call) -> Truth:
    """What the module gives for random sequences of several lengths."""
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.input_names, call.example, strict=True)}
    ways = draws(artifact.spec, artifact.model, examples)
    sequences, expected = [], []
    for length in lengths_for(artifact.spec):
        found = _of_length(length, artifact, step, call, ways)
        sequences, expected = sequences + found[0], expected + found[1]
    return Truth(f"torch {torch.__version__}", sequences, expected)


def _of_length(
    length: int, artifact: Artifact, step: Step, call: Call, ways: dict[str, Draw]
) -> tuple[list[Sequence], Outputs]:
    """Random sequences of that length and what the module gives for them, or of the next length that fills whole steps where it takes no other."""
    k = artifact.spec.frames_per_step
    for n in (length, -(-length // k) * k):
        sequences = random_sequences(ways, (n,), SEEDS)
        try:
            return sequences, [_by_torch(call, step, artifact, one) for one in sequences]
        except Exception as error:  # the module's own; a length that it does not take
            failed = error
    if length == max(lengths_for(artifact.spec)):
        raise ExportError(
            f"the module fails on a sequence of {length} frames ({type(failed).__name__}: {failed})"
        ) from failed
    return [], []


def _by_torch(call: Call, step: Step, artifact: Artifact, sequence: Sequence) -> dict[str, np.ndarray]:
    """What the module itself gives for the whole sequence, alone."""
    if not artifact.spec.outputs_of(len(next(iter(sequence.values())))):  # shorter than the module takes
        return {o.name: np.zeros((0, *o.shape), o.dtype) for o in artifact.spec.outputs}
    tensors = []
    for name, example in zip(call.input_names, call.example, strict=True):
        whole = np.moveaxis(sequence[name][None], (0, 1), (call.batch_axis, call.time_axis))
        tensors.append(torch.from_numpy(np.ascontiguousarray(whole)).to(example.device))
    with torch.no_grad():
        outputs = dict(zip(call.output_names, call(*tensors), strict=True))
    whole_outputs = {name: outputs[source].cpu().numpy() for name, source in step.sources.items()}
    return {name: np.moveaxis(a, step.time_axes[name], 0)[:, 0] for name, a in whole_outputs.items()}


def _notes(step: Step, asked: int) -> tuple[str, ...]:
    notes, taken = [], step.spec.frames_per_step
    if taken != asked:
        notes.append(
            f"a step takes {taken} frames, not {asked}: the module gives {step.spec.outputs_per_step} outputs of so many"
        )
    if step.finals:
        names = ", ".join(repr(name) for name in step.finals)
        notes.append(f"left out {names}: the state after the last frame; read it with engine.state(key)")
    return tuple(notes)


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
