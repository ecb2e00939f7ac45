"""`undertow.run`: a pipeline from its file to its summary."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .config import PlacedPipeline, read_pipeline
from .kafka.config import KafkaSourceConfig
from .opening import open_kafka_parts, open_parts
from .processor import Processor
from .records import Sink, Source
from .store import Store
from .summary import Summary

if TYPE_CHECKING:
    from .kafka.processor import KafkaProcessor

Told = Callable[[Callable[[], Summary]], None]
Phases = Callable[[str], None]


def run(
    pipeline: str | os.PathLike[str] | PlacedPipeline,
    *,
    source: Source | None = None,
    sink: Sink | None = None,
    told: Told | None = None,
    phases: Phases | None = None,
) -> Summary:
    """Runs the pipeline until its source is exhausted, and returns what it did.

    source, sink: given where the file says `type = "memory"`. told: called after each batch with what gives the figures so far.
    phases: called with the name of each step of the work on Kafka, "polled", "stepped", "sent", "committing", "committed", "claimed",
    "restoring": for tests that end the process there.
    In the main thread, SIGINT and SIGTERM end it after the batch in hand and a checkpoint; a second one ends the process with 1.
    Raises UndertowError; what was committed stays, and the next run goes on from there.
    """
    placed = pipeline if isinstance(pipeline, PlacedPipeline) else read_pipeline(pipeline)
    if isinstance(placed.pipeline.source, KafkaSourceConfig):
        return _run_kafka(placed, sink, told, phases)
    parts = open_parts(placed, source, sink)
    store = Store(placed.store_path, placed.pipeline.name, parts.batch.engine.fingerprint)
    try:
        processor = Processor(parts.batch, parts.source, parts.sink, store, placed.pipeline.delivery, told)
        return asyncio.run(_heeding_signals(processor))
    finally:
        store.close()


def _run_kafka(placed: PlacedPipeline, sink: Sink | None, told: Told | None, phases: Phases | None) -> Summary:
    from .kafka.processor import KafkaProcessor  # aiokafka takes a fifth of a second to load

    parts = open_kafka_parts(placed, sink)

    async def process() -> Summary:
        return await _heeding_signals(KafkaProcessor(parts, told, phases))

    return asyncio.run(process())


async def _heeding_signals(processor: "Processor | KafkaProcessor") -> Summary:
    if threading.current_thread() is not threading.main_thread():
        return await processor.run()
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def heed(number: signal.Signals) -> None:
        if processor.stopped_by is not None:
            os._exit(1)
        processor.stop(number.name)

    for number in signals:
        loop.add_signal_handler(number, heed, number)
    try:
        return await processor.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
