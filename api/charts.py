"""Charts as inline SVG: lines, a heat map, an axis of time. They take their colours from the page (light or dark)."""

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, LEFT, RIGHT = 900, 70, 12
SPAN = WIDTH - LEFT - RIGHT
AXIS = 24
MAX_POINTS = 1200  # a line has more samples than pixels beyond this


def lines(title: str, unit: str, names: Sequence[str], values: np.ndarray, seconds: float, height: int = 150) -> str:
    """values (T, C) as C lines over `seconds`, with a legend; at most 3 channels keep apart by eye, colour and dash."""
    step = max(1, len(values) // MAX_POINTS)
    shown = values[::step].astype(float)
    low, high = float(shown.min()), float(shown.max())
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-9 else (low, high)
    top, bottom = 22, height - 4
    across = LEFT + np.arange(0, len(values), step) / max(1, len(values) - 1) * SPAN
    down = bottom - (shown - low) / (high - low) * (bottom - top)
    parts = [_grid(low, high, top, bottom), _vertical_label(unit, (top + bottom) / 2)]
    for c, name in enumerate(names):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down[:, c], strict=True))
        parts.append(f'<polyline class="line c{c % 3}" points="{points}"/>')
        x = LEFT + 4 + c * 90
        parts.append(
            f'<line class="line c{c % 3} key" x1="{x}" x2="{x + 26}" y1="11" y2="11"/><text x="{x + 32}" y="15">{escape(name)}</text>'
        )
    low_high = f"{', '.join(names)} between {low:.2f} and {high:.2f} {unit}"
    return _svg(f"{title}: {low_high} over {seconds:.1f} s", "".join(parts) + time_axis(seconds, bottom), height + AXIS)


def heat_map(
    title: str, rows: Sequence[str], values: np.ndarray, seconds: float, row_height: float, marked: int | None = None
) -> str:
    """values (rows, T) in -1..1: orange above zero, blue below, the page's own ground at zero. marked: a row to point out."""
    height = len(values) * row_height
    image = f'<image x="{LEFT}" y="4" width="{SPAN}" height="{height:.1f}" preserveAspectRatio="none" href="{png(values)}"/>'
    parts = [image, f'<rect class="frame" x="{LEFT}" y="4" width="{SPAN}" height="{height:.1f}"/>']
    for i, name in enumerate(rows):
        if name:
            kind = "mark" if i == marked else ""
            parts.append(
                f'<text class="{kind}" text-anchor="end" x="{LEFT - 8}" y="{4 + (i + 0.5) * row_height + 4:.1f}">{escape(name)}</text>'
            )
    if marked is not None:
        parts.append(
            f'<rect class="marked" x="{LEFT}" y="{4 + marked * row_height:.1f}" width="{SPAN}" height="{row_height:.1f}"/>'
        )
    return _svg(title, "".join(parts) + time_axis(seconds, 4 + height), 4 + height + AXIS)


def ribbon(title: str, name: str, good: np.ndarray, seconds: float) -> str:
    """A strip over time, filled where `good` (T,) is false: where the model was wrong."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], good, [True])).astype(int)))
    scale = SPAN / max(1, len(good))
    parts = [f'<rect class="right" x="{LEFT}" y="2" width="{SPAN}" height="14"/>']
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        parts.append(
            f'<rect class="wrong" x="{LEFT + start * scale:.1f}" y="2" width="{max(1.0, (end - start) * scale):.1f}" height="14"/>'
        )
    parts.append(f'<text text-anchor="end" x="{LEFT - 8}" y="13">{escape(name)}</text>')
    return _svg(f"{title}, over {seconds:.1f} s", "".join(parts), 20)


def png(values: np.ndarray) -> str:
    """values (H, W) in -1..1 as a data URI: an indexed image whose colours fade to transparent at zero (PNG, ISO 15948)."""
    values = values[:, :: max(1, values.shape[1] // MAX_POINTS)]
    index = np.clip(np.rint(np.nan_to_num(values) * 127) + 127, 0, 254).astype(np.uint8)
    blue, orange = bytes((30, 110, 200)), bytes((225, 105, 0))
    palette = blue * 127 + orange * 128
    alpha = bytes(min(255, abs(i - 127) * 2) for i in range(255))
    raw = b"".join(b"\0" + row.tobytes() for row in index)
    header = struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"tRNS", alpha), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def time_axis(seconds: float, top: float) -> str:
    """Ticks at round numbers of seconds, and the axis' name."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if seconds / s <= 10), 3600)
    parts = []
    for k in range(int(seconds / step + 1e-9) + 1):
        x = LEFT + k * step / max(seconds, 1e-9) * SPAN
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{top + 5:.1f}"/>')
        parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{top + 17:.1f}">{k * step:g}</text>')
    parts.append(f'<text text-anchor="end" x="{LEFT - 8}" y="{top + 17:.1f}">seconds</text>')
    return "".join(parts)


def _grid(low: float, high: float, top: float, bottom: float) -> str:
    """Lines across at two to five round values."""
    scale = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * scale for s in (0.25, 0.5, 1, 2, 2.5, 5) if (high - low) / (s * scale) < 5)
    parts = []
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = bottom - (k * step - low) / (high - low) * (bottom - top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + SPAN}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{k * step:g}</text>')
    return "".join(parts)


def _vertical_label(text: str, middle: float) -> str:
    return (
        f'<text text-anchor="middle" transform="translate(14 {middle:.0f}) rotate(-90)">{escape(text)}</text>'
        if text
        else ""
    )


def _svg(label: str, body: str, height: float) -> str:
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height:.0f}">{body}</svg>'
