"""The end of `undertow export`: what was made, and how far it is from its reference, as two short tables."""

from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from .engine.artifact import Approximation, Parity, StateSpec, TensorSpec

if TYPE_CHECKING:
    from rich.table import Table

    from .exporters import ExportReport


quantize_option = click.option(
    "--quantize", type=click.Choice(("int8", "float16")), help="Store the weights small; the report has what it costs."
)


def json_of(report: Any, **more: Any) -> str:
    """A report as JSON, paths as text."""
    return msgspec.json.encode(msgspec.to_builtins(report, enc_hook=str) | more).decode()


def print_report(report: "ExportReport", as_json: bool) -> None:
    """The report on stdout."""
    from rich.console import Console

    if as_json:
        click.echo(json_of(report))
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120
    console.print(_tensors(report), _errors(report), *_lines(report), sep="\n")


def _tensors(report: "ExportReport") -> "Table":
    spec = report.spec
    table = _table(f"step artifact {report.path.name}", "", "name", "shape", "dtype", "bytes")
    for what, tensors in (("input", spec.inputs), ("output", spec.outputs), ("state", spec.states)):
        for t in tensors:
            table.add_row(what, t.name, str(list(t.shape)), t.dtype, f"{_bytes(t):,}")
    return table


def _bytes(tensor: TensorSpec | StateSpec) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize


def _errors(report: "ExportReport") -> "Table":
    table = _table("worst errors", "backend", "output", "absolute", "of its scale", "allowed", "against")
    for line in report.parity:
        for name, error in line.max_abs_error.items():
            allowed = f"{line.tolerance[name]:.1e}"
            table.add_row(
                line.backend, name, f"{error:.1e}", f"{line.max_rel_error[name]:.1e}", allowed, _against(line)
            )
    for asked in report.spec.approximations:
        for name, error in asked.max_abs_error.items():
            relative, what = f"{asked.max_rel_error[name]:.1e}", f"{asked.kind} {asked.parameter}"
            table.add_row(what, name, f"{error:.1e}", relative, "as asked", _against(asked))
    return table


def _against(line: Parity | Approximation) -> str:
    return f"{line.reference}, {line.sequences} sequences"


def _lines(report: "ExportReport") -> list[str]:
    from .exporters.report import timing

    before = [a.exact_bytes for a in report.spec.approximations if a.exact_bytes]
    beside = f" ({report.file_bytes / before[0]:.0%} of {before[0]:,} with float32 weights)" if before else ""
    lines = [timing(report.spec), f"{report.file_bytes:,} bytes{beside} in {report.path}, {report.seconds:.1f} s"]
    return lines + [f"note: {note}" for note in report.notes]


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(
            column,
            overflow="fold",
            justify="right" if column in ("bytes", "absolute", "of its scale", "allowed") else "left",
        )
    return table
