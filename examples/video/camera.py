"""A virtual camera that looks at a part of a shot, and what lies between the world and its picture."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

ROWS = 144  # of a shot's frames
HEIGHT, WIDTH = 48, 64
CLOSEST, WIDEST = 1.2, 2.4  # scale: pixels of the shot to one of the picture


@dataclass(frozen=True, slots=True)
class Shot:
    """frames: grey (T, ROWS, columns) uint8."""

    clip: str
    frames: np.ndarray


@dataclass(slots=True)
class Camera:
    """A window on a shot. time, direction: which frame of the shot is next. centre: (row, column) in the shot."""

    shot: Shot
    time: int
    direction: int
    centre: np.ndarray
    scale: float
    mirrored: bool

    def forward(self) -> None:
        """The next frame of the shot, which is played there and back again."""
        if not 0 <= self.time + self.direction < len(self.shot.frames):
            self.direction = -self.direction
        self.time += self.direction

    def move(self, velocity: np.ndarray, growth: float) -> None:
        """velocity: pixels of the picture (rows, columns). The window stays in the shot."""
        self.scale *= growth
        self.centre = np.clip(self.centre + velocity * self.scale, *self.room())

    def room(self) -> np.ndarray:
        """(2, 2): the lowest and the highest (row, column) of a centre with the whole window in the shot."""
        half = np.array([HEIGHT, WIDTH]) * self.scale / 2
        return np.stack([half, np.maximum(np.array(self.shot.frames.shape[1:]) - half, half)])

    def picture(self, shake: np.ndarray) -> np.ndarray:
        """(HEIGHT, WIDTH) uint8, seen from `shake` pixels of the picture away."""
        size = np.array([HEIGHT, WIDTH]) * self.scale
        top, left = np.clip(self.centre + shake * self.scale - size / 2, 0, self.shot.frames.shape[1:] - size)
        box = (left, top, left + size[1], top + size[0])
        seen = Image.fromarray(self.shot.frames[self.time]).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)
        return np.asarray(seen)[:, :: -1 if self.mirrored else 1]


def placed(shots: list[Shot], random: np.random.Generator, before: Camera | None = None) -> Camera:
    """A camera somewhere. After another its picture is not like that one's: of another shot, or of the same one mirrored."""
    shot = shots[random.integers(len(shots))]
    mirrored = not before.mirrored if before and shot is before.shot else bool(random.integers(2))
    time, scale = int(random.integers(len(shot.frames))), float(random.uniform(CLOSEST, WIDEST))
    camera = Camera(shot, time, 1, np.zeros(2), scale, mirrored)
    camera.centre = random.uniform(*camera.room())
    return camera


def blurred(picture: np.ndarray, deviation: float) -> np.ndarray:
    """The picture through a Gaussian of so many pixels."""
    return (
        np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(deviation))) if deviation > 0 else picture
    )


class Light:
    """Gain, gamma and noise of a recording's sensor, light that drifts, and perhaps lamps that are switched: no events."""

    def __init__(self, random: np.random.Generator, length: int):
        self.noise, self.gamma = float(random.uniform(0.4, 5)), float(random.uniform(0.7, 1.3))
        t = np.arange(length)
        drift = 1 + random.uniform(0, 0.15) * np.sin(2 * np.pi * (t / random.uniform(80, 300) + random.random()))
        for _ in range(random.integers(0, 3)):
            risen = np.clip((t - random.integers(length)) / random.integers(1, 8), 0, 1)
            drift = drift * (1 + risen * random.uniform(-0.35, 0.35))
        self.gains = random.uniform(0.75, 1.15) * drift

    def on(self, picture: np.ndarray, t: int) -> np.ndarray:
        return 255 * (picture / 255) ** self.gamma * self.gains[t]


class Thing:
    """Something that comes before the lens from one side: dark or not, a little uneven, with a soft and slanting edge."""

    def __init__(self, random: np.random.Generator):
        self.columns, self.flipped = bool(random.integers(2)), bool(random.integers(2))
        rows, columns = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
        slopes = random.normal(0, 12, 2)
        self.shade = random.uniform(3, random.choice([40, 180])) + slopes[0] * rows + slopes[1] * columns
        self.slant = random.uniform(-0.3, 0.3)

    def over(self, picture: np.ndarray, part: float) -> np.ndarray:
        """The picture with so much of it covered, 0 to 1."""
        if part <= 0:
            return picture
        rows, columns = np.linspace(0, 1, HEIGHT)[:, None], np.linspace(0, 1, WIDTH)[None]
        along, across = (columns, rows) if self.columns else (rows, columns)
        edge = 1.1 * part + self.slant * (across - 0.5) * min(1, 4 * (1 - part)) * min(1, 4 * part)
        mask = np.clip((edge - along) / 0.08, 0, 1)
        mask = mask[::-1, ::-1] if self.flipped else mask
        return picture * (1 - mask) + self.shade * mask
