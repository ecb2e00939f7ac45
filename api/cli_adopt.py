"""`undertow convert` and `undertow adopt`: step artifacts from ONNX models."""

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from .cli_options import bounds_options, frames_option, json_option, labels_option, names_of, output_option, rate_option
from .export_table import print_report, quantize_option
from .telling import quiet_option, telling

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)


class Named(click.ParamType):
    """NAME=VALUE, the value read by `kind`."""

    def __init__(self, kind: Any, what: str):
        self._kind, self._what = kind, what
        self.name = f"NAME={what}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, _, text = str(value).rpartition("=")  # names of tensors may hold a =
        try:
            if not name or not text:
                raise ValueError
            return name, self._kind(text)
        except (ValueError, OSError) as error:
            self.fail(f"{value!r}: expected NAME={self._what} {error}".rstrip(), param, ctx)


def _values(text: str) -> Any:
    """A number, or the array in a .npy file."""
    if text.endswith(".npy"):
        return np.load(text, allow_pickle=False)
    number = float(text)
    return int(number) if number == int(number) else number


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


_shapes = click.option(
    "--shape",
    "shapes",
    type=Named(_sizes, "N,N,.."),
    multiple=True,
    help="One frame's or state's shape where the graph leaves it open.",
)


@click.command("convert")
@click.argument("model", type=MODEL)
@output_option
@click.option(
    "--time-axis", type=click.IntRange(min=0), default=1, show_default=True, help="Which axis of the inputs is time."
)
@click.option("--batch-axis", type=click.IntRange(min=0), help="Which is the batch; 0, or 1 where time is 0.")
@_shapes
@bounds_options
@rate_option
@labels_option
@quantize_option
@quiet_option
@json_option
def convert_command(
    model: Path,
    output: Path,
    time_axis: int,
    batch_axis: int | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    frames_per_step: int,
    window: int | tuple[int, int] | None,
    lookahead: Literal["all"] | int,
    reduce: Literal["running"] | None,
    sample_rate: float | None,
    labels: str | None,
    quantize: Literal["int8", "float16"] | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn MODEL, an ONNX model of whole sequences from any framework, into a step artifact."""
    from .exporters import convert

    with telling(quiet) as progress:
        report = convert(
            model,
            output,
            time_axis=time_axis,
            batch_axis=batch_axis,
            shapes=dict(shapes),
            frames_per_step=frames_per_step,
            window=window,
            lookahead=lookahead,
            reduce=reduce,
            sample_rate_hz=sample_rate,
            labels=names_of(labels),
            quantize=quantize,
            progress=progress,
        )
    print_report(report, as_json)


@click.command("adopt")
@click.argument("models", type=MODEL, nargs=-1, required=True, metavar="MODEL...")
@output_option
@click.option(
    "--state",
    "states",
    type=Named(str, "NEXT"),
    multiple=True,
    help="A state's input and the output that is its next value.",
)
@click.option(
    "--constant", "constants", type=Named(_values, "VALUE"), multiple=True, help="An input's value: a number or a .npy."
)
@click.option("--overlap", type=Named(int, "N"), multiple=True, help="Elements of earlier steps that an input repeats.")
@click.option(
    "--initial", type=Named(_values, "VALUE"), multiple=True, help="A state before the first frame: a number or a .npy."
)
@click.option(
    "--link", "links", type=Named(str, "INPUT"), multiple=True, help="An output and the later graph's input it goes to."
)
@click.option("--inputs", help="The inputs that are frames, between commas, where names leave that open.")
@click.option("--outputs", help="The outputs that a step gives, between commas, where names leave that open.")
@_shapes
@click.option(
    "--batch-axis", "batch_axes", type=Named(int, "AXIS"), multiple=True, help="Where a tensor has the batch."
)
@click.option("--time-axis", type=click.IntRange(min=0), help="Where frames have an axis of time, if they have.")
@frames_option
@click.option(
    "--outputs-per-step", type=click.IntRange(min=1), default=1, show_default=True, help="Outputs that one step gives."
)
@click.option("--reference", type=MODEL, help="A whole-sequence model to compare with too.")
@click.option("--reference-time-axis", type=click.IntRange(min=0), default=1, show_default=True, help="Its time axis.")
@rate_option
@labels_option
@quantize_option
@quiet_option
@json_option
def adopt_command(
    models: tuple[Path, ...],
    output: Path,
    states: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, Any], ...],
    overlap: tuple[tuple[str, int], ...],
    initial: tuple[tuple[str, Any], ...],
    links: tuple[tuple[str, str], ...],
    inputs: str | None,
    outputs: str | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    batch_axes: tuple[tuple[str, int], ...],
    time_axis: int | None,
    frames_per_step: int,
    outputs_per_step: int,
    reference: Path | None,
    reference_time_axis: int,
    sample_rate: float | None,
    labels: str | None,
    quantize: Literal["int8", "float16"] | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn MODEL, an ONNX graph that is one step already, into a step artifact; several are a chain.

    Options that are about one tensor may be repeated: --state h=h_next --state c=c_next.
    """
    from .exporters import adopt

    with telling(quiet) as progress:
        report = adopt(
            models,
            output,
            states=dict(states),
            constants=dict(constants),
            overlap=dict(overlap),
            initial=dict(initial),
            links=dict(links),
            inputs=names_of(inputs),
            outputs=names_of(outputs),
            shapes=dict(shapes),
            batch_axes=dict(batch_axes),
            time_axis=time_axis,
            frames_per_step=frames_per_step,
            outputs_per_step=outputs_per_step,
            reference=reference,
            reference_time_axis=reference_time_axis,
            sample_rate_hz=sample_rate,
            labels=names_of(labels),
            quantize=quantize,
            progress=progress,
        )
    print_report(report, as_json)
