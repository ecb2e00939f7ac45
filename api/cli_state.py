"""`undertow state`: what a pipeline has stored of its streams."""

from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from .connectors.config import read_pipeline
from .connectors.opening import open_states
from .connectors.output_lines import key_bytes_of, stream_text
from .connectors.payloads import plain
from .connectors.stored import States, StoredPlace, StoredRow, StoredStreams, check_fits, named, only, states_of
from .connectors.times import format_time

COLUMNS = ("stream", "partition", "offset", "frames", "event_time", "bytes")
pipeline_argument = click.argument("pipeline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
stream_option = click.option(
    "--stream",
    required=True,
    metavar="KEY",
    help="The stream, as `list` shows it; base64:.. of bytes that are no text.",
)
partition_option = click.option(
    "--partition",
    metavar="PARTITION",
    help="Of which partition, where several have the key: topic/0, or the file's name.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


@click.group("state")
def state_command() -> None:
    """Look at what a pipeline has stored of its streams, take one out, put one in, delete one.

    Of a pipeline from Kafka that is its changelog topics: list, show and export read them whether it runs or not, and see rows as
    old as [delivery] checkpoint_interval_s; import and delete are refused while it runs. Of other pipelines it is the local store, which no run may have open.
    """


@state_command.command("list", short_help="List the streams.")
@pipeline_argument
@click.option("--prefix", default="", help="Only streams whose names begin so.")
@click.option("--partition", metavar="PARTITION", help="Only this partition's.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@json_option
def list_command(pipeline: Path, prefix: str, partition: str | None, limit: int, as_json: bool) -> None:
    """List the streams, by partition and name."""
    found = _opened(pipeline).read(
        lambda place, key: stream_text(key).startswith(prefix) and (partition is None or place == partition)
    )
    places = [p for p in found.places.values() if partition in (None, p.partition)]
    rows = found.rows[:limit]
    if as_json:
        facts = {
            "partitions": [p.facts() for p in places],
            "total": len(found.rows),
            "streams": [r.facts() for r in rows],
        }
        click.echo(msgspec.json.encode(facts))
        return
    _table([COLUMNS, *([_cell(row, column) for column in COLUMNS] for row in rows)])
    for place in places:
        _note(found, place)
    if len(found.rows) > limit:
        click.echo(
            f"{len(found.rows) - limit:,} more of {len(found.rows):,}; raise --limit, or give a --prefix", err=True
        )


@state_command.command("show", short_help="Show one stream: its states, and what else is kept of it.")
@pipeline_argument
@stream_option
@partition_option
@click.option("--full", is_flag=True, help="Every value of every state.")
@json_option
def show_command(pipeline: Path, stream: str, partition: str | None, full: bool, as_json: bool) -> None:
    """Show one stream: its states by name, and what else is kept of it."""
    states = _opened(pipeline)
    found, row = _row(states, stream, partition)
    kept = row.kept
    facts = row.facts() | {
        "next_number": kept.seq,
        "next_due": None if kept.due_ns is None else format_time(kept.due_ns),
        "frames_without_answer": sum(span.count for span in kept.spans),
        "quarantined": kept.quarantined,
        "states": {name: _summary(value, full) for name, value in states_of(states.engine, row).items()},
    }
    if as_json:
        click.echo(msgspec.json.encode(facts))
        return
    _note(found, found.places[row.partition])
    tensors = facts.pop("states")
    for name, value in facts.items():
        if value is not None and name != "fits":
            click.echo(f"{name:<22} {stream_text(row.key) if name == 'stream' else value}")
    lines = [
        [name, str(tuple(t["shape"])), t["dtype"], *(f"{k} {t[k]:g}" for k in ("min", "mean", "max") if k in t)]
        for name, t in tensors.items()
    ]
    _table([["state"], *lines])
    for name, tensor in tensors.items():
        if full:
            click.echo(f"{name} = {msgspec.json.encode(tensor['values']).decode()}")


@state_command.command("export", short_help="Write one stream's state to a file.")
@pipeline_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@stream_option
@partition_option
@json_option
def export_command(pipeline: Path, file: Path, stream: str, partition: str | None, as_json: bool) -> None:
    """Write one stream's state to FILE, a snapshot that `Engine.restore` and `state import` take."""
    found, row = _row(_opened(pipeline), stream, partition)
    check_fits(row)
    try:
        file.write_bytes(row.snapshot or b"")
    except OSError as error:
        raise click.BadParameter(f"{file}: cannot be written ({error.strerror})", param_hint="FILE") from error
    _note(found, found.places[row.partition])
    _done(f"exported to {file}", row, as_json)


@state_command.command("import", short_help="Put a state from a file into a changelog.")
@pipeline_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--stream", required=True, metavar="KEY", help="The stream that it becomes; base64:.. of bytes that are no text."
)
@click.option(
    "--partition",
    metavar="TOPIC/N",
    help="Where; by default the partition that Kafka's own clients choose for the key.",
)
@click.option("--replace", is_flag=True, help="In place of a stream of this name that is stored.")
@json_option
def import_command(
    pipeline: Path, file: Path, stream: str, partition: str | None, replace: bool, as_json: bool
) -> None:
    """Put a snapshot of the same model into a changelog: the stream goes on from it with its first record that is not committed.

    Refused while the pipeline runs. Numbers and times of its frames are not in a snapshot: they begin with the next record.
    """
    row = _opened(pipeline).put(key_bytes_of(stream), file.read_bytes(), partition, replace)
    _done("imported", row, as_json)


@state_command.command("delete", short_help="Delete one stream.")
@pipeline_argument
@stream_option
@partition_option
@json_option
def delete_command(pipeline: Path, stream: str, partition: str | None, as_json: bool) -> None:
    """Delete one stream: its next record begins a new one, from the initial state. Nothing is flushed. Refused while the pipeline runs."""
    states = _opened(pipeline)
    row = only(states.read(named(stream, partition)), stream, partition)
    states.delete(row)
    _done("deleted", row, as_json)


def _opened(pipeline: Path) -> States:
    return open_states(read_pipeline(pipeline))


def _row(states: States, stream: str, partition: str | None) -> tuple[StoredStreams, StoredRow]:
    found = states.read(named(stream, partition), snapshots=True)
    return found, only(found, stream, partition)


def _done(what: str, row: StoredRow, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(row.facts()))
    else:
        click.echo(
            f"{what}: stream {stream_text(row.key)} of {row.partition}, {row.kept.frames} frames, at offset {row.offset}"
        )


def _note(found: StoredStreams, place: StoredPlace) -> None:
    """What has to be known of a partition to read its rows right."""
    if place.behind > 0:
        click.echo(
            f"{place.partition}: rows may lack records {place.replay_from} to {place.committed}, which the next run steps into them",
            err=True,
        )
    if place.fingerprint not in (None, found.fingerprint):
        click.echo(f"{place.partition}: written by another model, {(place.fingerprint or b'').hex()}", err=True)


def _cell(row: StoredRow, column: str) -> str:
    value = stream_text(row.key) if column == "stream" else row.facts()[column]
    other = " (another model's)" if column == "bytes" and not row.fits else ""
    return "-" if value is None else f"{value}{other}"


def _summary(value: np.ndarray, full: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"shape": value.shape, "dtype": str(value.dtype)}
    if value.size and value.dtype.kind in "fiu":
        facts |= {"min": float(value.min()), "mean": float(value.mean()), "max": float(value.max())}
    return facts | ({"values": plain(value)} if full else {})


def _table(lines: list[Any]) -> None:
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip())
