"""A torch module as a whole-sequence ONNX graph: batch and length symbolic, recurrent layers single nodes."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..engine.errors import ExportError
from .calling import Call
from .layer_nodes import TRANSLATIONS, named_scans
from .recurrent import single_operators
from .rolling import LENGTHS as LOOP_LENGTHS
from .rolling import rolled

OPSET = 18  # the newest that torch's exporter emits without a conversion, and every operator of it runs in ONNX Runtime
# Sizes that no module has built in, and not 1, which torch would fix; lengths are tried one after the other, for some modules need many
# frames, or a multiple of a number.
_BATCH, _LENGTHS = 5, (13, 48, 240, 1008, 4032, 16_128, 48_000)
_MOST_NUMBERS = 2**22  # of an input: a module of wide frames that fails is not asked for lengths that fill the memory


def whole_sequence(call: Call, ahead: bool = False) -> onnx.ModelProto:
    """The ONNX graph of `call`, inputs and outputs named as in it. The module must be in evaluation mode.

    ahead: it may see frames ahead of its outputs, see `recurrent.single_operators`.
    """
    free = torch.export.Dim.DYNAMIC
    axes = [{call.batch_axis: free, call.time_axis: free} for _ in call.input_names]
    with torch.no_grad(), single_operators(call.module, ahead), quiet(), _Rewritten():
        example = _probe(call)
        try:
            program = _traced(call, example, (tuple(axes),))
        except ExportError as error:
            if error.__cause__ is None or not _fixed_size(error.__cause__):
                raise
            shorter, longer = (_of_length(call, n) for n in LOOP_LENGTHS)
            model = rolled(shorter, longer, call)
            if model is None:
                raise
            return model
        return as_onnx(program, call.input_names, call.output_names)


def _of_length(call: Call, length: int) -> onnx.ModelProto:
    """The graph for that length alone, loops over time unrolled."""
    axes = [{call.batch_axis: torch.export.Dim.DYNAMIC} for _ in call.input_names]
    program = _traced(call, tuple(call.sized(_BATCH, length)), (tuple(axes),))
    return as_onnx(program, call.input_names, call.output_names)


def as_onnx(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str] | None) -> onnx.ModelProto:
    """The program as an ONNX graph; outputs: their names, torch's own where None."""
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            input_names=inputs,
            output_names=outputs,
        )
    except Exception as error:  # of many unrelated classes
        raise ExportError(
            f"torch cannot write the module as ONNX: {first_line(error.__cause__ or error)}; replace the operation that it names"
        ) from error
    assert exported is not None
    return named_scans(exported.model_proto)


def _traced(call: Call, example: tuple[torch.Tensor, ...], shapes: Any) -> Any:
    """torch's own program of the call. Where it believes that the length is fixed, it is asked to check that later instead (the
    certificate does), for some of its operators compare lengths without need.
    """
    later = "prefer_deferred_runtime_asserts_over_guards"
    options: list[dict[str, Any]] = [{}]
    options += [{later: True}] if later in inspect.signature(torch.export.export).parameters else []
    for more in options:
        try:
            return torch.export.export(call, example, dynamic_shapes=shapes, strict=False, **more)
        except ExportError:
            raise
        except Exception as error:  # torch.export raises errors of many unrelated classes
            if more is options[-1] or not _fixed_size(error):
                raise ExportError(explained(error)) from error
    raise AssertionError("no options")


class _Rewritten(TorchFunctionMode):
    """Replaces functions whose own code fixes the length while it is traced by others that give the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.max_pool1d, nn.functional.max_pool1d) and not (kwargs or {}).get("return_indices"):
            return _max_pool1d(*args, **(kwargs or {}))
        if func is nn.functional.interpolate:
            return _interpolate(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _max_pool1d(
    x: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> torch.Tensor:
    kernel, step, pad, spread = (_number(v) for v in (kernel_size, stride or kernel_size, padding, dilation))
    del return_indices  # is False here
    pooled = torch.max_pool2d(x.unsqueeze(-2), (1, kernel), (1, step), (0, pad), (1, spread), ceil_mode)
    return pooled.squeeze(-2)


def _interpolate(
    func: Any,
    x: torch.Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *more: Any,
    **others: Any,
) -> torch.Tensor:
    """Linear between frames as a convolution over neighbours: torch's own way looks frames up by places that it computes."""
    factor = scale_factor[0] if isinstance(scale_factor, tuple | list) else scale_factor
    if mode != "linear" or size is not None or more or others.get("align_corners"):
        return func(x, size, scale_factor, mode, *more, **others)
    if factor not in (2, 4, 8, 16, 32):
        raise ExportError(
            f"interpolate(mode='linear', scale_factor={factor}): torch places frames with an error that grows along the sequence, unless the "
            "factor is a power of two from 2 to 32; use one of those, or mode='nearest'"
        )
    s, channels = int(factor), x.shape[1]
    places = [(r + 0.5) / s - 0.5 for r in range(s)]
    weights = torch.tensor([[max(-p, 0), 1 - abs(p), max(p, 0)] for p in places], dtype=x.dtype)
    edges = nn.functional.pad(x, (1, 1), mode="replicate")
    phases = nn.functional.conv1d(edges, weights[:, None].repeat(channels, 1, 1), groups=channels)
    return phases.unflatten(1, (channels, s)).transpose(2, 3).flatten(2)


def _number(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)


def _probe(call: Call) -> tuple[torch.Tensor, ...]:
    """Inputs that the module takes. What it cannot do is said in its own words and not through torch's tracer."""
    failed: Exception | None = None
    first = call.sized(_BATCH, _LENGTHS[0])
    frame = max(t.numel() for t in first) // _LENGTHS[0]  # of all streams
    lengths = [n for n in _LENGTHS if n == _LENGTHS[0] or n * frame <= _MOST_NUMBERS]
    for length in lengths:
        example = tuple(call.sized(_BATCH, length))
        try:
            call(*example)
        except ExportError:
            raise
        except Exception as error:  # the module's own
            failed = failed or error
        else:
            return example
    assert failed is not None
    shapes = {name: tuple(t.shape) for name, t in zip(call.input_names, first, strict=True)}
    raise ExportError(
        f"the module fails on inputs of shapes {shapes} ({type(failed).__name__}: {first_line(failed)}), and on all lengths of {tuple(lengths)}; "
        f"it must take any number of streams (axis {call.batch_axis}) and any length, or any that is long enough (axis {call.time_axis}); see `time_axis`"
    ) from failed


def _fixed_size(error: BaseException) -> bool:
    return any(words in str(error) for words in ("Constraints violated", "specialized", "inferred a static shape"))


def explained(error: Exception) -> str:
    """Why torch could not trace the module, and what to do."""
    if _fixed_size(error):
        return (
            "the module works for one length or one batch size only: somewhere it takes a size as a Python number, as a loop over time, "
            f"a reshape with a fixed size or a fixed mask does ({first_line(error)}); use recurrent layers, and -1 in reshapes"
        )
    return (
        f"torch cannot trace the module: {type(error).__name__}: {first_line(error)}; "
        "what it computes must not depend on the values of frames in Python (use torch.where)"
    )


def first_line(error: BaseException) -> str:
    """The first line of what the error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
