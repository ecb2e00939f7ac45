"""Records that could not be stepped, as records of a dead-letter topic, in the transaction of the commit that passes them over."""

from typing import Any

from ...engine.errors import UndertowError
from ..columns import Columns
from .cluster import Cluster
from .output_records import partitioner
from .writer import Writer

REASON, ERROR, SOURCE = "undertow-reason", "undertow-error", "undertow-source"
TOO_LARGE = b"larger than this topic's batches; undertow-source says where it is"


class DeadLetterTopic:
    """Each as it came, key, value, timestamp and headers, and with headers that say why and where from."""

    def __init__(self, cluster: Cluster, topic: str):
        self.cluster, self.topic = cluster, topic
        self._waiting: list[tuple[Any, list[tuple[str, bytes]]]] = []

    def write(self, columns: Columns, i: int, reason: UndertowError) -> None:
        record = columns.payloads[i]
        why = [
            (REASON, str(reason).encode()),
            (ERROR, type(reason).__name__.encode()),
            (SOURCE, columns.source(i).encode()),
        ]
        self._waiting.append((record, [*record.headers, *why]))

    def clear(self) -> None:
        """The transaction that they would have been in is none: they will be met again."""
        self._waiting.clear()

    async def send(self, writer: Writer) -> None:
        """Raises WriterFailed."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        partitions, batches = self.cluster.partitions(self.topic), dict[int, list[Any]]()
        partition_of = partitioner(partitions)
        for record, headers in waiting:
            partition = record.partition % partitions if record.key is None else partition_of(record.key)
            some = batches.setdefault(partition, [])
            if not some or not _added(some[-1], record, record.value, headers):
                some.append(writer.producer.create_batch())
                if not _added(some[-1], record, record.value, headers):
                    _added(some[-1], record, TOO_LARGE, headers[-3:])
        await writer.send(self.topic, batches)


def _added(batch: Any, record: Any, value: bytes | None, headers: list[tuple[str, bytes]]) -> bool:
    return batch.append(timestamp=max(0, record.timestamp), key=record.key, value=value, headers=headers) is not None
