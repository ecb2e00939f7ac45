"""What a run tells as it goes on."""

import time
from collections.abc import Callable
from typing import Any

import click

from .connectors.summary import Summary

LIVE_S, PLAIN_S = 0.25, 5.0  # between two looks at the figures: on a terminal, elsewhere


class Progress:
    """What `run` tells as it goes on: a live line on a terminal, a line every few seconds elsewhere; both on stderr."""

    def __init__(self, terminal: bool):
        self._due = time.monotonic() + (0 if terminal else PLAIN_S)
        self._live: Any = None
        if terminal:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)

    def __enter__(self) -> Callable[[Callable[[], Summary]], None]:
        if self._live is not None:
            self._live.start()
        return self._told

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _told(self, summary: Callable[[], Summary]) -> None:
        if time.monotonic() < self._due:
            return
        line = _line(summary())
        if self._live is not None:
            self._live.update(line, refresh=True)
        else:
            click.echo(line, err=True)
        self._due = time.monotonic() + (LIVE_S if self._live is not None else PLAIN_S)


def _line(s: Summary) -> str:
    bad = f", {s.dead_letters:,} dead letters" if s.dead_letters else ""
    replayed = f", {s.replayed:,} replayed" if s.replayed else ""
    behind = f", {s.lag:,} behind" if s.lag is not None else ""
    return (
        f"{s.records:,} records, {s.frames:,} frames{bad}{replayed}{behind}, {s.streams_live:,} streams live, "
        f"{s.steps_per_s:,.0f} steps/s, last commit {s.last_commit_s:.1f} s ago"
    )
