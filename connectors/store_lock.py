"""One process a store: a lock file that holds the pid, and that the operating system lets go of when the process dies."""

import fcntl
import os
from pathlib import Path

from ..engine.errors import CheckpointError


class StoreLock:
    """Held from construction to `release`. Raises CheckpointError where another process has it."""

    def __init__(self, folder: Path):
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise CheckpointError(
                f"{folder}: process {owner} runs this store; stop it first, or give this pipeline another [store] path"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)
