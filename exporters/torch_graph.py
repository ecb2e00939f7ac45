"""A torch module as a whole-sequence ONNX graph: batch and length symbolic, recurrent layers single nodes."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from ..engine.errors import ExportError
from .calling import Call
from .recurrent import TRANSLATIONS, single_operators

OPSET = 18  # the newest that torch's exporter emits without a conversion, and every operator of it runs in ONNX Runtime
_PROBE = (5, 13)  # (batch, length): sizes that no module has built in, and not 1, which torch would fix


def whole_sequence(call: Call) -> onnx.ModelProto:
    """The ONNX graph of `call`, inputs and outputs named as in it. The module must be in evaluation mode."""
    sizes = (torch.export.Dim("batch"), torch.export.Dim("time"))
    axes = [{call.batch_axis: sizes[0], call.time_axis: sizes[1]} for _ in call.input_names]
    example = tuple(call.sized(*_PROBE))
    with torch.no_grad(), single_operators(call.module), _quiet():
        _probe(call, example)
        try:
            program = torch.export.export(call, example, dynamic_shapes=(tuple(axes),), strict=False)
        except ExportError:
            raise
        except Exception as error:  # torch.export raises errors of many unrelated classes
            raise ExportError(_explained(error)) from error
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                input_names=call.input_names,
                output_names=call.output_names,
            )
        except Exception as error:  # likewise
            raise ExportError(
                f"torch cannot write the module as ONNX: {_first_line(error.__cause__ or error)}; replace the operation that it names"
            ) from error
    assert exported is not None
    return exported.model_proto


def _probe(call: Call, example: tuple[torch.Tensor, ...]) -> None:
    """Runs the module once, so that what it cannot do is said in its own words and not through torch's tracer."""
    try:
        call(*example)
    except ExportError:
        raise
    except Exception as error:  # the module's own
        shapes = {name: tuple(t.shape) for name, t in zip(call.input_names, example, strict=True)}
        raise ExportError(
            f"the module fails on inputs of shapes {shapes} ({type(error).__name__}: {_first_line(error)}); it must take any number of streams "
            f"(axis {call.batch_axis}) and any length (axis {call.time_axis}); see `time_axis`"
        ) from error


def _explained(error: Exception) -> str:
    text = str(error)
    if "Constraints violated" in text or "specialized" in text:
        return (
            "the module works for one length or one batch size only: somewhere it takes a size as a Python number, as a loop over time, "
            f"a reshape with a fixed size or a fixed mask does ({_first_line(error)}); use recurrent layers, and -1 in reshapes"
        )
    return (
        f"torch cannot trace the module: {type(error).__name__}: {_first_line(error)}; "
        "what it computes must not depend on the values of frames in Python (use torch.where)"
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what torch's exporter says about itself and the user cannot act on, and nothing else."""
    loud = logging.getLogger(
        "torch.onnx._internal.exporter._registration"
    )  # "torchvision is not installed. Skipping ..."
    before = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's own use of torch.utils._pytree, while it copies an exported program
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        loud.setLevel(before)


@contextlib.contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """While open, `module` and all inside are in evaluation mode; afterwards each is in the mode that it was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in modes:
            inner.training = training
