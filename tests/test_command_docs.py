"""Commands that the pages show are commands, with options that there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

from undertow.cli import command

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> list[str]:
    return sorted(
        {
            line
            for page in PAGES
            for block in SHELL.findall(page.read_text(encoding="utf-8"))
            for line in block.splitlines()
            if line.startswith("undertow ")
        }
    )


@pytest.mark.parametrize("line", shown())
def test_the_command_is_there(line: str) -> None:
    """Every word that looks like an option is one of the command's, and required ones are given."""
    words, found = shlex.split(line, comments=True)[1:], command
    context = click.Context(command)
    while isinstance(found, click.Group):
        name, *words = words
        found = found.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
    known = {option: p for p in found.params for option in (*p.opts, *p.secondary_opts)}
    given = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert set(given) <= known.keys() | {"--help"}
    needed = [p for p in found.params if isinstance(p, click.Option) and p.required]
    assert all(set(p.opts) & set(given) for p in needed)


def test_the_operations_are_shown() -> None:
    """Each command of `state`, and each option of `replay`, is on the page of operations."""
    page = (ROOT / "docs" / "kafka-operations.md").read_text(encoding="utf-8")
    context = click.Context(command)
    state, replay = command.get_command(context, "state"), command.get_command(context, "replay")
    assert isinstance(state, click.Group)
    assert replay is not None
    assert all(f"undertow state {name} " in page for name in state.commands)
    options = [p.opts[0] for p in replay.params if isinstance(p, click.Option)]
    assert [option for option in options if option not in page] == []
