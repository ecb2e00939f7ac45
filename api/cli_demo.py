"""`undertow demo`: recordings as live streams through `undertow run`, watched while they run, compared with torch."""

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from .demo import Bundle, Comparison, Latency, compare, excerpt, machine, measure, portrait, read_bundle, telling_stream
from .demo_run import Run, running
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
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the run and report.html.  [default: FOLDER, or ./undertow-demo]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, and no table.")
def demo_command(folder: Path | None, out: Path | None, as_json: bool) -> None:
    """Run recordings through a small recurrent model as live streams, and write a report.

    FOLDER holds the recordings and the model (examples/activity/export.py writes one); without it, a short excerpt that
    is part of the package runs: seven recordings of one person, 20 seconds each. Needs neither torch nor a network.
    """
    out = out or folder or Path("undertow-demo")
    bundle = read_bundle(folder or excerpt())
    console = Console(stderr=as_json)
    run = _watched(bundle, out, console)
    found = compare(bundle, run.outputs())
    latency = measure(bundle)
    page = write_report(out / "report.html", _report(bundle, run, found, latency))
    if as_json:
        click.echo(json.dumps(_figures(bundle, run, found, latency) | {"report": str(page)}))
    else:
        console.print(_table(bundle, run, found, latency))
        console.print(f"report: {page}", soft_wrap=True)


def _watched(bundle: Bundle, out: Path, console: Console) -> Run:
    """The finished run, shown while it ran: a live table on a terminal, a line now and then elsewhere."""
    with running(bundle, out) as run:
        if console.is_terminal:
            with Live(console=console, transient=True, refresh_per_second=10) as live:
                while run.poll():
                    live.update(_table(bundle, run))
        else:
            said = time.monotonic()
            while run.poll():
                if time.monotonic() - said > 1:
                    said = time.monotonic()
                    console.print(
                        f"{run.frames:,} of {bundle.total:,} steps, {run.accuracy:.1%} right so far", soft_wrap=True
                    )
    return run


def _table(bundle: Bundle, run: Run, found: Comparison | None = None, latency: Latency | None = None) -> Group:
    """The figures so far; all of them once `found` and `latency` are known."""
    main = Table(title="undertow demo: activities from a smartwatch, frame by frame", title_justify="left")
    for name in ("streams", "steps", "steps/s", "p50 / p99 of a step", "right, per frame", "torch", "worst difference"):
        main.add_column(name, justify="right")
    main.add_row(
        str(len(run.streams)),
        f"{run.frames:,} / {bundle.total:,}",
        f"{run.rate:,.0f}",
        f"{_spread(latency.batch_us)}" if latency else "",
        f"{found.accuracy if found else run.accuracy:.2%}",
        f"{found.torch_accuracy:.2%}" if found else "",
        f"{found.worst_difference:.1e}" if found else "",
    )
    return Group(main, *([_details(found, latency)] if found and latency else []))


def _details(found: Comparison, latency: Latency) -> str:
    return (
        f"steps/s: through `undertow run`, from the first to the last output in the sink's file\n"
        f"a step: engine.step of {latency.batch} streams at once; one stream alone: {_spread(latency.one_us)}\n"
        f"recordings right by majority: {found.by_recording:.1%}, torch {found.torch_by_recording:.1%}; "
        f"frames on which they disagree: {found.disagreements}"
    )


def _spread(times_us: np.ndarray) -> str:
    low, high = np.percentile(times_us, (50, 99))
    return f"{low:.1f} / {high:.1f} µs"


def _figures(bundle: Bundle, run: Run, found: Comparison, latency: Latency) -> dict[str, Any]:
    """The figures for a script, in the units that their names say."""
    quantiles = {
        f"{n}_p{q}_us": float(np.percentile(v, q))
        for n, v in (("step", latency.batch_us), ("one_stream_step", latency.one_us))
        for q in (50, 99)
    }
    return {
        "streams": len(run.streams),
        "frames": bundle.total,
        "steps_per_s": run.rate,
        **quantiles,
        "accuracy": found.accuracy,
        "torch_accuracy": found.torch_accuracy,
        "recording_accuracy": found.by_recording,
        "torch_recording_accuracy": found.torch_by_recording,
        "worst_difference": found.worst_difference,
        "disagreements": found.disagreements,
    }


def _report(bundle: Bundle, run: Run, found: Comparison, latency: Latency) -> Report:
    low, high = np.percentile(latency.batch_us, (50, 99))
    count = len(bundle.frames)
    tiles = [
        ("Streams", str(count), "at the same time"),
        ("Steps a second", f"{run.rate:,.0f}", "through `undertow run`, files to file"),
        (f"A step of {count} streams", f"{low:.0f} µs", f"p50; p99 {high:.0f} µs"),
        ("Right, per frame", f"{found.accuracy:.1%}", f"torch itself: {found.torch_accuracy:.1%}"),
        ("Worst difference", f"{found.worst_difference:.0e}", "from torch, in a log-probability"),
    ]
    figures = [
        ("Frames", f"{bundle.total:,}"),
        ("One stream alone, a step, p50 / p99", _spread(latency.one_us)),
        ("Recordings right by majority", f"{found.by_recording:.1%} (torch: {found.torch_by_recording:.1%})"),
        ("Frames on which the stream and torch disagree", str(found.disagreements)),
        ("State of one stream", f"{bundle.artifact.spec.state_bytes:,} bytes"),
        ("Machine", machine()),
    ]
    summary = (
        f"{count} recordings of people whom the model has never seen run as {count} concurrent streams, frame by frame, through "
        "`undertow run`. What comes out is compared with the labels, and with torch on each whole recording."
    )
    picture = portrait(bundle, telling_stream(bundle, run.outputs()), CHANNELS, PANELS)
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
