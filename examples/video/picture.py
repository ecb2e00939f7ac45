"""A contact sheet: frames of a recording, above each what truly happened until the next one, below it what was told."""

from pathlib import Path

import numpy as np
from events import LABELS, Recording
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scoring import Announced, held

COLUMNS, EVERY = 10, 12  # frames in a row; from one that is shown to the next
SCALE, BAND, CAPTION, GAP = 2, 5, 12, 6  # pixels, but for the first
COLOURS = ("#d9d9d9", "#111111", "#1f78b4", "#33a02c", "#b2df8a", "#ff7f00", "#6a3d9a", "#e31a1c")


def contact_sheet(recording: Recording, told: list[Announced], path: Path) -> None:
    """Writes a PNG of every twelfth frame. The bands have a segment a frame; a caption says what was told under the frame, and when."""
    height, width = recording.frames.shape[1] * SCALE, recording.frames.shape[2] * SCALE
    cell = (width + GAP, height + 2 * BAND + CAPTION + GAP)
    shown = range(0, len(recording.frames), EVERY)
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + 2 * CAPTION), "white")
    draw, said = ImageDraw.Draw(sheet), held(told, len(recording.labels))
    for place, t in enumerate(shown):
        left, top = GAP + place % COLUMNS * cell[0], GAP + place // COLUMNS * cell[1]
        frame = Image.fromarray(recording.frames[t]).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(frame, (left, top + BAND))
        band(draw, recording.labels[t : t + EVERY], (left, top), width)
        band(draw, said[t : t + EVERY], (left, top + BAND + height), width)
        words = "  ".join(f"{LABELS[a.label]} {a.known}" for a in told if t <= a.known < t + EVERY)
        draw.text((left, top + height + 2 * BAND), words, "black", ImageFont.load_default(10))
    legend(draw, GAP, rows * cell[1] + CAPTION // 2)
    sheet.quantize(palette=palette(), dither=Image.Dither.NONE).save(path, optimize=True)


def band(draw: ImageDraw.ImageDraw, labels: np.ndarray, place: tuple[int, int], width: int) -> None:
    """A segment for each of the labels, EVERY of them to the width."""
    left, top = place
    for i, label in enumerate(labels.tolist()):
        begin, end = left + i * width // EVERY, left + (i + 1) * width // EVERY
        draw.rectangle((begin, top, end - 1, top + BAND - 1), COLOURS[label])


def legend(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    font = ImageFont.load_default(11)
    for name, colour in zip(LABELS, COLOURS, strict=True):
        draw.rectangle((left, top + 2, left + 10, top + 12), colour)
        draw.text((left + 14, top), name, "black", font)
        left += 34 + int(draw.textlength(name, font))
    draw.text(
        (left + 10, top),
        "above each frame: what happens until the next; below: what was told, with the frame's number",
        "black",
        font,
    )


def palette() -> Image.Image:
    """The colours and 48 greys: with fewer the file is smaller."""
    colours = [c for name in COLOURS for c in ImageColor.getrgb(name)]
    greys = [round(255 * i / 47) for i in range(48) for _ in range(3)]
    made = Image.new("P", (1, 1))
    made.putpalette(colours + greys)
    return made
