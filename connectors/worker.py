"""One of several processes of a pipeline: what is its own in the pipeline's settings, what it tells, and when it dies."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ..engine.errors import ConfigError
from .addresses import host_and_port
from .config import MetricsConfig, PlacedPipeline
from .kafka.config import KafkaSinkConfig, KafkaSourceConfig
from .summary import Summary

TELL_S = 0.25
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def check_workers(placed: PlacedPipeline, count: int) -> None:
    """Raises ConfigError where the pipeline cannot have so many workers."""
    if count == 1:
        return
    for table, config, kind, why in (
        ("source", placed.pipeline.source, KafkaSourceConfig, "only the partitions of Kafka can be shared out"),
        ("sink", placed.pipeline.sink, KafkaSinkConfig, "only Kafka takes the answers of several"),
    ):
        if not isinstance(config, kind):
            raise ConfigError(
                f"{placed.file}: --workers {count}: [{table}] type is {config.__struct_config__.tag!r}, and {why}; run one worker"
            )
    of_worker(placed, count - 1)


def of_worker(placed: PlacedPipeline, number: int) -> PlacedPipeline:
    """The pipeline as its worker `number` runs it: an own member of the group, an own port for metrics. Raises ConfigError."""
    pipeline = placed.pipeline
    source, metrics = pipeline.source, pipeline.metrics
    if isinstance(source, KafkaSourceConfig) and source.group_instance_id is not None:
        source = msgspec.structs.replace(source, group_instance_id=f"{source.group_instance_id}-{number}")
    if metrics is not None:
        metrics = msgspec.structs.replace(metrics, address=_address(placed, metrics, number))
    of_its_own = msgspec.structs.replace(pipeline, source=source, metrics=metrics)
    return msgspec.structs.replace(placed, pipeline=of_its_own, worker=number)


def _address(placed: PlacedPipeline, metrics: MetricsConfig, number: int) -> str:
    host, port = host_and_port(metrics.address)
    if port and port + number > 65535:
        raise ConfigError(
            f"{placed.file}: [metrics] address {metrics.address!r}: worker {number} would listen on port {port + number}, and there are "
            "none above 65535; give a lower one, or port 0"
        )
    return f"{f'[{host}]' if ':' in host else host}:{port + number if port else 0}"


def end_with(parent: int) -> None:
    """From now on this process gets SIGTERM when its parent ends, however that ends; at once where it has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


class Reports:
    """What a worker may be given as `told`: its figures, a JSON object a line, to what was stdout, which its supervisor reads.

    From then on stdout is stderr, so that no library's words come between. Never waits: what nobody reads is left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._due, self._out = clock, 0.0, os.dup(1)
        os.dup2(2, 1)
        os.set_blocking(self._out, False)

    def __call__(self, summary: Callable[[], Summary]) -> None:
        if self._clock() >= self._due:
            self.write(summary())
            self._due = self._clock() + TELL_S

    def write(self, summary: Summary) -> None:
        """A line is short enough for a pipe to take it whole or not at all."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._out, msgspec.json.encode(summary) + b"\n")
