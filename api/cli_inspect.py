"""`undertow inspect`: what an artifact is."""

from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from .engine.artifact import Artifact, StateSpec, read_artifact
from .engine.compiler import missing
from .engine.encoder_entry import memory_bytes
from .engine.layout import Layout


@click.command("inspect")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option(
    "--graph", type=click.Path(dir_okay=False, path_type=Path), help="Draw the step graph to this SVG file as well."
)
def inspect_command(model: Path, as_json: bool, graph: Path | None) -> None:
    """Print a step artifact's inputs, outputs, states, delay, bytes per stream, and which backends run it and why not."""
    artifact = read_artifact(model)
    if graph is not None:
        _draw(artifact, graph)
    summary = summarise(artifact)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary)).decode())
        return
    _print(artifact, summary)


def _draw(artifact: Artifact, path: Path) -> None:
    from .drawing import drawing

    try:
        path.write_text(drawing(artifact), encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(
            f"{path}: cannot be written ({error.strerror or error})", param_hint="--graph"
        ) from error


def summarise(artifact: Artifact) -> dict[str, Any]:
    """The facts of an artifact as plain values."""
    import onnxruntime

    spec, reasons = artifact.spec, missing(artifact)
    return {
        "model": str(artifact.path),
        "fingerprint": artifact.fingerprint.hex(),
        "inputs": [_tensor(t.name, t.shape, t.dtype) for t in spec.inputs],
        "outputs": [_tensor(t.name, t.shape, t.dtype) for t in spec.outputs],
        "states": [{**_tensor(s.name, s.shape, s.dtype), "next": s.next, "initial": _initial(s)} for s in spec.states],
        "encoder": _encoder(artifact),
        "delay": spec.delay,
        "frames_per_step": spec.frames_per_step,
        "outputs_per_step": spec.outputs_per_step,
        "batchable": spec.batchable,
        "sample_rate_hz": spec.sample_rate_hz,
        "labels": spec.labels,
        "state_bytes": spec.state_bytes,
        "row_bytes": Layout.of(spec).row_bytes,
        "backends": {"numba": reasons or "runs", "ort": onnxruntime.get_available_providers()},
        "certificate": [msgspec.to_builtins(p) for p in spec.certificate],
        "approximations": [msgspec.to_builtins(a) for a in spec.approximations],
    }


def _encoder(artifact: Artifact) -> dict[str, Any] | None:
    """What an encoder takes, gives and fills, where there is one."""
    if artifact.encoder is None:
        return None
    spec = artifact.encoder.spec
    return {
        **msgspec.to_builtins(artifact.spec.encoder),
        "inputs": [_tensor(t.name, t.shape, t.dtype) for t in spec.inputs],
        "outputs": [_tensor(t.name, t.shape, t.dtype) for t in spec.outputs],
        "lengths_input": spec.lengths_input,
        "memory_bytes": memory_bytes(artifact.spec),
        "certificate": [msgspec.to_builtins(p) for p in spec.certificate],
        "approximations": [msgspec.to_builtins(a) for a in spec.approximations],
    }


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype}


def _initial(state: StateSpec) -> str:
    value = state.initial_value()
    if value.size and (value == value.flat[0]).all():
        return f"{value.flat[0]:g}"
    return f"{np.min(value):g} .. {np.max(value):g}" if value.size else "empty"


def _print(artifact: Artifact, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from .exporters.report import approximated, stated

    console, table = (
        Console(highlight=False, markup=False),
        Table(title=f"step artifact {artifact.name}", title_justify="left"),
    )
    for column in ("", "name", "shape", "dtype", "next", "initial"):
        table.add_column(column, overflow="fold")
    encoder = summary["encoder"] or {}
    rows = [(f"encoder {kind[:-1]}", t) for kind in ("inputs", "outputs") for t in encoder.get(kind, ())]
    rows += [(kind[:-1], t) for kind in ("inputs", "outputs", "states") for t in summary[kind]]
    for kind, t in rows:
        table.add_row(kind, t["name"], str(tuple(t["shape"])), t["dtype"], t.get("next", ""), t.get("initial", ""))
    console.print(table)
    spec = artifact.spec
    lines = [
        *_encoder_lines(artifact),
        f"delay            {spec.delay} frames; {spec.frames_per_step} frames in, {spec.outputs_per_step} out a step",
        "" if spec.batchable else "batch            the graph takes one stream at a time; they are run one by one",
        f"bytes per stream {summary['row_bytes']} (state {summary['state_bytes']})",
        f"sample rate      {spec.sample_rate_hz:g} Hz" if spec.sample_rate_hz else "",
        f"labels           {', '.join(spec.labels)}" if spec.labels else "",
        f"fingerprint      {summary['fingerprint']}",
        f"backend numba    {summary['backends']['numba'] if isinstance(summary['backends']['numba'], str) else 'no: ' + '; '.join(summary['backends']['numba'])}",
        f"backend ort      {', '.join(summary['backends']['ort'])}",
    ]
    lines += [f"certificate      {stated(p)}" for p in spec.certificate]
    lines += [f"by request       {approximated(a)}" for a in spec.approximations]
    console.print("\n".join(line for line in lines if line))


def _encoder_lines(artifact: Artifact) -> list[str]:
    if artifact.encoder is None or artifact.spec.encoder is None:
        return []
    from .exporters.report import encoded, stated

    encoder, spec = artifact.encoder.spec, artifact.spec.encoder
    sources = "sources of any lengths" if encoder.lengths_input else "sources of one length"
    lines = [f"memory           {spec.max_memory} positions, {memory_bytes(artifact.spec)} bytes a stream"]
    lines += [f"encoder          {line}" for line in [*encoded(spec), f"{sources} go through it together"]]
    return [*lines, *(f"encoder          certificate: {stated(p)}" for p in encoder.certificate)]
