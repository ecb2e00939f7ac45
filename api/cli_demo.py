"""`undertow demo`: recordings as live streams through a pipeline, watched while they run, compared with torch."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .connectors.summary import Summary
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
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Times real time; the pipeline's rate if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, and no table.")
def demo_command(folder: Path | None, out: Path | None, speed: float | None, as_json: bool) -> None:
    """Play recordings as live streams through a small recurrent model, and write a report.

    FOLDER holds the recordings, the model and the pipeline that is run (examples/activity/export.py writes one); without
    it, an excerpt that is part of the package runs in ./undertow-demo: fourteen recordings of one person, ten seconds
    each. Needs neither torch nor a network.
    """
    out = out or folder or Path("undertow-demo")
    out.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder = out
        shutil.copytree(excerpt(), folder, dirs_exist_ok=True)
    bundle = read_bundle(folder)
    console = Console(stderr=as_json)
    run = Run(bundle, speed)
    summary = _watch(bundle, run, console)
    found, one_us = compare(bundle, run.sink.answers), time_one_stream(bundle)
    page = write_report(out / "report.html", _report(bundle, run, summary, found, one_us))
    if as_json:
        click.echo(json.dumps(_figures(bundle, summary, found, one_us) | {"report": str(page)}))
    else:
        console.print(_table(bundle, run, summary, found))
        console.print(_details(summary, found, one_us), soft_wrap=True)
        console.print(f"answers: {run.answers_path}\nreport: {page}", soft_wrap=True)


def _watch(bundle: Bundle, run: Run, console: Console) -> Summary:
    """Plays the run: a live table on a terminal, a line a second elsewhere."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            return run.play(_every(0.1, lambda s: live.update(_table(bundle, run, s), refresh=True)))

    def line(s: Summary) -> None:
        done = f"{s.frames:,} of {bundle.total:,} steps, {s.streams_live} streams live"
        console.print(f"{done}, {run.sink.accuracy:.1%} right so far", soft_wrap=True)

    return run.play(_every(1, line))


def _every(seconds: float, show: Callable[[Summary], None]) -> Callable[[Callable[[], Summary]], None]:
    """Shows the figures each time that so much wall-clock time has passed."""
    due = time.monotonic() + seconds

    def told(summary: Callable[[], Summary]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            show(summary())
            due = time.monotonic() + seconds

    return told


def _table(bundle: Bundle, run: Run, summary: Summary, found: Comparison | None = None) -> Table:
    """The figures so far; all of them once `found` is known."""
    live = f"{summary.streams_live} streams live, {summary.frames / bundle.total:.0%} played"
    table = Table(
        title="Activities from a smartwatch, frame by frame", caption=None if found else live, title_justify="left"
    )
    for name in ("streams", "steps", "steps/s", "p50 µs", "p99 µs", "right", "torch", "differ"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        str(len(bundle.frames)),
        f"{summary.frames:,}",
        f"{summary.steps_per_s:,.0f}",
        f"{summary.step_p50_us:,.0f}",
        f"{summary.step_p99_us:,.0f}",
        f"{run.sink.accuracy:.2%}",
        f"{found.torch_accuracy:.2%}" if found else "",
        f"{found.worst_difference:.1e}" if found else "",
    )
    return table


def _details(summary: Summary, found: Comparison, one_us: np.ndarray) -> str:
    return (
        f"p50, p99: the engine's time for a batch of the live streams ({summary.backend} backend); one stream alone: {_spread(one_us)}\n"
        f"right: frames whose most likely activity is the truth; recordings by majority: {found.by_recording:.1%}\n"
        f"torch: the same on whole recordings; recordings {found.torch_by_recording:.1%}; frames on which the two disagree: "
        f"{found.disagreements}; differ: at most by so much in a label's probability"
    )


def _spread(times_us: np.ndarray) -> str:
    p50, p99 = np.percentile(times_us, (50, 99))
    return f"{p50:,.1f} / {p99:,.1f} µs"


def _figures(bundle: Bundle, summary: Summary, found: Comparison, one_us: np.ndarray) -> dict[str, Any]:
    """The figures for a script, in the units that their names say."""
    one_p50, one_p99 = np.percentile(one_us, (50, 99)).tolist()
    return {
        "streams": len(bundle.frames),
        "frames": summary.frames,
        "steps_per_s": summary.steps_per_s,
        "step_p50_us": summary.step_p50_us,
        "step_p99_us": summary.step_p99_us,
        "one_stream_step_p50_us": one_p50,
        "one_stream_step_p99_us": one_p99,
        "accuracy": found.accuracy,
        "torch_accuracy": found.torch_accuracy,
        "recording_accuracy": found.by_recording,
        "torch_recording_accuracy": found.torch_by_recording,
        "worst_difference": found.worst_difference,
        "disagreements": found.disagreements,
    }


def _report(bundle: Bundle, run: Run, summary: Summary, found: Comparison, one_us: np.ndarray) -> Report:
    count = len(bundle.frames)
    tiles = [
        ("Streams", str(count), "at the same time"),
        ("Steps a second", f"{summary.steps_per_s:,.0f}", f"{run.rate} times real time, from file to file"),
        ("A batch of all streams", f"{summary.step_p50_us:.0f} µs", f"p50; p99 {summary.step_p99_us:.0f} µs"),
        ("Right, per frame", f"{found.accuracy:.1%}", f"torch itself: {found.torch_accuracy:.1%}"),
        ("Worst difference", f"{found.worst_difference:.0e}", "from torch, in a label's probability"),
    ]
    figures = [
        ("Frames", f"{bundle.total:,}"),
        ("One stream alone, a step, p50 / p99", _spread(one_us)),
        ("Recordings right by majority", f"{found.by_recording:.1%} (torch: {found.torch_by_recording:.1%})"),
        ("Frames on which the stream and torch disagree", str(found.disagreements)),
        ("State of one stream", f"{bundle.artifact.spec.state_bytes:,} bytes"),
        ("Backend", summary.backend),
        ("Machine", machine()),
    ]
    intro = (
        f"{count} recordings of people whom the model has never seen run as {count} concurrent streams, frame by frame. "
        "What comes out is compared with the labels, and with torch on each whole recording."
    )
    picture = portrait(bundle, telling_stream(bundle, run.sink.answers), CHANNELS, PANELS)
    return Report(
        "Undertow: activities from a smartwatch",
        intro,
        tiles,
        figures,
        bundle.labels,
        found.confusion,
        picture,
        PROVENANCE,
    )
