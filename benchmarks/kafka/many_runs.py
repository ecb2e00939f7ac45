"""Runs of `undertow run` that differ in one setting, in turn on the same kind of input, with rate and processor time of each."""

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

from broker import Broker
from feeding import Feeder, Load
from lstm_model import Reference
from watching import check_answers, ends_of, follow, group_is_at, rate, read_output, transactions
from worker import Settings, undertow_worker

START_S, WATCHED = 120.0, 20


@dataclass(frozen=True)
class Run:
    """per_s: records a second. cpu: processor seconds of the worker for each second of the run, of the broker likewise.

    commits_per_s: transactions that reached the partition that had most of them.
    """

    per_s: float
    cpu: float
    broker_cpu: float
    commits_per_s: float


def topic_of(partitions: int) -> str:
    return f"frames-{partitions}"


async def feed_all(broker: Broker, partitions: int, keys: int, records: int) -> None:
    load = Load(keys, partitions)
    await broker.make_topic(topic_of(partitions), partitions)
    async with Feeder(broker.address, topic_of(partitions), load) as feeder:
        await feeder.put(0, records)


async def one_run(broker: Broker, settings: Settings, partitions: int, keys: int, folder: Path, limit_s: float) -> Run:
    """Consumes the input of so many partitions to its end, or for limit_s from the first commit on."""
    load, wanted = Load(keys, partitions), await ends_of(broker, settings.input, partitions)
    await broker.make_topic(settings.output, partitions)
    worker = undertow_worker(settings, folder).start()
    marks: list[tuple[float, float, float]] = []

    async def done() -> bool:
        worker.check()
        marks.append((asyncio.get_running_loop().time(), worker.cpu_s(), broker.cpu_s()))
        return await group_is_at(broker, settings.name, settings.input, wanted)

    try:
        seen = await follow(broker, settings.output, partitions, done, limit_s, START_S)
    finally:
        worker.stop()
    output = await read_output(broker, seen.ends[-1], set(load.names[:: max(1, keys // WATCHED)]))
    check_answers(output, load, Reference(settings.model))
    await broker.drop_topics([settings.output])
    await broker.drop_topics_of(f"{settings.name}-")
    within = [m for m in marks if m[0] >= seen.times[1]]
    (t0, cpu0, broker0), (t1, cpu1, broker1) = within[0], within[-1]
    took = max(t1 - t0, 1e-9)
    per_s = transactions(seen, output) / max(seen.times[-1] - seen.times[1], 1e-9)
    return Run(rate(seen, output).per_s, (cpu1 - cpu0) / took, (broker1 - broker0) / took, per_s)


def scale(parser: argparse.ArgumentParser) -> None:
    """The options that these benchmarks share."""
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=20.0, help="a run's longest time from its first commit on")
