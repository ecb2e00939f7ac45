"""torch modules -> step artifacts. Importing this loads no torch; `export` does when it is called."""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from ..engine.errors import ExportError

if TYPE_CHECKING:
    from .report import ExportReport as ExportReport
    from .verifying import VerifyReport as VerifyReport
    from .verifying import verify as verify

__all__ = ["ExportReport", "VerifyReport", "export", "verify"]

_HOME = {"ExportReport": ".report", "VerifyReport": ".verifying", "verify": ".verifying"}


def export(
    module: Any,
    example: Any,
    path: str | os.PathLike[str],
    *,
    time_axis: int = 1,
    lookahead: int = 0,
    frames_per_step: int = 1,
    sample_rate_hz: float | None = None,
    labels: Sequence[str] | None = None,
    quantize: Literal["int8", "float16"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> "ExportReport":
    """Writes the step artifact of a torch module that maps whole sequences to whole sequences, and reports on it.

    module: a torch.nn.Module; it is exported in evaluation mode and left as it was.
    example: how it is called: a tensor, a tuple of its arguments, or a dict of them by name. Every tensor has `time_axis`,
        and the batch at axis 0 (at axis 1 where `time_axis` is 0); sizes of both are free.
    lookahead, frames_per_step: this version supports 0 and 1.
    sample_rate_hz, labels: kept in the artifact; labels name the features of an output.
    quantize: store the weights small: "int8" with a scale for each output channel, or "float16". Both backends compute with the same
        numbers, in float32; how far the outputs are from the module's is measured, and kept in the artifact.
    progress: is told what is being done, in a few words.

    The step graph is compared with the module on random sequences, and the errors go into the artifact. Raises
    ExportError, and leaves no file, where the module cannot be stepped exactly or the comparison fails.
    """
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"export needs {error.name}, which is not installed; pip install 'undertow[export]'"
        ) from error
    from .torch_export import export as export_torch

    return export_torch(
        module,
        example,
        path,
        time_axis=time_axis,
        lookahead=lookahead,
        frames_per_step=frames_per_step,
        sample_rate_hz=sample_rate_hz,
        labels=labels,
        quantize=quantize,
        progress=progress,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'undertow.exporters' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value
