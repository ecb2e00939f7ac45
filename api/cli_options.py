"""Options that `export`, `convert` and `adopt` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Ahead(click.ParamType):
    """How many frames ahead: a whole number, or all."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Literal["all"] | int:
        if str(value).lower() == "all":
            return "all"
        if not str(value).isdigit():
            self.fail(f"{value!r}: expected a whole number of frames, or all", param, ctx)
        return int(value)


class Window(click.ParamType):
    """Frames behind, or frames behind and ahead."""

    name = "N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, int]:
        parts = str(value).split(",")
        if len(parts) > 2 or not all(part.isdigit() for part in parts):
            self.fail(f"{value!r}: expected a number of frames, or two between a comma", param, ctx)
        return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


output_option = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The artifact to write."
)
rate_option = click.option(
    "--sample-rate", type=click.FloatRange(min=0, min_open=True), help="Frames a second, kept in the artifact."
)
labels_option = click.option("--labels", help="Names of the output's features, between commas.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
frames_option = click.option(
    "--frames-per-step",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Frames that one step takes; a multiple of it where the model gives fewer outputs than it gets frames.",
)
_OPTIONS = (
    frames_option,
    click.option(
        "--window", type=Window(), help="Frames before, and after, that attention to all frames is held to: N or N,N."
    ),
    click.option(
        "--lookahead",
        type=Ahead(),
        default="0",
        show_default=True,
        help="Frames that reverse layers see ahead; all: a stream's outputs come at its end, exactly.",
    ),
    click.option(
        "--reduce",
        type=click.Choice(("running",)),
        help="A sum, mean or largest value over time is one of the frames so far.",
    ),
)


def bounds_options(command: F) -> F:
    """--frames-per-step, --window, --lookahead and --reduce."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def names_of(text: str | None) -> list[str] | None:
    """The names between commas."""
    return None if text is None else [name.strip() for name in text.split(",")]
