"""What all examples came to, as one page with every picture in it, and as the table of docs/applications.md."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]  # a run.py's result.json

COLUMNS = (
    "application",
    "parameters",
    "state bytes a stream",
    "score",
    "ours, streamed",
    "torch",
    "plain method",
    "streams at once",
    "steps/s",
    "p99 step",
)
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882 }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { margin: 0 0 .5rem } h2 { margin: 3rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1.5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: right; padding: .4rem .6rem; border-bottom: 1px solid var(--line) } th:first-child, td:first-child, .text { text-align: left }
thead th { vertical-align: bottom; font-weight: 600 } td:first-child a { white-space: nowrap }
figure { margin: 1.25rem 0; background: #fff; border-radius: 6px; padding: .5rem } figure img { max-width: 100%; display: block; margin: auto }
details { margin: 1rem 0 } pre { background: var(--soft); padding: 1rem; overflow-x: auto; font-size: .8rem; border-radius: 6px }
small { opacity: .7 }
"""
KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}


def page(results: Mapping[str, Result], delivery: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """Self-contained HTML. results: by example; its pictures lie in folder/EXAMPLE. delivery: what delivery.py found, by pipeline."""
    sections = "".join(_section(name, result, delivery, folder / name) for name, result in results.items())
    rows = "".join(
        f'<tr><td><a href="#{escape(name)}">{escape(cells[0])}</a></td>'
        + "".join(f"<td{' class=text' if i == 2 else ''}>{escape(cell)}</td>" for i, cell in enumerate(cells[1:]))
        + "</tr>"
        for name, cells in ((name, row(result)) for name, result in results.items())
    )
    head = "".join(f"<th{' class=text' if i == 3 else ''}>{escape(c)}</th>" for i, c in enumerate(COLUMNS))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Undertow: what recurrent networks are for</title><style>{STYLE}</style></head><body><main>
<h1>What recurrent networks are for</h1>
<p>Applications, trained here on real data, exported, and run as live streams. Every figure was measured by the run of its example that lies beside this page.</p>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
{sections}</main></body></html>
"""


def _section(name: str, result: Result, delivery: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    pictures = "".join(
        f'<figure><img alt="{escape(p)}" src="{_inline(folder / p)}"></figure>' for p in result["pictures"]
    )
    ways = "".join(
        f"<li>{escape(told(pipeline, d))}</li>" for pipeline, d in delivery.items() if pipeline.startswith(f"{name}/")
    )
    more = escape(json.dumps(result.get("more", {}), indent=2, ensure_ascii=False))
    return f"""<section id="{escape(name)}"><h2>{escape(result["application"].capitalize())}</h2>
<p>{escape(result["task"][0].upper() + result["task"][1:])}: <b>{escape(result["metric"])}</b> {number(result["ours"])}; torch {number(result["torch"])}; {escape(result["baseline_name"])} {number(result["baseline"])}.</p>
{pictures}<ul>{ways}</ul><details><summary>Everything that was measured</summary><pre>{more}</pre></details>
<p><small>{number(result["seconds"])} s; examples/{escape(name)}</small></p></section>
"""


def told(pipeline: str, found: Mapping[str, Any]) -> str:
    """One pipeline's deliveries, in words."""
    ways = [f"after {found['killed']} kill -9" if found["killed"] else "again (it was over before it could be killed)"]
    if "killed_on_kafka" in found:
        ways.append(f"from Kafka after {found['killed_on_kafka']} more")
    exact = f", numbers to {found['apart']:g}, since ONNX Runtime runs the model" if found["apart"] else ""
    streams = f"{found['streams']:,} stream{'s' * (found['streams'] != 1)}"
    return f"{pipeline}: {found['answers']:,} answers of {streams}, the same {' and '.join(ways)}{exact}"


def row(result: Result) -> list[str]:
    return [
        result["application"], f"{result['parameters']:,}", f"{result['state_bytes']:,}", result["metric"],
        number(result["ours"]), number(result["torch"]), f"{number(result['baseline'])} ({result['baseline_name']})",
        f"{result['streams']:,}", f"{result['steps_per_s']:,.0f}", f"{result['p99_step_ms']:.3g} ms",
    ]  # fmt: skip


def table(results: Mapping[str, Result]) -> str:
    """The same in Markdown."""
    rows: list[Sequence[str]] = [COLUMNS, ["---"] * len(COLUMNS)]
    for name, result in results.items():
        cells = row(result)
        rows.append([f"[{cells[0]}](../examples/{name}/README.md)", *cells[1:]])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _inline(picture: Path) -> str:
    return f"data:{KINDS[picture.suffix]};base64,{base64.b64encode(picture.read_bytes()).decode()}"
