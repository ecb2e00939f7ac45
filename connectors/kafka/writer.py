"""The transactional producer of one life of this process: outputs, changelog records and offsets go into one transaction."""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

STOP_S = 5.0
MakeProducer = Callable[[str | None], AIOKafkaProducer]  # with this transactional id; None: without transactions


class WriterFailed(Exception):
    """The transaction cannot be committed: nothing of it will be seen. Whoever wrote it has to go back to what was committed."""


class Writer:
    """One transaction at a time, begun by the first thing that is sent. worker: the part of the id that is this process's."""

    def __init__(self, make: MakeProducer, pipeline: str, worker: str):
        self._make, self._prefix, self._lives = make, f"{pipeline}-{worker}", 0
        self._producer: AIOKafkaProducer | None = None
        self._sent: list[asyncio.Future[Any]] = []
        self._open = False
        self.id = ""

    async def start(self) -> None:
        """A new life, with a transactional id that was never used."""
        self.id = f"{self._prefix}-{uuid.uuid4().hex[:12]}"
        self._producer, self._sent, self._open = self._make(self.id), [], False
        await self._producer.start()

    @property
    def producer(self) -> AIOKafkaProducer:
        assert self._producer is not None, "write before start"
        return self._producer

    async def send(self, topic: str, batches: Mapping[int, Iterable[Any]]) -> None:
        """Hands prepared batches by partition to the open transaction. Raises WriterFailed."""
        with _failing():
            await self._begin()
            for partition, builders in batches.items():
                for builder in builders:
                    self._sent.append(await self.producer.send_batch(builder, topic, partition=partition))

    async def ready(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str) -> None:
        """Waits until everything that was sent has been taken, and adds the offsets. Raises WriterFailed."""
        with _failing():
            await self._begin()
            await asyncio.gather(*self._sent)
            self._sent = []
            await self.producer.send_offsets_to_transaction(dict(offsets), group_id)

    async def commit(self) -> None:
        """Raises WriterFailed."""
        with _failing():
            await self.producer.commit_transaction()
            self._open = False

    async def abandon(self) -> None:
        """Ends this life whatever state it is in; an open transaction is aborted by whoever claims its partitions next."""
        producer, self._producer = self._producer, None
        for future in self._sent:
            future.cancel()
        self._sent = []
        if producer is not None:
            with suppress(KafkaError, TimeoutError, AssertionError):
                if self._open:
                    await asyncio.wait_for(producer.abort_transaction(), STOP_S)
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(producer.stop(), STOP_S)

    async def _begin(self) -> None:
        if not self._open:
            await self.producer.begin_transaction()
            self._open = True


class _failing:
    """Whatever aiokafka raises where a transaction cannot go on, its checks of its own state included, is a WriterFailed."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KafkaError | AssertionError | TimeoutError):
            raise WriterFailed(f"{type(error).__name__}: {error}") from error
