"""`undertow export` and `undertow verify`."""

from pathlib import Path
from typing import Any, Literal

import click

from .cli_options import bounds_options, json_option, labels_option, names_of, output_option, rate_option
from .engine.errors import ExportError
from .export_table import json_of, print_report, quantize_option
from .telling import quiet_option, telling

DTYPES = ("float32", "float64", "float16", "int64", "int32", "bool")


class Numbers(click.ParamType):
    """Whole numbers between commas: 1,20,6."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a shape; expected whole numbers between commas, such as 1,20,6", param, ctx)
        if min(numbers) < 1:
            self.fail(f"{value!r}: every size must be 1 or more", param, ctx)
        return numbers


@click.command("export")
@click.argument("source", metavar="PACKAGE.MODULE:FACTORY")
@output_option
@click.option(
    "--example-shape", type=Numbers(), required=True, help="The shape that the module takes: batch, time and features."
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="The dtype that it takes."
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights to load: a state_dict saved by torch.save, or *.safetensors. No code in it is run.",
)
@click.option(
    "--time-axis", type=click.IntRange(min=0), default=1, show_default=True, help="Which axis of the input is time."
)
@bounds_options
@rate_option
@labels_option
@quantize_option
@quiet_option
@json_option
def export_command(
    source: str,
    output: Path,
    example_shape: tuple[int, ...],
    dtype: str,
    checkpoint: Path | None,
    time_axis: int,
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
    """Export a torch module to a step artifact.

    FACTORY is a function without arguments that returns the module, or the module itself. The example is zeros of
    --example-shape: only its shape and dtype matter.
    """
    from .exporters import export

    place, name = _parts(source)
    try:
        from .exporters.named import load_weights, named_module, zeros
    except ModuleNotFoundError as error:
        raise ExportError(
            f"export needs {error.name}, which is not installed; pip install 'undertow[export]'"
        ) from error
    module = named_module(place, name, Path.cwd())
    if checkpoint is not None:
        load_weights(module, checkpoint)
    example = zeros(example_shape, dtype)
    with telling(quiet) as progress:
        report = export(
            module,
            example,
            output,
            time_axis=time_axis,
            lookahead=lookahead,
            frames_per_step=frames_per_step,
            window=window,
            reduce=reduce,
            sample_rate_hz=sample_rate,
            labels=names_of(labels),
            quantize=quantize,
            progress=progress,
        )
    print_report(report, as_json)


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--sequence",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A real sequence besides the random ones: .npy (T, *frame), or .npz by input. May be given several times.",
)
@quiet_option
@json_option
@click.pass_context
def verify_command(ctx: click.Context, model: Path, files: tuple[Path, ...], quiet: bool, as_json: bool) -> None:
    """Check on this machine that every backend does what the artifact MODEL says. Exit 1 where one does not."""
    from .exporters import verify
    from .exporters.real_sequences import load_sequence

    with telling(quiet) as progress:
        report = verify(model, [load_sequence(file) for file in files], progress=progress)
    click.echo(json_of(report, ok=report.ok) if as_json else str(report))
    if not report.ok:
        ctx.exit(1)


def _parts(source: str) -> tuple[str, str]:
    """package.module and factory of package.module:factory."""
    place, _, name = source.partition(":")
    if not place or not name:
        raise click.BadParameter(f"{source!r}: expected package.module:factory", param_hint="PACKAGE.MODULE:FACTORY")
    return place, name
