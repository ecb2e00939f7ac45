"""Many growing files under one folder, of which only some are open at once, durable at `sync`."""

import os
from collections import OrderedDict
from pathlib import Path

from ..engine.errors import ConnectorError


class OutputFiles:
    """lengths: of each file, in bytes, what was written included. Raises ConnectorError."""

    def __init__(self, folder: Path, max_open: int):
        self.folder, self.max_open = folder, max_open
        self.lengths: dict[str, int] = {}
        self.changed: set[str] = set()
        self._open: OrderedDict[str, int] = OrderedDict()
        self._created = False

    def make_folder(self) -> None:
        """Durable: each folder that is new, in the one that holds it."""
        new = [self.folder, *self.folder.parents]
        new = new[: next(i for i, folder in enumerate(new) if folder.exists())]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refusal(self.folder, error) from error
        for folder in new:
            sync_folder(folder.parent)

    def cut(self, name: str, length: int) -> None:
        """The file goes on at `length`; what lies behind it is gone."""
        descriptor = self._descriptor(name)
        size = os.fstat(descriptor).st_size
        if size < length:
            raise ConnectorError(
                f"{self.folder / name}: has {size} bytes, {length} were committed; put the file back, or begin with a new store"
            )
        if size > length:
            os.ftruncate(descriptor, length)
            self.changed.add(name)
        self.lengths[name] = length

    def append(self, name: str, data: bytes) -> None:
        self.put(name, self.lengths.get(name, 0), data)
        self.lengths[name] = self.lengths.get(name, 0) + len(data)

    def put(self, name: str, place: int, data: bytes) -> None:
        """Writes inside of the file; its length stays."""
        descriptor, view = self._descriptor(name), memoryview(data)
        self.changed.add(name)
        try:
            while view:
                done = os.pwrite(descriptor, view, place)
                view, place = view[done:], place + done
        except OSError as error:
            raise _refusal(self.folder / name, error) from error

    def read(self, name: str, count: int) -> bytes:
        """The file's first bytes."""
        return os.pread(self._descriptor(name), count, 0)

    def size(self, name: str) -> int:
        """In bytes, on the disk."""
        return os.fstat(self._descriptor(name)).st_size

    def after_last_line(self, name: str) -> int:
        """Where the file's last finished line ends."""
        end = self.size(name)
        while end:
            begin = max(0, end - 65536)
            found = os.pread(self._descriptor(name), end - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
        return 0

    def remove(self, name: str) -> None:
        try:
            (self.folder / name).unlink()
        except OSError as error:
            raise _refusal(self.folder / name, error) from error
        self._created = True

    def sync(self) -> dict[str, int]:
        """Makes what changed durable, new names included: the lengths of those files."""
        for name in self.changed:
            try:
                os.fsync(self._descriptor(name))
            except OSError as error:
                raise _refusal(self.folder / name, error) from error
        if self._created:
            sync_folder(self.folder)
        lengths = {name: self.lengths.get(name, 0) for name in sorted(self.changed)}
        self.changed, self._created = set(), False
        return lengths

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, name: str) -> int:
        """The file's; the one that was not used for longest is closed for it."""
        descriptor = self._open.get(name)
        if descriptor is None:
            while len(self._open) >= self.max_open:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[name] = self._opened(self.folder / name)
        self._open.move_to_end(name)
        return descriptor

    def _opened(self, path: Path) -> int:
        try:
            try:
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                self._created = True
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _refusal(path, error) from error


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> ConnectorError:
    return ConnectorError(f"{path}: cannot be written ({error.strerror})")
