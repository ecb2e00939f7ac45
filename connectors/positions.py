"""How far each partition was read, given out and checkpointed."""

from collections.abc import Iterable, Mapping

import numpy as np

from ..engine.errors import ConnectorError
from .columns import Columns
from .store import StoredPartition


class Positions:
    """next: by partition, the offset behind the last record taken. stored: what the store says of it."""

    def __init__(self, stored: Mapping[str, StoredPartition]):
        self.stored = dict(stored)
        self.next: dict[str, int] = {}
        self._moved: set[str] = set()  # since the last write
        self._unsaved: set[str] = set()  # since the last checkpoint

    @property
    def begin(self) -> dict[str, int]:
        """Where the source goes on: behind what the checkpoint's rows stand for."""
        return {p.partition: p.checkpoint for p in self.stored.values() if p.checkpoint is not None}

    def replayed(self, columns: Columns) -> np.ndarray:
        """Whether each record's answers were committed before, bool (N,). Raises ConnectorError where the source cuts its records otherwise now."""
        stored = [self.stored.get(p) for p in columns.partitions]
        committed = np.array([0 if s is None else s.committed for s in stored], np.int64)[columns.partition]
        replayed = columns.offsets < committed
        cut = replayed & (columns.next_offsets > committed)
        if cut.any():
            i = int(cut.argmax())
            raise ConnectorError(
                f"'{columns.partitions[columns.partition[i]]}': the record from offset {columns.offsets[i]} to {columns.next_offsets[i]} "
                f"was cut at {committed[i]} when it was committed; resume with the [source] options of that run"
            )
        return replayed

    def took(self, columns: Columns, count: int) -> None:
        """The first `count` records were taken."""
        which = columns.partition[:count]
        for p in np.unique(which).tolist():
            name, last = columns.partitions[p], int(np.flatnonzero(which == p)[-1])
            self.next[name] = int(columns.next_offsets[last])
            self._moved.add(name)
            self._unsaved.add(name)

    def forget(self, partition: str) -> None:
        self.stored.pop(partition, None)
        self.next.pop(partition, None)
        self._moved.discard(partition)
        self._unsaved.discard(partition)

    @property
    def moved(self) -> bool:
        """Something was taken since the last commit."""
        return bool(self._moved)

    @property
    def unsaved(self) -> bool:
        """Something was taken since the last checkpoint."""
        return bool(self._unsaved)

    def commit(self) -> list[StoredPartition]:
        """What a commit says; a replay never takes back what was committed."""
        old = ((p, self._stored(p)) for p in self._moved)
        return [StoredPartition(p, self._committed(p), s.checkpoint, s.watermark_ns) for p, s in old]

    def checkpoint(self, watermarks: Mapping[str, int]) -> list[StoredPartition]:
        """What a checkpoint says."""
        return [StoredPartition(p, self._committed(p), self.next[p], watermarks.get(p)) for p in self._unsaved]

    def wrote(self, partitions: Iterable[StoredPartition], checkpoint: bool) -> None:
        self.stored |= {p.partition: p for p in partitions}
        self._moved.clear()
        if checkpoint:
            self._unsaved.clear()

    def _stored(self, partition: str) -> StoredPartition:
        return self.stored.get(partition) or StoredPartition(partition, self.next[partition])

    def _committed(self, partition: str) -> int:
        return max(self._stored(partition).committed, self.next[partition])
