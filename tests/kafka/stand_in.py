"""A plain consume-transform-produce loop over the oracle, in place of `undertow run`: what the harness is tried on.

One worker at a time, no changelog: state comes back by reading the committed input again. Its transactional id is the
pipeline's name, so whoever starts fences whoever ran. `flaw` breaks it in one known way, so that a test shows that the harness sees it.
"""

import asyncio
import signal
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from .oracle import Recurrence
from .topics import partitions_of

Flaw = Literal["", "forgets", "no fence", "commits first", "mixes", "reorders", "no transaction"]
Output = tuple[bytes, bytes, list[tuple[str, bytes]]]


def run(pipeline: Path, phases: Callable[[str], None], flaw: Flaw = "") -> None:
    """Until SIGTERM."""
    asyncio.run(StandIn(tomllib.loads(pipeline.read_text()), phases, flaw).run())


class StandIn:
    def __init__(self, tables: dict[str, Any], phases: Callable[[str], None], flaw: Flaw):
        self.phases, self.flaw, self.stopping = phases, flaw, False
        self.servers, (self.topic,) = tables["source"]["bootstrap_servers"], tables["source"]["topics"]
        self.group, self.sink = tables["name"], tables["sink"]["topic"]
        self.exactly = tables["delivery"]["guarantee"] == "exactly-once" and flaw not in (
            "no transaction",
            "commits first",
        )
        self.states: dict[tuple[int, bytes], Recurrence] = {}
        self.seen: dict[tuple[int, bytes], int] = {}

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        id = f"{self.group}-{uuid4()}" if self.flaw == "no fence" else self.group
        options = {"transactional_id": id} if self.exactly else {"enable_idempotence": True}
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, **options)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers,
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await producer.start()
        await consumer.start()
        try:
            self.phases("claimed")
            await self._restore(consumer)
            while not self.stopping:
                await self._turn(consumer, producer)
        finally:
            await consumer.stop()
            await producer.stop()

    def _stop(self) -> None:
        self.stopping = True

    async def _restore(self, consumer: AIOKafkaConsumer) -> None:
        """Steps again what was committed."""
        partitions = await partitions_of(self.servers, self.topic)
        consumer.assign(partitions)
        ends = {tp: await consumer.committed(tp) or 0 for tp in partitions}
        self.phases("restoring")
        await consumer.seek_to_beginning()
        while behind := [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for tp, records in (await consumer.getmany(*behind, timeout_ms=50)).items():
                for record in records:
                    if record.offset < ends[tp]:
                        self._step(record)
        for tp in partitions:
            consumer.seek(tp, ends[tp])
        if self.flaw == "forgets":
            self.states.clear()

    async def _turn(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        polled = await consumer.getmany(timeout_ms=50, max_records=200)
        if not polled:
            return
        self.phases("polled")
        offsets = {tp: records[-1].offset + 1 for tp, records in polled.items()}
        if self.flaw == "commits first":
            await consumer.commit(offsets)
        outputs = [out for records in polled.values() for r in records if (out := self._step(r))]
        self.phases("stepped")
        if self.flaw == "reorders":
            outputs.reverse()
        if self.exactly:
            await self._transaction(producer, outputs, offsets)
        else:
            await self._plainly(consumer, producer, outputs, offsets)

    async def _transaction(
        self, producer: AIOKafkaProducer, outputs: list[Output], offsets: dict[TopicPartition, int]
    ) -> None:
        async with producer.transaction():
            await self._send(producer, outputs)
            self.phases("sent")
            await producer.send_offsets_to_transaction(offsets, self.group)
            self.phases("committing")
        self.phases("committed")

    async def _plainly(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        outputs: list[Output],
        offsets: dict[TopicPartition, int],
    ) -> None:
        await self._send(producer, outputs)
        self.phases("sent")
        self.phases("committing")
        await consumer.commit(offsets)
        self.phases("committed")

    async def _send(self, producer: AIOKafkaProducer, outputs: list[Output]) -> None:
        for key, value, headers in outputs:
            await producer.send(self.sink, value, key, headers=headers)
        await producer.flush()

    def _step(self, record: ConsumerRecord) -> Output | None:
        name, headers = (record.partition, record.key), dict(record.headers)
        owner = (record.partition, b"one for all") if self.flaw == "mixes" else name
        recurrence, seen = self.states.setdefault(owner, Recurrence()), self.seen.get(name, 0)
        values = [recurrence.step(x) for (x,) in struct.iter_unpack("<q", record.value or b"")]
        self.seen[name] = seen + len(values)
        end = headers.get("undertow-end") == b"1" and self.seen[name] > 0
        if end:
            del self.states[owner], self.seen[name]
        if not values and not end:
            return None
        source = f"{record.topic}/{record.partition}/{record.offset}".encode()
        told = [
            ("undertow-step", b"%d" % seen),
            ("undertow-source", source),
            *([("undertow-end", b"1")] if end else []),
        ]
        return record.key, struct.pack(f"<{len(values)}q", *values), told
