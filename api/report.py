"""The report of a run: one self-contained page, no script, nothing fetched; light or dark as the reader's system is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from .charts import heat_map, lines, ribbon


@dataclass(frozen=True, slots=True)
class Portrait:
    """One stream, looked at closely.

    frames (T, C), scores (T, labels) as probabilities, hidden[name] (T, size), truth: an index into the labels.
    panels: (title, unit, channel numbers) of each chart of the signal.
    """

    key: str
    frames: np.ndarray
    channels: Sequence[str]
    panels: Sequence[tuple[str, str, Sequence[int]]]
    scores: np.ndarray
    hidden: Mapping[str, np.ndarray]
    truth: int
    sample_rate_hz: float


@dataclass(frozen=True, slots=True)
class Report:
    """confusion (labels, labels): frames by truth and prediction. tiles: (name, value, note) of the figures on top."""

    title: str
    summary: str
    tiles: Sequence[tuple[str, str, str]]
    figures: Sequence[tuple[str, str]]
    labels: Sequence[str]
    confusion: np.ndarray
    portrait: Portrait
    provenance: str


def write_report(path: Path, report: Report) -> Path:
    """The page at `path`, written in one move."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render(report), encoding="utf-8")
    return temporary.replace(path)


def render(report: Report) -> str:
    """The page as text. Everything that came from data is escaped."""
    tiles = "".join(
        f"<div><dt>{escape(n)}</dt><dd>{escape(v)}<small>{escape(note)}</small></dd></div>"
        for n, v, note in report.tiles
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{escape(report.title)}</title><style>{STYLE}</style></head>
<body><main><header><h1>{escape(report.title)}</h1><p>{escape(report.summary)}</p></header>
<dl class="tiles">{tiles}</dl>
{_portrait(report.portrait, report.labels)}
{_confusion(report.labels, report.confusion)}
{_figures(report.figures)}
<footer><p>{escape(report.provenance)}</p></footer></main></body></html>
"""


def _portrait(p: Portrait, labels: Sequence[str]) -> str:
    seconds = len(p.frames) / p.sample_rate_hz
    guess = p.scores.argmax(1)
    share = float((guess == p.truth).mean())
    signal = [
        lines(title, unit, [p.channels[c] for c in columns], p.frames[:, list(columns)], seconds)
        for title, unit, columns in p.panels
    ]
    over_time = heat_map(
        f"Probability of each activity over time; the truth is {labels[p.truth]}",
        labels,
        p.scores.T,
        seconds,
        22,
        p.truth,
    ) + ribbon(
        f"Where the most likely activity was wrong: {1 - share:.1%} of the frames", "wrong", guess == p.truth, seconds
    )
    states = []
    for name, values in p.hidden.items():
        top = max(float(np.abs(values).max()), 1e-9)
        rows = [str(i) if i % 8 == 0 else "" for i in range(values.shape[1])]
        chart = heat_map(
            f"State {name}: {values.shape[1]} units over time, from {-top:.2f} to {top:.2f}",
            rows,
            (values / top).T,
            seconds,
            5,
        )
        states.append(
            _figure(
                f"State <code>{escape(name)}</code>, one row a unit", f"blue &minus;{top:.2f}, orange +{top:.2f}", chart
            )
        )
    return f"""<section><h2>One stream: {escape(p.key)}</h2>
<p>The person does <strong>{escape(labels[p.truth])}</strong>; the model says so at {share:.1%} of the frames. {escape(_told(guess, labels, p.sample_rate_hz))}</p>
{_figure("The signal", f"{len(p.frames):,} frames at {p.sample_rate_hz:g} Hz", *signal)}
{_figure("What the model says", "deeper orange is more likely; the outlined row is the truth", over_time)}
{"".join(states)}</section>"""


def _figure(title: str, note: str, *charts: str) -> str:
    drawn = "".join(charts)
    return f'<figure><figcaption><b>{title}</b> <span>{note}</span></figcaption><div class="scroll" tabindex="0">{drawn}</div></figure>'


def _told(guess: np.ndarray, labels: Sequence[str], rate: float) -> str:
    """The prediction in words: its stretches of half a second and more, the longest five, in order of time."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(guess)) + 1))
    lengths = np.diff(np.concatenate((starts, [len(guess)])))
    longest = sorted(i for i in np.argsort(-lengths, kind="stable")[:5] if lengths[i] >= rate / 2)
    told = [
        f"{labels[int(guess[starts[i]])]} from {starts[i] / rate:.1f} s for {lengths[i] / rate:.1f} s" for i in longest
    ]
    return f"It says {'; '.join(told)}." if told else ""


def _confusion(labels: Sequence[str], counts: np.ndarray) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in labels)
    rows = []
    for i, name in enumerate(labels):
        total = max(1, int(counts[i].sum()))
        cells = "".join(
            f'<td class="{"hit" if i == j else "miss"}" style="--share:{counts[i, j] / total:.3f}" title="{int(counts[i, j]):,} frames">{counts[i, j] / total:.1%}</td>'
            for j in range(len(labels))
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}<td class="n">{int(counts[i].sum()):,}</td></tr>')
    return f"""<section><h2>All streams: truth and prediction</h2><div class="scroll" tabindex="0"><table class="confusion">
<caption>Share of each activity's frames (rows) that the model takes for each activity (columns)</caption>
<thead><tr><td></td>{head}<th scope="col">frames</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>"""


def _figures(figures: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in figures)
    return f'<section><h2>Figures</h2><div class="scroll" tabindex="0"><table class="figures"><tbody>{rows}</tbody></table></div></section>'


STYLE = """
:root{--ground:#fff;--card:#f5f6f8;--ink:#1b2430;--soft:#566173;--rule:#d5dae1;--a:#0b62c4;--b:#c24e00;--c:#0a7a55;--good:#0b62c4;--bad:#c24e00}
@media (prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1b2129;--ink:#e8ebf0;--soft:#a3adbb;--rule:#39424f;
--a:#74b3ff;--b:#ff9d52;--c:#4fcf9f;--good:#74b3ff;--bad:#ff9d52}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:auto;padding:2rem 1.25rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .4rem}h2{font-size:1.2rem;margin:2.5rem 0 .5rem}
header p,footer,figcaption span,caption,small{color:var(--soft)}p{margin:.3rem 0;max-width:48rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.5rem 0}
.tiles div{background:var(--card);border-radius:8px;padding:.7rem .9rem}
dt{font-size:.85rem;color:var(--soft)}dd{margin:0;font-size:1.45rem;font-weight:600;font-variant-numeric:tabular-nums}
small{display:block;font-size:.8rem;font-weight:400;line-height:1.3}
figure{margin:1.25rem 0 0}figcaption{margin-bottom:.35rem}figcaption span{font-size:.9rem;margin-left:.4rem}
.scroll{overflow-x:auto}.scroll:focus-visible{outline:2px solid var(--a);outline-offset:3px}
svg{display:block;width:100%;min-width:640px;height:auto;font:12px system-ui,sans-serif}
svg text{fill:var(--soft)}svg text.mark{fill:var(--ink);font-weight:700}
.line{fill:none;stroke-width:1.3;stroke-linejoin:round}.key{stroke-width:2.5}
.c0{stroke:var(--a)}.c1{stroke:var(--b);stroke-dasharray:7 2}.c2{stroke:var(--c);stroke-dasharray:3 1.5}
.grid,.tick{stroke:var(--rule)}.frame{fill:none;stroke:var(--rule)}.marked{fill:none;stroke:var(--ink);stroke-width:1.5}
image{image-rendering:pixelated}.right{fill:var(--card)}.wrong{fill:var(--bad)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}caption{text-align:left;padding-bottom:.5rem;font-size:.9rem}
th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid var(--rule)}tbody th{text-align:left;font-weight:500}
.hit{background:color-mix(in srgb,var(--good) calc(var(--share)*55%),transparent)}
.miss{background:color-mix(in srgb,var(--bad) calc(var(--share)*75%),transparent)}.n{color:var(--soft)}
.figures td{text-align:left}footer{margin-top:2.5rem;font-size:.85rem}
@media print{.scroll{overflow:visible}}
"""
