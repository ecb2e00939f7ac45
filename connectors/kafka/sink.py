"""Answers to a Kafka topic, from a source that is not Kafka. What was sent cannot be taken back, so it is at-least-once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.producer.message_accumulator import BatchBuilder

from ...engine.errors import ConnectorError
from ..columns import Answers
from ..payloads import Codec
from .clients import admin, batch_bytes, producer, start, stop
from .config import KafkaSinkConfig
from .failures import connector_error, told
from .output_records import output_batches, partitioner
from .security import kafka_settings
from .topics import largest_message, partition_counts

CLOSE_S, GIVEN_UP_S = 5.0, 0.2  # for what is on its way when the sink is closed, and after a delivery that failed


class KafkaSink:
    """A record an answer. base: where the settings' relative paths begin. Raises ConfigError."""

    truncatable = False

    def __init__(self, config: KafkaSinkConfig, base: Path, codec: Codec):
        self._config, self._codec = config, codec
        self._settings = kafka_settings(config, base)
        self._where = f"Kafka at {config.bootstrap_servers}"
        self._producer: AIOKafkaProducer | None = None
        self._sent: list[asyncio.Future[Any]] = []
        self._gave_up = False

    def check(self) -> None:
        """Looks whether the topic is there. Raises ConnectorError."""
        asyncio.run(self._topic())

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        """Nothing is cut: what a run before sent has been read by someone. Raises ConnectorError."""
        partitions, topic_bytes = await self._topic()
        self._partition_of = partitioner(partitions)
        self._record_bytes = topic_bytes if self._config.compression == "none" else None
        size = batch_bytes(self._config.max_batch_bytes, topic_bytes, partitions)
        self._producer = producer(self._settings, self._config.compression, size)
        await start(self._producer, self._settings)
        with told(self._topic_name):
            await self._producer.partitions_for(self._config.topic)

    async def write(self, answers: Answers) -> None:
        """Sends them. A batch waits until the one before it of its partition is on its way, so two of each is all that piles up."""
        if not len(answers):
            return
        batches = await asyncio.to_thread(self._prepared, answers)
        self._sent = [future for future in self._sent if not future.done() or future.exception()]
        async with self._bounded():
            await asyncio.gather(*(self._send(partition, some) for partition, some in batches.items()))

    async def flush(self) -> Mapping[str, int]:
        """Waits until all in-sync replicas have everything; there is no length to go back to. Raises ConnectorError."""
        sent, self._sent = self._sent, []
        async with self._bounded():
            done = await asyncio.gather(*sent, return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise connector_error(error, self._topic_name) from error
        return {}

    async def close(self) -> None:
        if self._producer is not None:
            await stop(self._producer, GIVEN_UP_S if self._gave_up else CLOSE_S)

    def _prepared(self, answers: Answers) -> dict[int, list[BatchBuilder]]:
        payloads = self._codec.encode_many(answers.values, answers.rows)
        return output_batches(self._opened.create_batch, answers, payloads, self._partition_of, self._record_bytes)

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """An idempotent producer tries for ever; this is where that ends."""
        limit_s = self._config.delivery_timeout_s
        try:
            with told(self._topic_name):
                async with asyncio.timeout(limit_s):
                    yield
        except ConnectorError as error:
            self._gave_up = True
            if isinstance(error.__cause__, TimeoutError):
                raise ConnectorError(
                    f"{self._topic_name}: not acknowledged within {limit_s:g} s; are its partitions' leaders up and enough replicas "
                    "in sync? [sink] delivery_timeout_s says how long to wait"
                ) from error
            raise

    async def _send(self, partition: int, batches: list[BatchBuilder]) -> None:
        for batch in batches:
            while True:
                try:
                    future = await self._opened.send_batch(batch, self._config.topic, partition=partition)
                except KafkaTimeoutError:  # of one request; how long it may take in all is for `write` to say
                    continue
                self._sent.append(future)
                break

    async def _topic(self) -> tuple[int, int]:
        """How many partitions it has, and the most that it takes of a batch."""
        client, topic = admin(self._settings), self._config.topic
        await start(client, self._settings)
        try:
            counts = await partition_counts(client, self._where, [topic])
            return counts[topic], await largest_message(client, self._where, topic)
        finally:
            await stop(client)

    @property
    def _topic_name(self) -> str:
        return f"{self._where}: topic '{self._config.topic}'"

    @property
    def _opened(self) -> AIOKafkaProducer:
        assert self._producer is not None, "write before open"
        return self._producer
