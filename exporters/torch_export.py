"""A torch module to a step artifact: whole-sequence graph, step graph, certificate, file."""

from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from ..engine.errors import ExportError
from .approximating import approximated
from .calling import Call
from .finishing import Asked, Reference, finished, rows
from .nn import OverTime
from .origins import origin_of
from .report import ExportReport
from .sequence_export import to_sequence
from .sequences import Sequence
from .step_graph import Bounds
from .step_pass import Step, to_step
from .torch_graph import evaluation, whole_sequence
from .worlds import plain_session


def export(module: nn.Module, example: Any, asked: Asked, *, time_axis: int, bounds: Bounds) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export`."""
    _check(module, asked, time_axis)
    origin = origin_of(module)
    call = Call(OverTime(module) if isinstance(module, nn.RNNCellBase) else module, example, time_axis)
    with evaluation(module):
        asked.say("tracing the module")
        whole = whole_sequence(call, ahead=bounds.whole or bounds.lookahead > 0)
        step = stepped(call, whole, asked, bounds)
        return finished(step, asked, origin, reference_of(call, whole, step, bounds))


def stepped(call: Call, whole: onnx.ModelProto, asked: Asked, bounds: Bounds) -> Step:
    """The step graph of a whole-sequence graph, or that graph itself where all of time is seen."""
    feed, axes, lone = _feed(call), (call.time_axis, call.batch_axis), _lone_name(call)
    if bounds.whole:
        asked.say("what the graph of whole sequences takes and gives")
        return to_sequence(whole, feed, time_axis=axes[0], batch_axis=axes[1], lone_name=lone)
    asked.say("the step graph")
    return to_step(
        whole,
        feed,
        time_axis=axes[0],
        batch_axis=axes[1],
        frames_per_step=asked.frames_per_step,
        lone_name=lone,
        bounds=bounds,
    )


def _check(module: Any, asked: Asked, time_axis: int) -> None:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ExportError(f"module is a {type(module).__name__}, expected a torch.nn.Module (not a scripted one)")
    if time_axis < 0:
        raise ExportError(f"time_axis is {time_axis}, expected 0 or more: count axes from the first")
    asked.check()


def _feed(call: Call) -> Any:
    def feed(batch: int, length: int) -> dict[str, np.ndarray]:
        return {n: t.detach().cpu().numpy() for n, t in zip(call.input_names, call.sized(batch, length), strict=True)}

    return feed


def _lone_name(call: Call) -> str:
    return "output_out" if "output" in call.input_names else "output"


def reference_of(call: Call, whole: onnx.ModelProto, step: Step, bounds: Bounds) -> Reference:
    """What the steps must give: the module's own outputs, or those of the module as it was asked to be approximated."""
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.input_names, call.example, strict=True)}
    name = f"torch {torch.__version__}"

    def exact(sequence: Sequence) -> dict[str, np.ndarray]:
        return _by_torch(call, step, sequence)

    if step.running:
        return Reference(f"{name}, at each sequence's end", "module", examples, exact, last=True)
    other = approximated(whole, step, bounds)
    if other is None:
        return Reference(name, "module", examples, exact)
    session = plain_session(other.model)
    return Reference(
        f"{name} with {other.words}",
        "module",
        examples,
        lambda sequence: _by_runtime(session, call, step, sequence),
        exact,
        other.asked,
    )


def _laid(call: Call, sequence: Sequence) -> dict[str, np.ndarray]:
    """The sequence as a batch of one, with the axes as the module has them."""
    axes = (call.batch_axis, call.time_axis)
    return {n: np.ascontiguousarray(np.moveaxis(sequence[n][None], (0, 1), axes)) for n in call.input_names}


def _by_runtime(session: Any, call: Call, step: Step, sequence: Sequence) -> dict[str, np.ndarray]:
    made = session.run(list(step.sources.values()), _laid(call, sequence))
    return rows(step, dict(zip(step.sources, map(np.asarray, made), strict=True)))


def _by_torch(call: Call, step: Step, sequence: Sequence) -> dict[str, np.ndarray]:
    """What the module itself gives for the whole sequence, alone."""
    devices = (t.device for t in call.example)
    tensors = [
        torch.from_numpy(a).to(device) for a, device in zip(_laid(call, sequence).values(), devices, strict=True)
    ]
    with torch.no_grad():
        outputs = dict(zip(call.output_names, call(*tensors), strict=True))
    return rows(step, {name: outputs[source].cpu().numpy() for name, source in step.sources.items()})
