"""What checkpoints cost: records a second at several intervals, beside one so long that no row is written.

Every stream has new frames all the time, so every row has changed when its turn comes: the most that an interval can cost.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from broker import Broker
from lstm_model import write_model
from many_runs import Run, feed_all, one_run, scale, topic_of
from reporting import middle, options, report, table
from sides import COMMIT_S
from worker import Settings

PARTITIONS, NEVER_S = 4, 3600.0


async def measure(a: argparse.Namespace, folder: Path) -> dict[float, list[Run]]:
    model = folder / "model.onnx"
    write_model(model)
    taken: dict[float, list[Run]] = {s: [] for s in a.intervals}
    async with Broker(a.port) as broker:
        await feed_all(broker, PARTITIONS, a.keys, a.records)
        for n in range(a.rounds):
            for interval, runs in taken.items():
                name = f"every-{interval:g}-{n}"
                settings = Settings(
                    name, model, broker.address, topic_of(PARTITIONS), f"answers-{name}", checkpoint_s=interval
                )
                runs.append(await one_run(broker, settings, PARTITIONS, a.keys, folder, a.limit_s))
                print(f"checkpoint_interval_s {interval:g}: {runs[-1]}", flush=True)
    return taken


def rows(taken: dict[float, list[Run]]) -> list[list[str]]:
    never = statistics.median(r.per_s for r in taken[NEVER_S])
    return [
        [
            f"{interval:g}",
            middle([r.per_s for r in runs]),
            f"{1 - statistics.median(r.per_s for r in runs) / never:.1%}",
            middle([r.cpu for r in runs], 2),
        ]
        for interval, runs in taken.items()
    ]


def arguments() -> argparse.Namespace:
    parser = options(__doc__, "checkpoint")
    parser.add_argument(
        "--intervals", type=float, nargs="+", default=[1.0, 5.0, 30.0], help="seconds; an hour is always there"
    )
    scale(parser)
    a = parser.parse_args()
    if a.quick:
        a.records, a.keys, a.rounds, a.limit_s, a.intervals = 40_000, 1_000, 1, 5.0, [1.0]
    a.intervals = [*(s for s in a.intervals if s != NEVER_S), NEVER_S]
    return a


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="undertow-bench-") as folder:
        taken = asyncio.run(measure(a, Path(folder)))
    how = (
        f"{a.records:,} records of {a.keys:,} streams in {PARTITIONS} partitions, exactly-once, commits every {COMMIT_S} s; median (range) of {a.rounds} rounds "
        f"in turn, a run at most {a.limit_s:.0f} s, so the last interval writes no rows. The cost is the share of the last line's throughput that is lost."
    )
    columns = ["checkpoint_interval_s", "records/s", "cost", "worker's cores"]
    figures = {f"{s:g}": [{"per_s": r.per_s, "cpu": r.cpu} for r in runs] for s, runs in taken.items()}
    report("checkpoint", a, how, table(columns, rows(taken)), {"intervals": figures})


if __name__ == "__main__":
    main()
