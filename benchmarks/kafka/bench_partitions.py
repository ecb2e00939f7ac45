"""What 1, 10 and 100 partitions on one worker cost: records a second, commits a second, processor time of worker and broker.

The same streams and frames, spread over more or fewer partitions; everything else is the same. The output has as many partitions.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from broker import Broker
from lstm_model import write_model
from many_runs import Run, feed_all, one_run, scale, topic_of
from reporting import middle, options, report, table
from sides import CHECKPOINT_S, COMMIT_S
from worker import Settings


async def measure(a: argparse.Namespace, folder: Path) -> dict[int, list[Run]]:
    model = folder / "model.onnx"
    write_model(model)
    taken: dict[int, list[Run]] = {p: [] for p in a.partitions}
    async with Broker(a.port) as broker:
        for p in a.partitions:
            await feed_all(broker, p, a.keys, a.records)
        for n in range(a.rounds):
            for p, runs in taken.items():
                settings = Settings(
                    f"spread-{p}-{n}", model, broker.address, topic_of(p), f"answers-{p}-{n}", a.guarantee
                )
                runs.append(await one_run(broker, settings, p, a.keys, folder, a.limit_s))
                print(f"{p} partitions: {runs[-1]}", flush=True)
    return taken


def arguments() -> argparse.Namespace:
    parser = options(__doc__, "partitions")
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--guarantee", choices=("exactly-once", "at-least-once"), default="exactly-once")
    scale(parser)
    a = parser.parse_args()
    if a.quick:
        a.records, a.keys, a.rounds, a.limit_s, a.partitions = 40_000, 1_000, 1, 5.0, [1, 20]
    return a


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="undertow-bench-") as folder:
        taken = asyncio.run(measure(a, Path(folder)))
    how = (
        f"{a.records:,} records of {a.keys:,} streams, one worker, {a.guarantee}, commits every {COMMIT_S} s, checkpoints every {CHECKPOINT_S:.0f} s; median "
        f"(range) of {a.rounds} rounds in turn, a run at most {a.limit_s:.0f} s. Processor time is in cores. Commits are the transactions of the busiest output partition, by its markers."
    )
    columns = ["partitions", "records/s", "commits/s that a partition sees", "worker's cores", "broker's cores"]
    rows = [
        [
            p,
            middle([r.per_s for r in runs]),
            middle([r.commits_per_s for r in runs], 1),
            middle([r.cpu for r in runs], 2),
            middle([r.broker_cpu for r in runs], 2),
        ]
        for p, runs in taken.items()
    ]
    report(
        "partitions",
        a,
        how,
        table(columns, rows),
        {"partitions": {p: [vars_of(r) for r in runs] for p, runs in taken.items()}},
    )


def vars_of(r: Run) -> dict[str, float]:
    return {name: getattr(r, name) for name in r.__dataclass_fields__}


if __name__ == "__main__":
    main()
