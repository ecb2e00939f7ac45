"""The picture: bits per character along the training, and held-out fortunes with every character as light as it was expected."""

from html import escape
from itertools import pairwise

import numpy as np
from pieces import Pieces

WIDTH, CHART, LEFT, LINE, CHARACTER = 860, 190, 60, 19, 7.8
INK, GROUND, MODEL, BASE = "#1b1f24", "#ffffff", "#b3541e", "#3d6b8e"


def picture(
    history: list[dict[str, float]], levels: dict[str, float], samples: list[tuple[str, np.ndarray]], pieces: Pieces
) -> str:
    """An SVG. history: of each epoch. levels: bits per character of the plain methods on the same texts, by name.
    samples: texts, and the bits of each of their pieces and of the end."""
    parts, top = [_chart(history, levels)], CHART + 46
    parts.append(
        _text(
            LEFT,
            top - 16,
            "Held-out fortunes: the darker a piece's ground, the more it surprised the model (white 0, full 12 bits).",
            INK,
        )
    )
    for text, bits in samples:
        drawn, lines = _surprise(text, bits, pieces, top)
        parts.append(drawn)
        top += lines * LINE + 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="13">'
        f'<rect width="{WIDTH}" height="{top}" fill="{GROUND}"/>{"".join(parts)}</svg>\n'
    )


def _chart(history: list[dict[str, float]], levels: dict[str, float]) -> str:
    values = [h["valid_bits_per_character"] for h in history]
    low, high = min(*values, *levels.values()) - 0.05, max(*values, *levels.values()) + 0.05
    across = np.linspace(LEFT, WIDTH - 220, len(values))

    def down(value: float) -> float:
        return 20 + (high - value) / (high - low) * (CHART - 40)

    parts = [_text(LEFT, 14, "bits per character of the fortunes that chose the epoch", INK)]
    parts += [
        f'<path d="M{LEFT} {down(v):.1f}H{WIDTH - 220}" stroke="#dddddd"/>{_text(LEFT - 34, down(v) + 4, f"{v:.1f}", INK)}'
        for v in np.arange(np.ceil(low * 10) / 10, high, 0.1)
    ]
    for name, value in levels.items():
        parts.append(
            f'<path d="M{LEFT} {down(value):.1f}H{WIDTH - 220}" stroke="{BASE}" stroke-dasharray="5 4" stroke-width="2"/>'
        )
        parts.append(_text(WIDTH - 212, down(value) + 4, f"{name}: {value:.3f}", BASE))
    points = [(x, down(v)) for x, v in zip(across, values, strict=True)]
    for (x0, y0), (x1, y1) in pairwise(points):
        parts.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{MODEL}" stroke-width="2.5"/>')
    parts.append(_text(WIDTH - 212, points[-1][1] + 18, f"the network: {values[-1]:.3f}", MODEL))
    parts.append(_text(LEFT, CHART - 2, f"epoch 1 to {len(values)}", INK))
    return "".join(parts)


def _surprise(text: str, bits: np.ndarray, pieces: Pieces, top: int) -> tuple[str, int]:
    """The text in a fixed pitch, and how many lines it takes."""
    parts, line, column = [], 0, 0
    for piece, cost in zip(pieces.encode(text), bits, strict=False):
        shade = min(1.0, float(cost) / 12)
        for character in pieces.names[piece]:
            if character == "\n":
                line, column = line + 1, 0
                continue
            wide = 8 - column % 8 if character == "\t" else 1
            x, y = LEFT + column * CHARACTER, top + line * LINE
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide * CHARACTER:.1f}" height="{LINE - 2}" fill="{MODEL}" fill-opacity="{shade * 0.85:.2f}"/>'
            )
            if not character.isspace():
                parts.append(f'<text x="{x:.1f}" y="{y + 13}" font-family="monospace">{escape(character)}</text>')
            column += wide
    return "".join(parts), line + 1


def _text(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(text)}</text>'
