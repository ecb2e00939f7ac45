"""The picture: the live score after each word, how much each word counts to the network that reads both ways, and what both come to."""

from html import escape

import numpy as np
import torch
from data import Sentence
from model import LiveSentiment, WholeSentiment
from words import frames, words

WIDTH, PANEL, LEFT, RIGHT = 940, 210, 46, 120
INK, LIVE, WHOLE, PEOPLE = "#1b1f24", "#b3541e", "#3d6b8e", "#4f7d3a"


def picture(live: LiveSentiment, whole: WholeSentiment, chosen: list[Sentence]) -> str:
    """An SVG with a panel for each sentence."""
    parts = [
        f'<text x="{LEFT}" y="18" fill="{LIVE}">live, after each word</text>',
        f'<text x="{LEFT + 170}" y="18" fill="{WHOLE}">both ways, once the sentence ends; bars: its attention</text>',
        f'<text x="{LEFT + 530}" y="18" fill="{PEOPLE}">people</text>',
    ]
    for i, sentence in enumerate(chosen):
        parts.append(f'<g transform="translate(0 {30 + i * PANEL})">{_panel(live, whole, sentence)}</g>')
    height = 36 + len(chosen) * PANEL
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


@torch.no_grad()
def _panel(live: LiveSentiment, whole: WholeSentiment, sentence: Sentence) -> str:
    marks = torch.from_numpy(frames(sentence.text))[None]
    after = live(marks)[0].numpy()
    attention, rating = whole.read(marks)[1][0, :, 0].numpy(), float(whole(marks))
    names, end = words(sentence.text), WIDTH - RIGHT
    across = LEFT + (np.arange(len(names)) + 0.5) * (end - LEFT) / len(names)
    bar = 0.6 * (end - LEFT) / len(names)
    parts = [f'<text x="{LEFT - 26}" y="{_down(v) + 4:.0f}" fill="{INK}">{v:+d}</text>' for v in (-3, 0, 3)]
    parts.append(f'<path d="M{LEFT} {_down(0):.1f}H{end}" stroke="#bbbbbb"/>')
    for x, name, weight in zip(across, names, attention, strict=True):
        tall = 90 * float(weight)
        parts.append(
            f'<rect x="{x - bar / 2:.1f}" y="{130 - tall:.1f}" width="{bar:.1f}" height="{tall:.1f}" fill="{WHOLE}" fill-opacity="0.35"/>'
            f'<text transform="translate({x:.1f} 138) rotate(40)" fill="{INK}" font-size="12">{escape(name)}</text>'
        )
    points = " ".join(f"{x:.1f},{_down(v):.1f}" for x, v in zip(across, after, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{LIVE}" stroke-width="2.5"/>')
    apart = max(0.0, 14 - abs(_down(rating) - _down(sentence.rating))) / 2  # so that the two names do not touch
    for value, other, name, colour in (
        (rating, sentence.rating, "both ways", WHOLE),
        (sentence.rating, rating, "people", PEOPLE),
    ):
        place = _down(value) + (-apart if value >= other else apart)
        parts.append(
            f'<path d="M{end - 8} {_down(value):.1f}h18" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{end + 14}" y="{place + 4:.1f}" fill="{colour}">{name} {value:+.1f}</text>'
        )
    return "".join(parts)


def _down(value: float) -> float:
    """Where a rating of -4 to 4 is."""
    return 66 - float(np.clip(value, -4, 4)) * 15
