"""`undertow demo`: recordings as live streams through one engine, watched while they run, compared with torch."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .demo import Bundle, Comparison, compare, excerpt, machine, portrait, read_bundle, telling_stream, time_one_stream
from .demo_run import Run
from .report import Report, write_report

CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
PANELS = (("Acceleration", "g", range(3)), ("Turning rate", "rad/s", range(3, 6)))
PROVENANCE = (
    "Recordings: smartwatch motion of people doing shoulder exercises, from seglearn 1.2.5 (BSD 3-Clause, copyright "
    "2018 David M. Burns); study: arXiv 1802.01489."
)


@click.command("demo")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where report.html goes; FOLDER or ./undertow-demo if not given."
)
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Times real time; as fast as it goes if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, and no table.")
def demo_command(folder: Path | None, out: Path | None, speed: float | None, as_json: bool) -> None:
    """Run recordings through a small recurrent model as live streams, and write a report.

    FOLDER holds the recordings and the model (examples/activity/export.py writes one); without it, an excerpt that is
    part of the package runs: fourteen recordings of one person, ten seconds each. Needs neither torch nor a network.
    """
    out = out or folder or Path("undertow-demo")
    bundle = read_bundle(folder or excerpt())
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=as_json)
    run = Run(bundle, speed)
    _watch(bundle, run, console)
    found, one_us = compare(bundle, run.outputs), time_one_stream(bundle)
    page = write_report(out / "report.html", _report(bundle, run, found, one_us))
    if as_json:
        click.echo(json.dumps(_figures(bundle, run, found, one_us) | {"report": str(page)}))
    else:
        console.print(_table(bundle, run, found))
        console.print(_details(run, found, one_us), soft_wrap=True)
        console.print(f"report: {page}", soft_wrap=True)


def _watch(bundle: Bundle, run: Run, console: Console) -> None:
    """Plays the run: a live table on a terminal, a line a second elsewhere."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            for _ in _every(0.1, run):
                live.update(_table(bundle, run), refresh=True)
    else:
        for _ in _every(1, run):
            done = f"{run.steps:,} of {bundle.total:,} steps, {run.live} streams live, {run.accuracy:.1%} right so far"
            console.print(done, soft_wrap=True)


def _every(seconds: float, run: Run) -> Iterator[None]:
    """Plays the run; gives a value each time that so much wall-clock time has passed."""
    due = time.monotonic() + seconds
    for _ in run.play():
        if time.monotonic() >= due:
            yield
            due = time.monotonic() + seconds


def _table(bundle: Bundle, run: Run, found: Comparison | None = None) -> Table:
    """The figures so far; all of them once `found` is known."""
    caption = None if found else f"{run.live} streams live, {run.steps / bundle.total:.0%} played"
    table = Table(title="Activities from a smartwatch, frame by frame", caption=caption, title_justify="left")
    for name in ("streams", "steps", "steps/s", "p50 µs", "p99 µs", "right", "torch", "worst diff"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        str(len(bundle.frames)),
        f"{run.steps:,}",
        f"{run.steps_per_s:,.0f}",
        *(_quantiles(run.step_us) or ("", "")),
        f"{run.accuracy:.2%}",
        f"{found.torch_accuracy:.2%}" if found else "",
        f"{found.worst_difference:.1e}" if found else "",
    )
    return table


def _details(run: Run, found: Comparison, one_us: np.ndarray) -> str:
    return (
        f"p50, p99: one engine.step of all live streams ({run.engine.backend} backend); one stream alone: {_spread(one_us)}\n"
        f"right: frames whose most likely activity is the truth; recordings by majority: {found.by_recording:.1%}\n"
        f"torch: the same on whole recordings; recordings {found.torch_by_recording:.1%}; frames on which the two disagree: "
        f"{found.disagreements}"
    )


def _quantiles(times_us: np.ndarray) -> tuple[str, str] | None:
    """p50 and p99, or None where nothing has been timed yet."""
    if not len(times_us):
        return None
    p50, p99 = np.percentile(times_us, (50, 99))
    return f"{p50:,.1f}", f"{p99:,.1f}"


def _spread(times_us: np.ndarray) -> str:
    return " / ".join(_quantiles(times_us) or ()) + " µs"


def _figures(bundle: Bundle, run: Run, found: Comparison, one_us: np.ndarray) -> dict[str, Any]:
    """The figures for a script, in the units that their names say."""
    (p50, p99), (one_p50, one_p99) = (np.percentile(times, (50, 99)).tolist() for times in (run.step_us, one_us))
    return {
        "streams": len(bundle.frames),
        "frames": run.steps,
        "steps_per_s": run.steps_per_s,
        "step_p50_us": p50,
        "step_p99_us": p99,
        "one_stream_step_p50_us": one_p50,
        "one_stream_step_p99_us": one_p99,
        "accuracy": found.accuracy,
        "torch_accuracy": found.torch_accuracy,
        "recording_accuracy": found.by_recording,
        "torch_recording_accuracy": found.torch_by_recording,
        "worst_difference": found.worst_difference,
        "disagreements": found.disagreements,
    }


def _report(bundle: Bundle, run: Run, found: Comparison, one_us: np.ndarray) -> Report:
    p50, p99 = np.percentile(run.step_us, (50, 99))
    count = len(bundle.frames)
    tiles = [
        ("Streams", str(count), "at the same time"),
        ("Steps a second", f"{run.steps_per_s:,.0f}", "one thread, in engine.step"),
        (f"A step of {count} streams", f"{p50:.0f} µs", f"p50; p99 {p99:.0f} µs"),
        ("Right, per frame", f"{found.accuracy:.1%}", f"torch itself: {found.torch_accuracy:.1%}"),
        ("Worst difference", f"{found.worst_difference:.0e}", "from torch, in a log-probability"),
    ]
    figures = [
        ("Frames", f"{bundle.total:,}"),
        ("One stream alone, a step, p50 / p99", _spread(one_us)),
        ("Recordings right by majority", f"{found.by_recording:.1%} (torch: {found.torch_by_recording:.1%})"),
        ("Frames on which the stream and torch disagree", str(found.disagreements)),
        ("State of one stream", f"{bundle.artifact.spec.state_bytes:,} bytes"),
        ("Backend", run.engine.backend),
        ("Machine", machine()),
    ]
    summary = (
        f"{count} recordings of people whom the model has never seen run as {count} concurrent streams, frame by frame. "
        "What comes out is compared with the labels, and with torch on each whole recording."
    )
    picture = portrait(bundle, telling_stream(bundle, run.outputs), CHANNELS, PANELS)
    return Report(
        "Undertow: activities from a smartwatch",
        summary,
        tiles,
        figures,
        bundle.labels,
        found.confusion,
        picture,
        PROVENANCE,
    )
