"""`undertow export` and `undertow verify`."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec

from .engine.errors import ExportError

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
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The artifact to write."
)
@click.option(
    "--example-shape", type=Numbers(), required=True, help="The shape that the module takes: batch, time and features."
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="The dtype that it takes."
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights to load, a state_dict saved by torch.save. No code in it is run.",
)
@click.option(
    "--time-axis", type=click.IntRange(min=0), default=1, show_default=True, help="Which axis of the input is time."
)
@click.option(
    "--sample-rate", type=click.FloatRange(min=0, min_open=True), help="Frames a second, kept in the artifact."
)
@click.option("--labels", help="Names of the output's features, between commas.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export_command(
    source: str,
    output: Path,
    example_shape: tuple[int, ...],
    dtype: str,
    checkpoint: Path | None,
    time_axis: int,
    sample_rate: float | None,
    labels: str | None,
    as_json: bool,
) -> None:
    """Export a torch module to a step artifact.

    FACTORY is a function without arguments that returns the module, or the module itself. The example is zeros of
    --example-shape: only its shape and dtype matter.
    """
    from .exporters import export

    module = _module(source)
    torch = _torch()
    if checkpoint is not None:
        _load(torch, module, checkpoint)
    example = torch.zeros(example_shape, dtype=getattr(torch, dtype))
    names = None if labels is None else [label.strip() for label in labels.split(",")]
    report = export(module, example, output, time_axis=time_axis, sample_rate_hz=sample_rate, labels=names)
    click.echo(_json(report) if as_json else str(report))


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def verify_command(ctx: click.Context, model: Path, as_json: bool) -> None:
    """Check on this machine that every backend does what the artifact MODEL says. Exit 1 where one does not."""
    from .exporters import verify

    report = verify(model)
    click.echo(_json(report, ok=report.ok) if as_json else str(report))
    if not report.ok:
        ctx.exit(1)


def _json(report: Any, **more: Any) -> str:
    plain = msgspec.to_builtins(report, enc_hook=str)
    return msgspec.json.encode(plain | more).decode()


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise ExportError("export needs torch, which is not installed; pip install 'undertow[export]'") from error


def _module(source: str) -> Any:
    """The torch module that `package.module:factory` makes; the current folder is searched too, as by `python -m`."""
    place, colon, name = source.partition(":")
    if not colon or not place or not name:
        raise click.BadParameter(f"{source!r}: expected package.module:factory", param_hint="PACKAGE.MODULE:FACTORY")
    torch = _torch()
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = import_module(place)
    except ModuleNotFoundError as error:
        raise ExportError(f"{source}: no module named '{error.name}' is found here or on the path") from error
    finally:
        sys.path.remove(here)
    if not hasattr(found, name):
        raise ExportError(f"{source}: the module '{place}' has no '{name}'")
    thing = getattr(found, name)
    made = thing if isinstance(thing, torch.nn.Module) else thing() if callable(thing) else thing
    if not isinstance(made, torch.nn.Module):
        raise ExportError(f"{source}: gives a {type(made).__name__}, expected a torch.nn.Module")
    return made


def _load(torch: Any, module: Any, checkpoint: Path) -> None:
    """Puts the checkpoint's weights into the module, all of them and no other."""
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises pickle, zip, OS and runtime errors
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            f"{checkpoint}: cannot be loaded as plain weights ({first}); save it with torch.save(module.state_dict(), path)"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ExportError(
            f"{checkpoint}: is not a state_dict of tensors; save it with torch.save(module.state_dict(), path)"
        )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ExportError(f"{checkpoint}: does not fit the module: {error}") from error
