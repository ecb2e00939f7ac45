"""End-to-end latency: from when a record was due to be sent to when a consumer has its answer.

Records are due on a constant schedule, at shares of a throughput that bench_kafka.py measured; a feeder in a process of its own
sends what is due every 5 ms, whether or not anything was answered (open loop). The consumer reads read_committed. What was
due in the first --warm-s is left out. With exactly-once an answer is seen when its transaction is committed, so about half
the commit interval is part of it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import paced
from broker import Broker
from feeding import Feeder, Load
from lstm_model import Reference, write_model
from receiving import Receiver
from reporting import options, report, table
from sides import COMMIT_S, SIDES, Job
from watching import Output, check_answers

LEAD_S, START_S, DRAIN_S = 2.0, 60.0, 20.0
WATCHED = 10


async def latencies(broker: Broker, job: Job, load: Load, side: str, per_s: float, a: argparse.Namespace) -> np.ndarray:
    """In seconds, of the records that were due after the warm-up; infinite of those that had no answer DRAIN_S after the last was due."""
    await broker.make_topic(job.input, load.partitions)
    await broker.make_topic(job.output, load.partitions)
    async with Feeder(broker.address, job.input, load) as feeder:
        await feeder.put(0, load.keys)
    watched = set(load.names[:: max(1, load.keys // WATCHED)]) if SIDES[side].answers else set()
    worker = SIDES[side].worker(job).start()
    try:
        async with Receiver(broker.address, job.output, load, watched) as got:
            await got.until(load.keys, START_S, worker.check)
            begin, seconds = time.monotonic() + LEAD_S, a.warm_s + a.seconds
            feeding = paced.start(broker.address, job.input, load, load.keys, per_s, seconds, begin)
            try:
                total = load.keys + int(per_s * seconds)
                await got.until(total, LEAD_S + seconds + DRAIN_S, worker.check, enough=True)
            finally:
                feeding.terminate()
                feeding.wait()
            records, times, _ = got.receipts()
            check_answers(Output({}, got.values, 0), load, Reference(job.model))
    finally:
        worker.stop()
    await broker.drop_topics([job.input, job.output])
    await broker.drop_topics_of(f"{job.name}-")
    due = (records - load.keys) / per_s
    missing = np.full(total - len(records), np.inf)
    return np.append((times - begin - due)[due >= a.warm_s], missing)


async def measure(a: argparse.Namespace, folder: Path) -> dict[str, dict[float, np.ndarray]]:
    load, model = Load(a.keys, a.partitions), folder / "model.onnx"
    write_model(model)
    taken: dict[str, dict[float, np.ndarray]] = {side: {} for side in a.side}
    async with Broker(a.port) as broker:
        place = partial(Job, address=broker.address, partitions=a.partitions, model=model, folder=folder, others=Path())
        for share in a.shares:
            for side in a.side:
                name = f"{side}-at-{int(100 * share)}"
                job = place(name=name, input=f"frames-{name}", output=f"answers-{name}")
                taken[side][share] = await latencies(broker, job, load, side, share * a.throughput, a)
                print(f"{name:24} {words(taken[side][share])}", flush=True)
    return taken


def quantiles(found: np.ndarray) -> dict[str, float]:
    """Seconds; of latencies that there were, so none is between a number and infinity."""
    p50, p99, p999 = np.quantile(found, [0.5, 0.99, 0.999], method="higher")
    return {"p50": p50, "p99": p99, "p99.9": p999, "longest": found.max()}


def cells(found: np.ndarray) -> list[str]:
    return [f"{1000 * q:,.0f}" for q in quantiles(found).values()]


def words(found: np.ndarray) -> str:
    return ", ".join(f"{name} {1000 * q:,.0f} ms" for name, q in quantiles(found).items())


def measured_throughput(a: argparse.Namespace) -> float:
    """undertow's median in the figures that bench_kafka.py left. Raises SystemExit where there are none."""
    path = a.out.parent / "throughput/figures.json"
    sides = json.loads(path.read_text())["sides"] if path.exists() else {}
    if "undertow" not in sides:
        raise SystemExit(f"{path} has no throughput of undertow; run bench_kafka.py first, or give --throughput")
    return float(np.median([r["per_s"] for r in sides["undertow"]]))


def arguments() -> argparse.Namespace:
    parser = options(__doc__, "latency")
    parser.add_argument(
        "--throughput", type=float, help="records/s that the shares are of; default: what bench_kafka.py measured"
    )
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5, 0.9])
    parser.add_argument(
        "--side", nargs="+", choices=sorted(SIDES), default=["bare-batches", "undertow", "undertow-alo"]
    )
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--warm-s", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    a = parser.parse_args()
    if a.quick:
        a.throughput, a.shares, a.keys, a.warm_s, a.seconds = a.throughput or 4000.0, [0.5], 500, 1.0, 3.0
    a.throughput = a.throughput or measured_throughput(a)
    return a


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="undertow-bench-") as folder:
        taken = asyncio.run(measure(a, Path(folder)))
    how = (
        f"Shares of {a.throughput:,.0f} records/s; {a.keys:,} streams in {a.partitions} partitions; {a.seconds:.0f} s each, after "
        f"{a.warm_s:.0f} s that do not count; commits every {COMMIT_S} s; latency from when a record was due to its receipt, "
        "with feeder and reader on the same cores, who had no part in that throughput; `inf` where answers were still missing "
        f"{DRAIN_S:.0f} s after the last record was due."
    )
    rows = [
        [SIDES[side].what, f"{share:.0%}", f"{share * a.throughput:,.0f}", *cells(found)]
        for side, by_share in taken.items()
        for share, found in by_share.items()
    ]
    body = table(["side", "share", "records/s", "p50 ms", "p99 ms", "p99.9 ms", "longest ms"], rows)
    figures = {
        side: {str(share): quantiles(found) for share, found in by_share.items()} for side, by_share in taken.items()
    }
    report("latency", a, how, body, {"throughput": a.throughput, "seconds": figures})


if __name__ == "__main__":
    main()
