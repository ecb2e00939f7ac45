"""The command line: `undertow COMMAND`. Results on stdout, logs on stderr; exit 0 done, 1 failed, 2 wrong usage."""

import sys
from importlib import import_module

import click

from .engine.errors import ConfigError, UndertowError

_COMMANDS = {
    "export": ("cli_export:export_command", "Turn a trained torch module into a step artifact."),
    "convert": ("cli_adopt:convert_command", "Turn a whole-sequence ONNX model into a step artifact."),
    "adopt": ("cli_adopt:adopt_command", "Turn an ONNX graph that is a step already into a step artifact."),
    "verify": ("cli_export:verify_command", "Re-run an artifact's certificate on this machine."),
    "run": ("cli_run:run_command", "Run a pipeline file; a run that was ended, however, goes on where it was."),
    "replay": (
        "cli_replay:replay_command",
        "Step one stream's records again, beside another model or what was written.",
    ),
    "state": (
        "cli_state:state_command",
        "List, show, export, import, delete what a pipeline has stored of its streams.",
    ),
    "inspect": ("cli_inspect:inspect_command", "Print what an artifact is: inputs, outputs, states, delay, backends."),
    "demo": ("cli_demo:demo_command", "Run recordings as live streams, and write a report."),
}


class _Lazy(click.Group):
    """Imports a command's module when the command is called, so that help does not wait for a compiler."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        return getattr(import_module(f".{module}", __package__), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="undertow")
def command() -> None:
    """Undertow: stream many live sequences through stateful models, step by step."""


def main() -> None:
    """Entry point of the console script."""
    try:
        command()
    except UndertowError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(exit_code(error))


def exit_code(error: UndertowError) -> int:
    """2 where trying again does not help, 1 where something failed."""
    return 2 if isinstance(error, ConfigError) else 1
