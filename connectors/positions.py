"""How far each partition was read, given out and checkpointed."""

from collections.abc import Iterable, Mapping

from ..engine.errors import ConnectorError
from .records import Record
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

    def replayed(self, record: Record) -> bool:
        """The record's answers were committed before. Raises ConnectorError where the source cuts its records otherwise now."""
        stored = self.stored.get(record.partition)
        if stored is None or record.offset >= stored.committed:
            return False
        if record.next_offset > stored.committed:
            raise ConnectorError(
                f"'{record.partition}': the record from offset {record.offset} to {record.next_offset} was cut at {stored.committed} "
                "when it was committed; resume with the [source] options of that run"
            )
        return True

    def took(self, record: Record) -> None:
        self.next[record.partition] = record.next_offset
        self._moved.add(record.partition)
        self._unsaved.add(record.partition)

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
