"""Where the answers to Kafka records go: into the transaction, ahead of it, or to a sink that is not Kafka."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..columns import Answers
from ..payloads import Codec
from ..records import Sink
from .cluster import Cluster
from .output_records import output_batches, partitioner
from .writer import Writer


class Outputs(Protocol):
    async def open(self) -> None:
        """Raises ConnectorError."""
        ...

    def prepared(self, answers: Answers, writer: Writer) -> Any:
        """What `send` takes; runs in a worker thread."""
        ...

    async def send(self, prepared: Sequence[Any], writer: Writer) -> None:
        """Raises WriterFailed, ConnectorError."""
        ...

    async def flush(self) -> None:
        """Everything that was sent is durable, but for what is in the transaction."""
        ...

    async def close(self) -> None: ...


class TransactionalOutputs:
    """Exactly once: seen together with the offsets of the records that they answer, or not at all."""

    def __init__(self, cluster: Cluster, topic: str, codec: Codec):
        self.cluster, self.topic, self.codec = cluster, topic, codec

    async def open(self) -> None:
        self._partition_of = partitioner(self.cluster.partitions(self.topic))

    def prepared(self, answers: Answers, writer: Writer) -> Any:
        payloads = self.codec.encode_many(answers.values, answers.rows)
        limit = self.cluster.message_bytes(self.topic)
        return output_batches(writer.producer.create_batch, answers, payloads, self._partition_of, limit)

    async def send(self, prepared: Sequence[Any], writer: Writer) -> None:
        for batches in prepared:
            await writer.send(self.topic, batches)

    async def flush(self) -> None:
        """The transaction's commit does."""

    async def close(self) -> None:
        """The writer is closed by whoever made it."""


class SinkOutputs:
    """At least once: given to a sink, and durable there before the offsets are committed."""

    def __init__(self, sink: Sink):
        self.sink = sink

    async def open(self) -> None:
        await self.sink.open(None)

    def prepared(self, answers: Answers, writer: Writer) -> Any:
        return answers

    async def send(self, prepared: Sequence[Any], writer: Writer) -> None:
        for answers in prepared:
            await self.sink.write(answers)

    async def flush(self) -> None:
        await self.sink.flush()

    async def close(self) -> None:
        await self.sink.close()
