"""The files that a path means, and one of them as it was when reading began."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..engine.errors import ConfigError, ConnectorError
from .files_config import FileFormat, FilesSourceConfig

State = tuple[int, int, int]
SUFFIXES: dict[str, FileFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy", ".wav": "wav"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """name: the partition, the path relative to the source's folder. key: the stream, where the file is one."""

    path: Path
    name: str

    @property
    def key(self) -> str:
        return os.path.splitext(self.name)[0]

    def state(self) -> State:
        """Size, time of the last change and inode: what must stay as it is while the file is read. Raises ConnectorError."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise ConnectorError(f"{self.path}: cannot be read ({error.strerror})") from error
        return found.st_size, found.st_mtime_ns, found.st_ino

    def still(self, before: State) -> None:
        """Raises ConnectorError where the file is not as it was."""
        now = self.state()
        if now != before:
            raise ConnectorError(
                f"{self.path}: was changed while it was read ({before[0]} bytes before, {now[0]} now); "
                "a file must be complete before it is read (write elsewhere and move it here), pipe growing ones to stdin"
            )

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb", buffering=64 * 1024)
        except OSError as error:
            raise ConnectorError(f"{self.path}: cannot be read ({error.strerror})") from error


def find_files(config: FilesSourceConfig, base: Path) -> tuple[FileFormat, list[InputFile]]:
    """The files in the order of their names, and the format that they share. Raises ConfigError, ConnectorError."""
    path = base / Path(config.path).expanduser()
    if glob.has_magic(config.path) and not path.exists():
        root, found = _matching(path)
    elif path.is_dir():
        root, found = path, [p for p in _walk(path) if _wanted(p, config.format)]
    elif path.exists():
        root, found = path.parent, [path]
    else:
        raise ConnectorError(f"[source] path: {path} does not exist")
    if not found:
        raise ConnectorError(
            f"[source] path: {path} has no file of format {config.format or ' | '.join(dict.fromkeys(SUFFIXES.values()))}"
        )
    files = [InputFile(p, _name(p, root)) for p in found]
    files.sort(key=lambda f: f.name)
    return config.format or _format(files), files


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (Path(root, n) for n in names if not n.startswith("."))


def _matching(pattern: Path) -> tuple[Path, list[Path]]:
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed]), [p for p in map(Path, glob.iglob(str(pattern), recursive=True)) if p.is_file()]


def _wanted(path: Path, format: FileFormat | None) -> bool:
    own = SUFFIXES.get(path.suffix.lower())
    return own is not None and format in (None, own)


def _name(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConnectorError(f"{name!r}: the name is not UTF-8, a stream's name must be; rename the file") from None
    return name


def _format(files: list[InputFile]) -> FileFormat:
    found: dict[FileFormat | None, str] = {SUFFIXES.get(f.path.suffix.lower()): f.name for f in reversed(files)}
    if None in found:
        raise ConfigError(
            f"[source] format: the suffix of '{found[None]}' does not say it; give format = csv | jsonl | npy | wav"
        )
    if len(found) > 1:
        raise ConfigError(f"[source] format: there are files of {found}; say which with format")
    return next(known for known in found if known is not None)
