"""What tract's pulse transform does with an architecture: the best of several ONNX files of it, each in a process of its own."""

import contextlib
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from undertow.exporters.calling import Call
from undertow.exporters.torch_graph import evaluation, whole_sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.architectures import Architecture

SECONDS = 60
EXACT = 4  # the highest rank
BUILT_IN = "has built the length in"
WORKER = Path(__file__).with_name("tract_pulse.py")


@dataclass(frozen=True)
class Verdict:
    """rank: the higher the better. words: for the table."""

    rank: int
    words: str


class FrameOutputs(nn.Module):
    """The outputs that have one value for every frame, by themselves."""

    def __init__(self, architecture: Architecture, module: nn.Module):
        super().__init__()
        self.module, self.pick = module, architecture.frame_outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pick(self.module(*inputs)).values())


def judged(architecture: Architecture, frames_per_step: int, folder: Path) -> Verdict:
    """The best verdict over the ways to write the model and two sizes of pulse."""
    base = np.lcm(frames_per_step, architecture.multiple)
    best = Verdict(-1, "")
    module = FrameOutputs(architecture, architecture.module())
    inputs = architecture.inputs(1, int(base) * 24)
    _write_case(
        architecture, module, {"": inputs, "short_": architecture.inputs(1, int(base) * 16)}, folder / "case.npz"
    )
    for write in _files(architecture, module, inputs, folder / "whole.onnx"):
        verdict = _tried(write, folder, int(base))
        best = max(best, verdict, key=lambda v: v.rank)
        if best.rank == EXACT:
            break
    return best


def _tried(write: Callable[[], None], folder: Path, base: int) -> Verdict:
    """The better verdict of two sizes of pulse; where no file is written, why."""
    try:
        write()
    except Exception as error:  # torch's exporters raise anything
        return Verdict(0, f"no file: {_first_line(error)}")
    verdict = _run(folder, base * 4)
    if verdict.rank == EXACT or BUILT_IN in verdict.words:
        return verdict
    return max(verdict, _run(folder, base), key=lambda v: v.rank)


def _write_case(
    architecture: Architecture, module: nn.Module, sequences: dict[str, dict[str, Tensor]], path: Path
) -> None:
    arrays = {}
    for kind, inputs in sequences.items():
        with torch.no_grad():
            outputs = module(*inputs.values())
        arrays |= {f"{kind}in_{name}": t.numpy() for name, t in inputs.items()}
        arrays |= {f"{kind}out_{i}": t.numpy() for i, t in enumerate(outputs)}
    np.savez(path, time_axis=np.array(architecture.time_axis), **arrays)  # type: ignore[arg-type]


def _files(
    architecture: Architecture, module: nn.Module, inputs: dict[str, Tensor], path: Path
) -> Iterator[Callable[[], None]]:
    """torch's exporters, old and new, with batch 1 and the time axis free, at opsets that tract reads; and undertow's whole-sequence graph."""
    tensors, names = tuple(inputs.values()), list(inputs)
    outputs = [f"out_{i}" for i in range(len(module(*tensors)))]
    axis = architecture.time_axis

    def old(opset: int) -> None:
        free = {name: {axis: "S"} for name in names}
        torch.onnx.export(
            module, tensors, path, dynamo=False, opset_version=opset, input_names=names, output_names=outputs,
            dynamic_axes=free,
        )  # fmt: skip

    def new() -> None:
        free = tuple({axis: torch.export.Dim("S")} for _ in names)
        torch.onnx.export(
            module, tensors, path, dynamo=True, opset_version=18, input_names=names, output_names=outputs,
            dynamic_shapes=(free,), verbose=False, external_data=False,
        )  # fmt: skip

    def ours() -> None:
        call = Call(architecture.module(), architecture.example(), axis)
        with evaluation(call.module):
            model = whole_sequence(call)
        frame_outputs = set(architecture.frame_output_names(call.output_names))
        kept = [o for o in model.graph.output if o.name in frame_outputs]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[call.batch_axis].dim_value = 1
        onnx.save(model, path)

    for write in (new, ours, lambda: old(17), lambda: old(13)):
        yield _silently(write)


def _silently(write: Callable[[], None]) -> Callable[[], None]:
    def quiet() -> None:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            write()

    return quiet


def _run(folder: Path, pulse: int) -> Verdict:
    command = [sys.executable, WORKER, folder / "case.npz", folder / "whole.onnx", str(pulse)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(1, f"fails: not done after {SECONDS} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        panic = [line.strip() for line in done.stderr.splitlines() if "panicked" in line or "rror" in line]
        return Verdict(1, f"fails: {panic[0] if panic else f'the process ends with {done.returncode}'}")
    found = json.loads(lines[-1])
    if "fails" in found:
        return Verdict(1, f"fails: {found['fails']}")
    if not found["error"] <= 1e-3:
        return Verdict(2, f"wrong: off by {found['error']:.2g}")
    if found["last"]:
        return Verdict(3, f"agrees, delay {found['delay']}; the last {found['last']} wrong")
    return Verdict(EXACT, f"agrees, delay {found['delay']}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
