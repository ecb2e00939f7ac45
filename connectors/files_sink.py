"""Answers as files: one .jsonl or .csv file for all streams, or a folder with a file for each.

A part is a file, named relative to its folder; its length is in bytes. `open` cuts each file to what was committed of it.
The one file, where no commit names it, has to be new or empty: what someone else wrote is never cut. Of a folder that is
ours, the files of the format's suffix that no commit names are removed. So that this never hits someone else's files, a folder of ours has the file `.undertow-sink`, and one
that has not and is not empty is refused. Opened without lengths, nothing is cut or removed but the torn end of a line or
of a value.

Every changed file is synced at a flush: of very many streams, one file for all is faster than one for each.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..engine import Key
from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError, ConnectorError
from .file_names import file_name
from .files_config import FileFormat, FilesSinkConfig
from .input_files import SUFFIXES
from .output_files import OutputFiles
from .output_formats import make_output_format
from .output_lines import rows, stream_text
from .records import Answer

MARK = ".undertow-sink"


class FilesSink:
    """Raises ConfigError, ConnectorError."""

    truncatable = True

    def __init__(self, config: FilesSinkConfig, base: Path, spec: StepSpec):
        path = base / Path(config.path).expanduser()
        self.format, self.single = _target(config, path)
        self._format = make_output_format(self.format, config, spec)
        self._files = OutputFiles(path.parent if self.single else path, config.max_open)
        self._single_name = path.name if self.single else ""
        self._keys: dict[str, Key] = {}

    def check(self) -> None:
        """Raises ConnectorError where the folder is someone else's."""
        if not self.single and self._files.folder.exists():
            self._ours()

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        await asyncio.to_thread(self._go_on) if lengths is None else await asyncio.to_thread(self._open, lengths)

    async def write(self, answers: Iterable[Answer]) -> None:
        await asyncio.to_thread(self._write, answers)

    async def flush(self) -> Mapping[str, int]:
        return await asyncio.to_thread(self._flush)

    async def close(self) -> None:
        self._files.close()

    def _open(self, lengths: Mapping[str, int]) -> None:
        files = self._files
        files.make_folder()
        if self.single:
            self._only_one(lengths)
            files.cut(self._single_name, lengths.get(self._single_name, 0))
            files.changed.add(self._single_name)  # so that the first commit says that the file is ours
            return
        self._mark()
        for path in sorted(files.folder.iterdir()):
            if path.suffix == f".{self.format}" and path.name not in lengths:
                files.remove(path.name)
        for name, length in lengths.items():
            if not (files.folder / name).exists():
                raise ConnectorError(
                    f"{files.folder / name}: is gone, {length} bytes of it were committed; put it back, or begin with a new store"
                )
            files.cut(name, length)
            self._format.mend(files, name)

    def _go_on(self) -> None:
        """Behind everything that is there."""
        files = self._files
        files.make_folder()
        names = [self._single_name]
        if not self.single:
            self._mark()
            names = sorted(p.name for p in files.folder.iterdir() if p.suffix == f".{self.format}")
        for name in names:
            files.cut(name, self._format.whole(files, name))
            self._format.mend(files, name)

    def _only_one(self, lengths: Mapping[str, int]) -> None:
        others = sorted(lengths.keys() - {self._single_name})
        if others:
            raise ConnectorError(
                f"[sink] path: outputs were committed to '{others[0]}', the pipeline now writes '{self._single_name}'; "
                "name the old path, or begin with a new store"
            )
        path = self._files.folder / self._single_name
        if self._single_name not in lengths and path.exists() and path.stat().st_size:
            raise ConnectorError(
                f"{path}: has {path.stat().st_size} bytes, and the store knows of no run that wrote them; "
                "move the file away, or name another [sink] path"
            )
        if lengths.get(self._single_name) and not path.exists():
            raise ConnectorError(
                f"{path}: is gone, {lengths[self._single_name]} bytes of it were committed; put it back, or begin with a new store"
            )

    def _ours(self) -> bool:
        """The folder has our mark; one that has not may have nothing else."""
        folder = self._files.folder
        if (folder / MARK).exists():
            return True
        if any(folder.iterdir()):
            raise ConnectorError(f"{folder}: is not empty and was not written by a sink; name an empty or a new folder")
        return False

    def _mark(self) -> None:
        if not self._ours():
            self._files.cut(MARK, 0)
            self._files.sync()

    def _write(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if rows(answer):
                name = self._name(answer.key)
                self._files.append(name, self._format.data(self._files, name, answer))

    def _name(self, key: Key) -> str:
        if self.single:
            return self._single_name
        name = f"{file_name(stream_text(key))}.{self.format}"
        if self._keys.setdefault(name, key) != key:
            raise ConnectorError(
                f"{self._files.folder / name}: is the file of stream {self._keys[name]!r}, and would be that of {key!r} too"
            )
        return name

    def _flush(self) -> Mapping[str, int]:
        for name in list(self._files.changed):
            self._format.mend(self._files, name)
        return self._files.sync()


def _target(config: FilesSinkConfig, path: Path) -> tuple[FileFormat, bool]:
    """The format, and whether one file takes all streams."""
    own = SUFFIXES.get(path.suffix.lower())
    if config.format is None:
        if own not in ("jsonl", "csv"):
            raise ConfigError(
                f"[sink] path: '{config.path}' is neither a .jsonl nor a .csv file; of a folder say the format: csv | jsonl | npy | wav"
            )
        return own, True
    if own is not None and not path.is_dir():
        if own != config.format or own not in ("jsonl", "csv"):
            raise ConfigError(
                f"[sink] format: is {config.format}, and '{config.path}' is a .{own} file; one file for all streams is jsonl or csv"
            )
        return own, True
    return config.format, False
