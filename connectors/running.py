"""`undertow.run`: a pipeline from its file to its summary."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from .config import MetricsConfig, PlacedPipeline, read_pipeline
from .health import Health
from .health_server import serving
from .kafka.config import KafkaSourceConfig
from .logs import logging_to_stderr, secrets_of
from .metrics import Metrics
from .observing import Observed
from .opening import open_kafka_parts, open_parts
from .processor import Processor
from .records import Sink, Source
from .store import Store
from .summary import Summary, figures

if TYPE_CHECKING:
    from .kafka.processor import KafkaProcessor

log = logging.getLogger("undertow.run")
Told = Callable[[Callable[[], Summary]], None]
Phases = Callable[[str], None]
BEAT_S = 1.0


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
    name, watched = placed.pipeline.name, placed.pipeline.metrics
    limits = watched or MetricsConfig()
    metrics, health = Metrics(name), Health(limits.loop_timeout_s, limits.commit_timeout_s)
    logs = placed.pipeline.log
    logging_ = logging_to_stderr(logs, name, secrets_of(placed.pipeline), placed.worker) if logs else nullcontext()
    with logging_, serving(watched, metrics, health):
        if isinstance(placed.pipeline.source, KafkaSourceConfig):
            summary = _run_kafka(placed, sink, told, phases, metrics, health)
        else:
            summary = _run_local(placed, source, sink, Observed(metrics, health, told) if watched else told, health)
        log.info("ended", extra=figures(summary))
        return summary


def _run_local(
    placed: PlacedPipeline, source: Source | None, sink: Sink | None, told: Told | None, health: Health
) -> Summary:
    """A pipeline whose state is in a store of this machine."""
    parts, pipeline = open_parts(placed, source, sink), placed.pipeline
    store = Store(placed.store_path, pipeline.name, parts.batch.engine.fingerprint)
    try:
        processor = Processor(parts.batch, parts.source, parts.sink, store, pipeline.delivery, told)
        log.info("starts", extra={"backend": parts.batch.engine.backend, "store": placed.store_path})
        return asyncio.run(_watched(processor, health))
    finally:
        store.close()


def _run_kafka(
    placed: PlacedPipeline,
    sink: Sink | None,
    told: Told | None,
    phases: Phases | None,
    metrics: Metrics,
    health: Health,
) -> Summary:
    """A pipeline whose state is in changelog topics."""
    from .kafka.processor import KafkaProcessor  # aiokafka takes a fifth of a second to load

    parts = open_kafka_parts(placed, sink)
    processor = KafkaProcessor(parts, metrics, health, told, phases)
    log.info("starts", extra={"backend": parts.batch.engine.backend, "member": parts.cluster.worker})
    return asyncio.run(_watched(processor, health))


async def _watched(processor: "Processor | KafkaProcessor", health: Health) -> Summary:
    """Runs the processor, and says all the while that the loop turns."""
    health.state("restoring")
    beating = asyncio.create_task(_beat(health))
    try:
        return await _heeding_signals(processor, health)
    finally:
        health.state("stopping")
        beating.cancel()


async def _beat(health: Health) -> None:
    while True:
        health.beat()
        await asyncio.sleep(BEAT_S)


async def _heeding_signals(processor: "Processor | KafkaProcessor", health: Health) -> Summary:
    if threading.current_thread() is not threading.main_thread():
        return await processor.run()
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def heed(number: signal.Signals) -> None:
        if processor.stopped_by is not None:
            os._exit(1)
        log.info("stops", extra={"signal": number.name})
        health.state("stopping", {"signal": number.name})
        processor.stop(number.name)

    for number in signals:
        loop.add_signal_handler(number, heed, number)
    try:
        return await processor.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
