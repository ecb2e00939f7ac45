"""What a slow command is doing, on stderr, where somebody watches."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


@contextmanager
def telling(quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """To be told each step as it begins: shows it with a spinner, and each that is over with its time.

    None where `quiet` or where stderr is no terminal.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if quiet or not console.is_terminal:
        yield None
        return
    began, current = time.monotonic(), ""

    def over() -> None:
        if current:
            console.print(f"✓ {current}  {time.monotonic() - began:.1f} s", style="dim")

    with console.status("", spinner="dots") as status:

        def tell(step: str) -> None:
            nonlocal began, current
            over()
            began, current = time.monotonic(), step
            status.update(f"{step} ...")

        yield tell
        over()
