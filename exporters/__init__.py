"""torch modules and ONNX graphs -> step artifacts. Importing this loads no torch; `export` does when it is called."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..engine.errors import ExportError

if TYPE_CHECKING:
    from .decoder_module import DecoderModule as DecoderModule
    from .report import ExportReport as ExportReport
    from .step_graph import Bounds
    from .step_module import StepModule as StepModule
    from .verifying import VerifyReport as VerifyReport
    from .verifying import verify as verify

__all__ = [
    "DecoderModule",
    "ExportReport",
    "StepModule",
    "VerifyReport",
    "adopt",
    "convert",
    "export",
    "export_seq2seq",
    "verify",
]

_HOME = {
    "DecoderModule": ".decoder_module",
    "ExportReport": ".report",
    "StepModule": ".step_module",
    "VerifyReport": ".verifying",
    "verify": ".verifying",
}


def export(
    module: Any,
    example: Any,
    path: str | os.PathLike[str],
    *,
    time_axis: int = 1,
    lookahead: Literal["all"] | int = 0,
    frames_per_step: int = 1,
    window: int | tuple[int, int] | None = None,
    reduce: Literal["running"] | None = None,
    sample_rate_hz: float | None = None,
    labels: Sequence[str] | None = None,
    quantize: Literal["int8", "float16"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> "ExportReport":
    """Writes the step artifact of a torch module that maps whole sequences to whole sequences, and reports on it.

    module: a torch.nn.Module; it is exported in evaluation mode and left as it was. A `StepModule` maps a frame and a state instead,
        and its example is a frame of a batch (B, *frame).
    example: how it is called: a tensor, a tuple of its arguments, or a dict of them by name. Every tensor has `time_axis`,
        and the batch at axis 0 (at axis 1 where `time_axis` is 0); sizes of both are free.
    lookahead: frames that the reverse direction of bidirectional layers sees beyond its own: each output comes so many of them late, and
        is that of the layer run from frame min(t + lookahead, T - 1) back to t. "all": outputs may depend on every frame (bidirectional
        layers, attention, means over time); the engine collects a stream's frames then, and gives all outputs when it ends.
    frames_per_step: how many frames a step takes; a multiple of it where the module gives fewer outputs than it gets frames.
    window: frames before (and after, as a pair) that an attention to all frames is held to; one with a mask of its own keeps that.
    reduce: "running" makes a sum, mean, largest or smallest value over time one of the frames so far. At a stream's last output it is
        the module's own, and that is what is certified.
    sample_rate_hz, labels: kept in the artifact; labels name the features of an output.
    quantize: store the weights small: "int8" with a scale for each output channel, or "float16". Both backends compute with the same
        numbers, in float32.
    progress: is told what is being done, in a few words.

    The step graph is compared with the module on random sequences, and the errors go into the artifact; so does how far a lookahead,
    a window or small weights take it from the module. Raises ExportError, and leaves no file, where the module cannot be stepped
    exactly or the comparison fails.
    """
    _check_installed("export")
    from .finishing import Asked
    from .step_module import StepModule

    names = None if labels is None else tuple(labels)
    asked = Asked(Path(path), frames_per_step, sample_rate_hz, names, quantize, progress)
    _check_steps(lookahead, frames_per_step)
    if isinstance(module, StepModule):
        if (time_axis, lookahead, frames_per_step, window, reduce) != (1, 0, 1, None, None):
            raise ExportError(
                f"time_axis is {time_axis}, lookahead {lookahead}, frames_per_step {frames_per_step}, window {window}, reduce {reduce}; "
                "a StepModule takes one frame, so leave them out"
            )
        from .step_export import export_step

        return export_step(module, example, asked)
    from .torch_export import export as export_torch

    return export_torch(module, example, asked, time_axis=time_axis, bounds=_bounds(window, lookahead, reduce))


def export_seq2seq(
    encoder: Any,
    decoder: Any,
    source: Any,
    path: str | os.PathLike[str],
    *,
    max_memory: int,
    token: Any = None,
    start: int | None = None,
    stop: int | None = None,
    labels: Sequence[str] | None = None,
    quantize: Literal["int8", "float16"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> "ExportReport":
    """Writes the artifact of an encoder and its decoder, two graphs in one file, and reports on it.

    encoder: a torch.nn.Module over whole sources (B, T, *frame), which are not padded; its recurrent layers may go both ways.
    decoder: a `DecoderModule`: `begin` makes memory and state of what the encoder gives, once; `forward` is a step. What attends to
        the memory is given a mask of the positions that are real.
    source: an example of what the encoder is called with, as for `export`: values that it takes, such as tokens that occur.
    max_memory: how many positions a stream's memory has room for. A source that has more is refused when it is read.
    token: an example of what the decoder is given in a step, a batch (B, *frame); tokens, int64 (B,), where None.
    start, stop: the token that decoding begins with, and the one that ends it; kept in the artifact.
    labels, quantize, progress: as for `export`; labels name the decoder's scores.

    Both modules are exported in evaluation mode. The two graphs are run through the engine on random sources of several lengths, with
    random tokens given and with torch's own greedy ones, and compared with the modules run on each source alone, without padding; the
    errors go into the artifact. Raises ExportError, and leaves no file, where a module cannot be exported or the comparison fails.
    """
    _check_installed("export_seq2seq")
    from .finishing import Asked
    from .seq2seq_export import Room
    from .seq2seq_export import export as export_pair

    names = None if labels is None else tuple(labels)
    asked = Asked(Path(path), labels=names, quantize=quantize, progress=progress)
    return export_pair(encoder, decoder, source, token, Room(max_memory, start, stop), asked)


def _check_installed(what: str) -> None:
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{what} needs {error.name}, which is not installed; pip install 'undertow[export]'"
        ) from error


def _check_steps(lookahead: Any, frames_per_step: int) -> None:
    if lookahead == "all" and frames_per_step != 1:
        raise ExportError(
            f"frames_per_step is {frames_per_step}, and with lookahead='all' there are no steps; leave it out"
        )


def _bounds(window: Any, lookahead: Any, reduce: Any) -> "Bounds":
    from .step_graph import Bounds

    pair = (window, 0) if isinstance(window, int) else window
    if pair is not None and (
        not isinstance(pair, tuple) or len(pair) != 2 or any(not isinstance(n, int) or n < 0 for n in pair)
    ):
        raise ExportError(f"window is {window!r}, expected a number of frames before, or a pair (before, after)")
    if lookahead == "all" and (window is not None or reduce is not None):
        raise ExportError(
            f"window is {window!r}, reduce {reduce!r}; with lookahead='all' every frame is seen, so leave them out"
        )
    if lookahead != "all" and (not isinstance(lookahead, int) or lookahead < 0):
        raise ExportError(f"lookahead is {lookahead!r}, expected a number of frames, 0 or more, or 'all'")
    if reduce not in (None, "running"):
        raise ExportError(f"reduce is {reduce!r}, expected 'running' or None")
    ahead = 0 if lookahead == "all" else lookahead
    return Bounds(pair, ahead, reduce == "running", whole=lookahead == "all")


def convert(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    time_axis: int = 1,
    batch_axis: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    frames_per_step: int = 1,
    window: int | tuple[int, int] | None = None,
    lookahead: Literal["all"] | int = 0,
    reduce: Literal["running"] | None = None,
    sample_rate_hz: float | None = None,
    labels: Sequence[str] | None = None,
    quantize: Literal["int8", "float16"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> "ExportReport":
    """Writes the step artifact of a whole-sequence ONNX model, from any framework, and reports on it.

    source: the model, its external data beside it. All of its inputs have the batch at `batch_axis` (axis 0, or 1 where time is 0),
        of free size or 1, and `time_axis`, of free size.
    shapes: of one frame, by input, where the graph leaves other axes of no fixed size.
    frames_per_step: how many frames a step takes; a multiple of it where the model gives fewer outputs than it gets frames.
    window, lookahead, reduce: as for `export`.
    sample_rate_hz, labels: kept in the artifact; labels name the features of an output.
    quantize, progress: as for `export`.

    The steps are compared with ONNX Runtime on whole random sequences, and the errors go into the artifact. Raises ExportError, and
    leaves no file, where the model cannot be stepped exactly or the comparison fails.
    """
    from .converting import Axes
    from .converting import convert as convert_graph
    from .finishing import Asked

    names = None if labels is None else tuple(labels)
    asked = Asked(Path(path), frames_per_step, sample_rate_hz, names, quantize, progress)
    sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    _check_steps(lookahead, frames_per_step)
    return convert_graph(source, asked, Axes(time_axis, batch_axis, sizes), _bounds(window, lookahead, reduce))


def _silent(what: str) -> None:
    """Says nothing."""


def adopt(
    source: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
    path: str | os.PathLike[str],
    *,
    states: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    overlap: Mapping[str, int] | None = None,
    initial: Mapping[str, Any] | None = None,
    links: Mapping[str, str] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch_axes: Mapping[str, int] | None = None,
    time_axis: int | None = None,
    frames_per_step: int = 1,
    outputs_per_step: int = 1,
    reference: str | os.PathLike[str] | None = None,
    reference_time_axis: int = 1,
    sample_rate_hz: float | None = None,
    labels: Sequence[str] | None = None,
    quantize: Literal["int8", "float16"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> "ExportReport":
    """Writes the step artifact of an ONNX graph that is a step already, and reports on it.

    source: the graph, or several in a chain: outputs of earlier ones go to inputs of later ones. Where two share a name, that of
        the later is `stem.name`, stem being its file's.
    states: inputs to the outputs that are their next values. Pairs whose names and shapes tell may be left out.
    constants: values of inputs that never change. A choice that they decide is made, and the branch not taken left out.
    overlap: how many elements of earlier steps the graph reads again at the front of an input; the engine keeps them, first zeros.
    initial: what states are before the first frame, a number or an array of one stream's; zeros where not said.
    links: an earlier graph's output to a later graph's input; those that names or shapes tell may be left out.
    inputs, outputs: the inputs that are frames, the outputs that a step gives, where names leave that open.
    shapes: of one frame, or of one stream's state, where the graph leaves axes of no fixed size.
    batch_axes: of inputs and states, where it is not seen: axis 0 of frames, the axis of free size or size 1 of states.
    time_axis: where frames have an axis of time. Of size 1 it is no part of the frame. It is the last where frames_per_step > 1.
    frames_per_step, outputs_per_step: how many elements along that axis a step takes and gives, such as 512 samples and 1. What is
        left at the end of a stream, less than a step, is not stepped.
    reference, reference_time_axis: a whole-sequence ONNX model of the same names, which the steps are compared with too.
    sample_rate_hz, labels: kept in the artifact.
    quantize, progress: as for `export`.

    The artifact is compared, on every backend, with ONNX Runtime running the graphs as they are in a loop over one stream's random
    frames. A batch fixed at 1 is freed where three streams show that none sees another; else the streams are run one by one, and
    a note says why. Raises ExportError, and leaves no file, where roles are not clear, a step graph cannot be right, or it differs.
    """
    from .adopting import About, Known
    from .adopting import adopt as adopt_graph
    from .placing import Axes
    from .roles import Wishes

    fixed = constants or {}
    wishes = Wishes(
        states or {},
        links or {},
        frozenset(fixed),
        None if inputs is None else tuple(inputs),
        None if outputs is None else tuple(outputs),
    )
    sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    axes = Axes(batch_axes or {}, sizes, overlap or {}, frames_per_step, outputs_per_step, time_axis)
    return adopt_graph(
        source,
        path,
        wishes,
        axes,
        Known(fixed, initial or {}),
        About(
            None if reference is None else Path(reference),
            reference_time_axis,
            sample_rate_hz,
            None if labels is None else tuple(labels),
            quantize,
        ),
        progress or _silent,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'undertow.exporters' has no attribute '{name}'")
    try:
        value = getattr(import_module(_HOME[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ExportError(f"{name} needs torch, which is not installed; pip install 'undertow[export]'") from error
    globals()[name] = value
    return value
