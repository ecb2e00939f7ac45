"""Hours of a pipeline's life in minutes: keys that come, end and fall silent, workers that are killed, and a memory that stays flat.

    KAFKA_HOME=.. python benchmarks/soak.py --minutes 10

Two workers share four partitions of the integer recurrence of tests/kafka. Event time runs so fast that the run covers
--hours of it. A stream lives for about a hundred frames; then it ends, or falls silent until the pipeline expires it. One
worker lives through all of it and its memory is watched; the other is killed with kill -9 every now and then. At the end
every answer is compared with the oracle: none lost, none repeated, each from the right state.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pairing import heading

from tests.kafka.broker import Cluster
from tests.kafka.chaos import Scene
from tests.kafka.feeder import Fed
from tests.kafka.verifier import END
from tests.kafka.worker import Worker, Workers

PAGE = os.sysconf("SC_PAGE_SIZE")
LIFE, KILL_EVERY_S, IDLE_S, PARTITIONS = 100, 20.0, 120, 4
BEGIN_MS = time.time_ns() // 1_000_000  # topics are kept by event time: older answers would be deleted meanwhile


def churn(live: int, records: int, hours: float, seed: int = 3) -> Iterator[Fed]:
    """`live` streams at a time; each that ends or falls silent makes room for one that was never there."""
    choose = random.Random(seed)
    streams = [(b"key-%d" % i, 0) for i in range(live)]
    named = live
    for i in range(records):
        place = choose.randrange(live)
        key, frames = streams[place]
        over = choose.random() < 1 / LIFE
        ends = over and choose.random() < 0.5
        yield Fed(key, frames, 1, frames, ends, BEGIN_MS - round((1 - i / records) * hours * 3_600_000))
        streams[place] = (key, frames + 1)
        if over:
            streams[place], named = (b"key-%d" % named, 0), named + 1


def memory_mb(worker: Worker) -> float:
    """What of its memory is its own: it shares the interpreter and the libraries with the process that forked it."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{worker.pid}/statm").read_text().split())
    return (resident - shared) * PAGE / 2**20


async def watched(worker: Worker, over: asyncio.Event) -> list[float]:
    seen = []
    while not over.is_set():
        seen.append(memory_mb(worker))
        await asyncio.sleep(0.5)
    return seen


async def killed_now_and_then(stage: Scene, victim: Worker, over: asyncio.Event) -> int:
    kills = 0
    while True:
        try:
            await asyncio.wait_for(over.wait(), KILL_EVERY_S)
            return kills
        except TimeoutError:
            await asyncio.to_thread(victim.kill)
            victim, kills = stage.start(), kills + 1


async def soak(bootstrap: str, folder: Path, workers: Workers, a: argparse.Namespace) -> None:
    records = round(a.minutes * 60 * a.rate)
    stage = Scene(bootstrap, folder, workers)
    stage.idle_ms = IDLE_S * 1000
    await stage.set_up(PARTITIONS, tables=f"[policy]\nidle_timeout_s = {IDLE_S}", retention_ms="-1")
    stays, over = stage.start(), asyncio.Event()
    await stage.feed(islice(churn(a.live, records, a.hours), 1))
    await stage.committed(stays, 1)
    memory = asyncio.create_task(watched(stays, over))
    kills = asyncio.create_task(killed_now_and_then(stage, stage.start(), over))
    began = time.monotonic()
    feed = churn(a.live, records, a.hours)
    next(feed)
    await stage.feed(feed, a.rate)
    await stage.committed(stays, records, seconds=120)
    seconds = time.monotonic() - began
    over.set()
    await stage.finish(seconds=120, excused=[w for w in stage.running if w.status == -9])
    lines = await stage.expected()
    report(a, records, seconds, await memory, await kills, lines)


def report(a: argparse.Namespace, records: int, seconds: float, memory: list[float], kills: int, lines: dict) -> None:
    ends = sum(line.step == END for some in lines.values() for line in some)
    fifth = max(1, len(memory) // 5)
    parts = [statistics.median(memory[i * fifth : (i + 1) * fifth]) for i in range(5)]
    print(heading("numba", "aiokafka"))
    print(
        f"{records:,} records of {len(lines):,} streams in {seconds:.0f} s ({records / seconds:,.0f} a second), {a.hours:g} hours of event time"
    )
    print(f"{ends:,} streams ended or expired, {a.live:,} at a time; the other worker was killed {kills} times")
    print("memory of the worker that stayed, MB, median of each fifth: " + ", ".join(f"{mb:.1f}" for mb in parts))
    print("every answer is there once and from the right state")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long it feeds (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=1, help="of event time in those (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="records a second (default: %(default)s)")
    parser.add_argument("--live", type=int, default=500, help="streams at a time (default: %(default)s)")
    a = parser.parse_args()
    if a.minutes * 60 * a.rate < 2 or a.live < 1:
        parser.error("--minutes, --rate and --live have to leave something to feed")
    named, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if not named and not home:
        parser.error("set KAFKA_HOME to a Kafka distribution, or KAFKA_BOOTSTRAP_SERVERS to a running cluster")
    workers = Workers()
    with tempfile.TemporaryDirectory(prefix="undertow-soak-") as folder:
        cluster = None if named else Cluster(Path(home or ""), Path(folder))
        try:
            asyncio.run(soak(named or cluster.bootstrap, Path(folder), workers, a))
        finally:
            workers.close()
            if cluster:
                cluster.close()


if __name__ == "__main__":
    main()
