"""Makes recordings in which it is known to the frame what happens to the picture.

There is noise, the camera trembles, the light drifts and jumps, and things pass before a part of the picture; these are no events.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from camera import CLOSEST, HEIGHT, WIDEST, WIDTH, Camera, Light, Shot, Thing, blurred, placed

LABELS = ("normal", "cut", "freeze", "pan", "zoom", "defocus", "cover", "flicker")
NORMAL, CUT, FREEZE, PAN, ZOOM, DEFOCUS, COVER, FLICKER = range(len(LABELS))
CUT_FRAMES = 4  # a cut has no length; its label has
LEAST_BLUR, LEAST_COVER = 0.7, 0.5  # what begins an event: deviation in pixels, part of the picture


@dataclass(frozen=True, slots=True)
class Event:
    """It lasts from frame `begin` to before `end`."""

    label: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Recording:
    """frames: (T, HEIGHT, WIDTH) uint8. labels: int64 (T,)."""

    key: str
    frames: np.ndarray
    labels: np.ndarray


@dataclass(slots=True)
class Scene:
    """What acts on the picture; the scripts change it, and put back what they changed."""

    camera: Camera
    thing: Thing
    frozen: bool = False
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    growth: float = 1.0
    blur: float = 0.0
    covered: float = 0.0
    gain: float = 1.0


def recording(shots: list[Shot], seed: int, length: int = 300) -> Recording:
    """A recording of `length` frames in which things happen one after the other. The same shots and seed give the same."""
    random = np.random.default_rng(seed)
    scene = Scene(placed(shots, random), Thing(random))
    light, shake = Light(random, length), np.zeros(2)
    trembling = random.uniform(0, 0.35) * random.integers(2)
    frames, labels = np.empty((length, HEIGHT, WIDTH), np.uint8), np.empty(length, np.int64)
    for t, labels[t] in zip(range(length), script(scene, shots, random), strict=False):
        if scene.frozen:
            frames[t] = frames[t - 1]
            continue
        scene.camera.forward()
        scene.camera.move(scene.velocity, scene.growth)
        shake = 0.7 * shake + random.normal(0, 1, 2) * trembling
        seen = light.on(blurred(scene.camera.picture(shake), scene.blur), t) * scene.gain
        seen = scene.thing.over(seen, scene.covered) + random.normal(0, light.noise, seen.shape)
        frames[t] = np.clip(seen, 0, 255)
    return Recording(f"camera-{seed:06d}", frames, labels)


def events_of(labels: np.ndarray) -> list[Event]:
    """The runs of each label but "normal"."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [Event(int(labels[b]), b, e) for b, e in pairwise(edges) if labels[b] != NORMAL]


# ------------------------------------------------ scripts: each prepares the next frame of the scene, and yields its label


def script(scene: Scene, shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    """Something happens, then for a while nothing, for ever."""
    happens = (cut, freeze, pan, zoom, defocus, cover, flicker)
    while True:
        yield from nothing(scene, random)
        yield from happens[random.integers(len(happens))](scene, shots, random)


def nothing(scene: Scene, random: np.random.Generator) -> Iterator[int]:
    """25 to 70 frames, and in one case of three something passes before a part of the picture."""
    frames = random.integers(25, 70)
    scene.thing = Thing(random)
    seen = np.zeros(frames)
    if random.random() < 0.33:
        seen = np.sin(np.linspace(0, np.pi, frames)) * random.uniform(0.1, 0.35)
    for scene.covered in seen.tolist():
        yield NORMAL
    scene.covered, scene.thing = 0.0, Thing(random)


def cut(scene: Scene, shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    scene.camera = placed(shots, random, scene.camera)
    for _ in range(CUT_FRAMES):
        yield CUT


def freeze(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    scene.frozen = True
    for _ in range(random.integers(12, 50)):
        yield FREEZE
    scene.frozen = False


def pan(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    """Towards an edge or a corner of the shot that is far enough away."""
    camera = scene.camera
    low, high = camera.room()
    goals = [np.choose(g, [low, camera.centre, high]) for g in np.ndindex(3, 3)]
    ways = [(goal - camera.centre) / camera.scale for goal in goals]
    far = [w for w in ways if np.hypot(*w) > 12] or [max(ways, key=lambda w: np.hypot(*w))]
    way = far[random.integers(len(far))]
    distance = np.hypot(*way)
    speed = min(random.uniform(0.6, 3), distance / 8)
    for _ in range(min(int(distance / speed), int(random.integers(10, 45)))):
        scene.velocity = way / distance * speed
        yield PAN
    scene.velocity = np.zeros(2)


def zoom(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    """In or out, where there is more room."""
    closer, wider = np.log(scene.camera.scale / CLOSEST), np.log(WIDEST / scene.camera.scale)
    sign = -1 if closer > wider else 1
    speed = random.uniform(0.012, 0.05)
    for _ in range(min(int(max(closer, wider) / speed), int(random.integers(10, 35)))):
        scene.growth = float(np.exp(sign * speed))
        yield ZOOM
    scene.growth = 1.0


def defocus(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    for scene.blur in (there_and_back(random) * random.uniform(1.3, 3.5)).tolist():
        yield DEFOCUS if scene.blur >= LEAST_BLUR else NORMAL
    scene.blur = 0.0


def cover(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    for scene.covered in (there_and_back(random) * random.uniform(0.8, 1)).tolist():
        yield COVER if scene.covered >= LEAST_COVER else NORMAL
    scene.covered = 0.0


def flicker(scene: Scene, _shots: list[Shot], random: np.random.Generator) -> Iterator[int]:
    """A gain that goes up and down within 2 to 6 frames, as a lamp beside the shutter makes it."""
    frames = np.arange(random.integers(15, 50))
    wave = np.cos(2 * np.pi * (frames / random.uniform(2, 6) + random.random()))
    for scene.gain in (1 + random.uniform(0.08, 0.35) * wave).tolist():
        yield FLICKER
    scene.gain = 1.0


def there_and_back(random: np.random.Generator) -> np.ndarray:
    """Up to 1, there for a while, and down again."""
    up, stay, down = random.integers(3, 13), random.integers(10, 40), random.integers(3, 13)
    return np.concatenate([np.linspace(0, 1, up + 1)[1:], np.ones(stay), np.linspace(1, 0, down + 1)[:-1]])
