"""`undertow run`: a pipeline file, run until its source is exhausted or a signal ends it."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from .cli import exit_code
from .connectors.config import LogConfig, PlacedPipeline, read_pipeline
from .connectors.logs import logging_to_stderr, secrets_of
from .connectors.opening import Parts, check_parts, open_parts
from .connectors.running import run
from .connectors.secret import hidden
from .connectors.summary import Summary, figures
from .engine.errors import UndertowError

log = logging.getLogger("undertow.run")

LIVE_S, PLAIN_S = 0.25, 5.0  # between two looks at the figures: on a terminal, elsewhere


@click.command("run")
@click.argument("pipeline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--check",
    is_flag=True,
    help="Validate the file, load the model, look at every input file's beginning, print the plan, run nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the summary as JSON on stdout.")
def run_command(pipeline: Path, check: bool, as_json: bool) -> None:
    """Run PIPELINE, a TOML file: from its source through the model to its sink.

    A run that was ended by SIGTERM, SIGINT, a crash or kill -9 goes on where it was when it is started again. Progress and
    the summary go to stderr; stdout is the sink's, where it is the sink, and otherwise only --json writes there.
    """
    placed = read_pipeline(pipeline)
    if as_json and not check and placed.pipeline.sink.__struct_config__.tag == "stdout":
        raise click.UsageError("--json writes the summary to stdout, and so does [sink] type = 'stdout'; leave one out")
    if check:
        parts = open_parts(placed, None, None)
        check_parts(parts)
        _print(_plan(placed, parts), as_json, err=False)
        return
    logs = placed.pipeline.log
    secrets = secrets_of(placed.pipeline)
    with logging_to_stderr(logs or LogConfig(level="warning"), placed.pipeline.name, secrets):
        if logs is not None and logs.format == "json":
            _run_logged(placed, as_json)
        else:
            _run_told(placed, as_json)


def _run_told(placed: PlacedPipeline, as_json: bool) -> None:
    """Progress and summary are for people to read."""
    resumes = _resumes(placed)
    if resumes:
        click.echo(f"goes on from {placed.store_path}", err=True)
    with Progress(sys.stderr.isatty()) as told:
        summary = run(placed, told=told)
    if resumes and not summary.records and summary.stopped_by is None:
        click.echo(
            "nothing was new: earlier runs committed all of the input; to do it again, move the store and the output away",
            err=True,
        )
    _print(figures(summary), as_json, err=not as_json)


def _run_logged(placed: PlacedPipeline, as_json: bool) -> None:
    """Progress and errors are lines of the log, and nothing else is on stderr; `run` itself logs the summary."""
    due = time.monotonic() + PLAIN_S

    def told(summary: Callable[[], Summary]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            log.info("progress", extra=figures(summary()))
            due = time.monotonic() + PLAIN_S

    try:
        summary = run(placed, told=told)
    except UndertowError as error:
        log.error(str(error), extra={"error": type(error).__name__})
        sys.exit(exit_code(error))
    except Exception:
        log.exception("unexpected error")
        sys.exit(1)
    if as_json:
        _print(figures(summary), as_json, err=False)


def _resumes(placed: PlacedPipeline) -> bool:
    return (placed.store_path / "data.mdb").exists()


def _plan(placed: PlacedPipeline, parts: Parts) -> dict[str, Any]:
    pipeline, engine = placed.pipeline, parts.batch.engine
    return {
        "pipeline": pipeline.name,
        "model": str(placed.path(pipeline.model.path)),
        "fingerprint": engine.fingerprint.hex(),
        "backend": engine.backend,
        "max_streams": pipeline.model.max_streams,
        "bytes_per_stream": engine.spec.state_bytes,
        "source": msgspec.to_builtins(pipeline.source, enc_hook=hidden),
        "policy": msgspec.to_builtins(pipeline.policy),
        "decode": msgspec.to_builtins(pipeline.decode),
        "sink": msgspec.to_builtins(pipeline.sink, enc_hook=hidden),
        "delivery": msgspec.to_builtins(pipeline.delivery),
        "store": str(placed.store_path),
        "resumes": _resumes(placed),
        "dead_letters": str(placed.path(pipeline.dead_letters.path)) if pipeline.dead_letters else None,
        "metrics": msgspec.to_builtins(pipeline.metrics),
        "log": msgspec.to_builtins(pipeline.log),
    }


def _print(facts: dict[str, Any], as_json: bool, err: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(facts).decode())
        return
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<18} {_told(value)}", err=err)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {_inner(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _inner(value: Any) -> str:
    return f"{{ {_told(value)} }}" if isinstance(value, dict) else str(value)


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
    return (
        f"{s.records:,} records, {s.frames:,} frames{bad}{replayed}, {s.streams_live:,} streams live, "
        f"{s.steps_per_s:,.0f} steps/s, last commit {s.last_commit_s:.1f} s ago"
    )
