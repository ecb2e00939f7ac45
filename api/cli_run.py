"""`undertow run`: a pipeline file, run until its source is exhausted or a signal ends it."""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from .cli import exit_code
from .connectors.config import LogConfig, PlacedPipeline, read_pipeline
from .connectors.kafka.config import KafkaSourceConfig
from .connectors.logs import logging_to_stderr, secrets_of
from .connectors.summary import Summary, figures
from .connectors.supervising import Supervisor
from .connectors.worker import Reports, check_workers, end_with, of_worker
from .engine.errors import UndertowError
from .plan import checked_plan, print_facts, resumes
from .progress import PLAIN_S, Progress

log = logging.getLogger("undertow.run")
Told = Callable[[Callable[[], Summary]], None]
Runs = Callable[[Told], tuple[int, Summary]]  # the exit code, and what was done


@click.command("run")
@click.argument("pipeline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--check",
    is_flag=True,
    help="Validate the file, load the model, look at every input file's beginning, or at Kafka's topics and offsets; print the plan, run nothing.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    metavar="N",
    help="Run N processes that share the partitions of Kafka; one that fails is started again.",
)
@click.option("--worker", "member", type=(int, int), hidden=True)  # its number, and the process id of who starts it
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the summary as JSON on stdout.")
def run_command(pipeline: Path, check: bool, workers: int, member: tuple[int, int] | None, as_json: bool) -> None:
    """Run PIPELINE, a TOML file: from its source through the model to its sink.

    A run that was ended by SIGTERM, SIGINT, a crash or kill -9 goes on where it was when it is started again. Progress and
    the summary go to stderr; stdout is the sink's, where it is the sink, and otherwise only --json writes there.
    """
    placed = read_pipeline(pipeline)
    if as_json and not check and placed.pipeline.sink.__struct_config__.tag == "stdout":
        raise click.UsageError("--json writes the summary to stdout, and so does [sink] type = 'stdout'; leave one out")
    check_workers(placed, workers)
    if member is not None:
        end_with(member[1])
        placed = of_worker(placed, member[0])
    logs = placed.pipeline.log
    with logging_to_stderr(
        logs or LogConfig(level="warning"), placed.pipeline.name, secrets_of(placed.pipeline), placed.worker
    ):
        if check:
            print_facts(checked_plan(placed), as_json, err=False)
            return
        if member is not None:
            sys.exit(_run_worker(placed))
        runs = partial(_run_several, placed, pipeline, workers) if workers > 1 else partial(_run_here, placed)
        if logs is not None and logs.format == "json":
            sys.exit(_run_logged(runs, as_json))
        else:
            sys.exit(_run_told(placed, runs, as_json))


# ---------------------------------------------------------------------------------------------- in one process, or several


def _run_here(placed: PlacedPipeline, told: Told) -> tuple[int, Summary]:
    from .connectors.running import run  # loads the engine, a second and 100 MB that a supervisor has no use for

    gc.freeze()  # what is loaded stays: the collector would look at all of it again each time that many rows come
    return 0, run(placed, told=told)


def _run_several(placed: PlacedPipeline, file: Path, workers: int, told: Told) -> tuple[int, Summary]:
    """Each worker is this command with `--worker`; it reads the file itself."""

    def command(number: int) -> list[str]:
        program = [sys.executable, "-P", "-m", "undertow", "run", str(file.absolute())]
        return [*program, "--worker", str(number), str(os.getpid())]

    code, summary = asyncio.run(Supervisor(command, workers, placed.pipeline.delivery.stop_timeout_s, told).run())
    log.info("ended", extra=figures(summary))
    return code, summary


def _run_worker(placed: PlacedPipeline) -> int:
    """Says what it does to its supervisor alone."""
    reports = Reports()

    def runs() -> int:
        code, summary = _run_here(placed, reports)
        reports.write(summary)
        return code

    return _logging_errors(runs)


# ---------------------------------------------------------------------------------------------- for people, and for collectors


def _run_told(placed: PlacedPipeline, runs: Runs, as_json: bool) -> int:
    """Progress and summary are for people to read."""
    begins, nothing_new = _place(placed)
    if begins:
        click.echo(begins, err=True)
    with Progress(sys.stderr.isatty()) as told:
        code, summary = runs(told)
    if begins and code == 0 and not summary.records and summary.stopped_by is None:
        click.echo(f"nothing was new: {nothing_new}", err=True)
    print_facts(figures(summary), as_json, err=not as_json)
    return code


def _place(placed: PlacedPipeline) -> tuple[str, str]:
    """Where a run goes on, if it does; and why a run would find nothing there."""
    source = placed.pipeline.source
    if isinstance(source, KafkaSourceConfig):
        group = f"group '{source.group_id or placed.pipeline.name}'"
        return f"joins {group} at {source.bootstrap_servers}", f"{group} has committed all that its topics hold"
    again = "earlier runs committed all of the input; to do it again, move the store and the output away"
    return f"goes on from {placed.store_path}" if resumes(placed) else "", again


def _run_logged(runs: Runs, as_json: bool) -> int:
    """Progress and errors are lines of the log, and nothing else is on stderr; who runs it logs the summary."""
    due = time.monotonic() + PLAIN_S

    def told(summary: Callable[[], Summary]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            log.info("progress", extra=figures(summary()))
            due = time.monotonic() + PLAIN_S

    def logged() -> int:
        code, summary = runs(told)
        if as_json:
            print_facts(figures(summary), as_json, err=False)
        return code

    return _logging_errors(logged)


def _logging_errors(runs: Callable[[], int]) -> int:
    try:
        return runs()
    except UndertowError as error:
        log.error(str(error), extra={"error": type(error).__name__})
        return exit_code(error)
    except Exception:
        log.exception("unexpected error")
        return 1
