"""`undertow replay`: one stream of a pipeline, stepped again on this machine."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np

from .connectors.config import read_pipeline
from .connectors.differences import placed
from .connectors.one_stream import OneStream, Request
from .connectors.output_lines import Steps, json_lines
from .connectors.payloads import plain
from .connectors.replaying import Replayed, replay
from .engine.errors import ConnectorError


class Begin(click.ParamType):
    """start, changelog, or an offset."""

    name = "start|changelog|OFFSET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        if value in ("start", "changelog"):
            return value
        if not str(value).isdigit():
            self.fail(f"{value!r}: expected start, changelog or an offset", param, ctx)
        return int(value)


@click.command("replay")
@click.argument("pipeline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stream", required=True, metavar="KEY", help="The stream; base64:.. of bytes that are no text.")
@click.option(
    "--partition",
    metavar="PARTITION",
    help="topic/0, or a file's name. By default that which Kafka's own clients choose for the key; of files all.",
)
@click.option(
    "--from",
    "begin",
    type=Begin(),
    metavar="start|changelog|OFFSET",
    default="start",
    show_default=True,
    help="start: the first record that there is, from the initial state; an offset, likewise; changelog: on from the stored row.",
)
@click.option(
    "--to",
    "end",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    help="Before this offset; by default to what is there now.",
)
@click.option(
    "--snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Begin with this state, of `state export` or Engine.snapshot; --from says with which record.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A shadow run: this model beside the pipeline's, and how they differ.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="Of --model: larger differences are counted.",
)
@click.option(
    "--compare", is_flag=True, help="With what the output topic holds of the same records; 1 where they differ."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The outputs go to this file, not to stdout."
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout; the outputs only to --out.")
def replay_command(
    pipeline: Path,
    stream: str,
    partition: str | None,
    begin: Literal["start", "changelog"] | int,
    end: int | None,
    snapshot: Path | None,
    model: Path | None,
    tolerance: float,
    compare: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Step one stream's records again, through PIPELINE's codec, policies and model, and print the outputs as JSON Lines.

    On this machine alone: it joins no group, commits nothing, and writes to no topic. The report goes to stderr. The same
    records from the same state give the same outputs as in the run (on the compiled backend bit by bit).
    """
    request = Request(stream, begin, end, partition, snapshot.read_bytes() if snapshot else None)
    done = replay(read_pipeline(pipeline), request, model, tolerance, compare)
    if not done.streams[0].records:
        places = ", ".join(f"{s.partition} from {s.begin} to {s.end}" for s in done.stretches) or "the files"
        raise ConnectorError(
            f"stream '{stream}': no record in {places}; is its key another, or does --partition say where it is?"
        )
    if out is not None:
        try:
            out.write_bytes(b"".join(_lines(done)))
        except OSError as error:
            raise click.BadParameter(f"{out}: cannot be written ({error.strerror})", param_hint="--out") from error
    elif not as_json:
        for line in _lines(done):
            click.echo(line, nl=False)
    _report(done, as_json)
    if (failure := done.streams[0].batch.failure) is not None:
        raise failure
    if done.compared is not None and not done.compared.alike:
        sys.exit(1)


def _lines(done: Replayed) -> Iterator[bytes]:
    first = done.streams[0]
    steps = Steps(first.engine.spec)
    if done.shadow is None:
        yield from (json_lines(answer, steps) for answer in first.answers)
        return
    other = {place: (answer, i) for place, answer, i in placed(done.streams[1])}
    places = (place for place, _, _ in placed(first))
    for answer in first.answers:
        for line in json_lines(answer, steps).splitlines():
            theirs = other.get(next(places))
            values = {name: plain(np.asarray(y[theirs[1]])) for name, y in theirs[0].values.items()} if theirs else None
            yield msgspec.json.encode(msgspec.json.decode(line) | {"other": values}) + b"\n"


def facts(done: Replayed) -> dict[str, Any]:
    """The report as plain values."""
    first = done.streams[0]
    said: dict[str, Any] = {
        "stream": done.request.stream,
        "read": [msgspec.to_builtins(stretch) for stretch in done.stretches],
        "records": first.records,
        "outputs": first.outputs,
        "refused": first.refusals.reasons,
        "model": first.engine.fingerprint.hex(),
    }
    if done.shadow is not None:
        second: OneStream = done.streams[1]
        said |= {
            "other_model": second.engine.fingerprint.hex(),
            "other_outputs": second.outputs,
            "shadow": done.shadow.facts(),
        }
    if done.compared is not None:
        said["compared"] = done.compared.facts()
    return said


def _report(done: Replayed, as_json: bool) -> None:
    said = facts(done)
    if as_json:
        click.echo(msgspec.json.encode(said))
        return
    for stretch in done.stretches:
        cut = (
            "; what came before is not there any more, so the state may be another than in the run"
            if stretch.cut
            else ""
        )
        click.echo(f"read          {stretch.partition} from {stretch.begin} to {stretch.end}{cut}", err=True)
    click.echo(f"records       {said['records']:,} of the stream, {said['outputs']:,} outputs", err=True)
    for reason in said["refused"]:
        click.echo(f"refused       {reason}", err=True)
    if done.shadow is not None:
        _tell_shadow(done)
    if (c := done.compared) is not None:
        click.echo(
            f"compared      {c.equal:,} records are equal, {c.differ:,} differ, {c.missing:,} are not in the topic, {c.repeated:,} are there again, "
            f"{c.foreign:,} only there",
            err=True,
        )
        if c.first is not None:
            click.echo(f"first differs {c.first[0]}: stepped again {c.first[1]}, written {c.first[2]}", err=True)


def _tell_shadow(done: Replayed) -> None:
    assert done.shadow is not None
    for name, d in done.shadow.outputs.items():
        worst = "" if d.worst is None else f", worst difference {d.worst:.3g} at {d.worst_at}"
        first = "" if d.first is None else f", the first at {d.first_at}: {d.first[0]}, {d.first[1]}"
        kind = "changed" if d.worst is None else "over the tolerance"
        click.echo(f"output        {name}: {d.compared:,} compared{worst}; {d.over:,} {kind}{first}", err=True)
    if done.shadow.only_first or done.shadow.only_second:
        click.echo(
            f"unpaired      {done.shadow.only_first:,} of the pipeline's model, {done.shadow.only_second:,} of the other",
            err=True,
        )
    if done.shadow.unlike:
        click.echo(f"not compared  {', '.join(done.shadow.unlike)}: names or shapes differ", err=True)
