"""`undertow.run`: a pipeline from its file to its summary."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from .config import PlacedPipeline, read_pipeline
from .opening import open_parts
from .processor import Processor
from .records import Sink, Source
from .store import Store
from .summary import Summary

Told = Callable[[Callable[[], Summary]], None]


def run(
    pipeline: str | os.PathLike[str] | PlacedPipeline,
    *,
    source: Source | None = None,
    sink: Sink | None = None,
    told: Told | None = None,
) -> Summary:
    """Runs the pipeline until its source is exhausted, and returns what it did.

    source, sink: given where the file says `type = "memory"`. told: called after each batch with what gives the figures so far.
    In the main thread, SIGINT and SIGTERM end it after the batch in hand and a checkpoint; a second one ends the process with 1.
    Raises UndertowError; what was committed stays, and the next run goes on from there.
    """
    placed = pipeline if isinstance(pipeline, PlacedPipeline) else read_pipeline(pipeline)
    parts = open_parts(placed, source, sink)
    store = Store(placed.store_path, placed.pipeline.name, parts.batch.engine.fingerprint)
    try:
        processor = Processor(parts.batch, parts.source, parts.sink, store, placed.pipeline.delivery, told)
        return asyncio.run(_heeding_signals(processor))
    finally:
        store.close()


async def _heeding_signals(processor: Processor) -> Summary:
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
