"""Records a second from topic to topic, the sides in turn on the same broker and the same records.

The input is fed once. A side consumes it from its beginning under a group of its own and writes one answer a record to a fresh
topic. Its rate is read from outside, off the committed end of that topic: from the first commit that has records to the
last, so that starting up does not count, or to --limit-s after it, where the side is then ended. Then the topic is read
(read_committed), its records are counted, and those of 20 streams are compared with the model.
"""

import argparse
import asyncio
import statistics
import tempfile
from functools import partial
from pathlib import Path

from broker import Broker
from feeding import Feeder, Load
from lstm_model import Reference, write_model
from reporting import installed, middle, options, report, table
from sides import CHECKPOINT_S, COMMIT_S, SIDES, Job
from watching import Rate, check_answers, ends_of, follow, group_is_at, rate, read_output

START_S, WATCHED = 40.0, 20


async def turn(broker: Broker, job: Job, load: Load, wanted: dict[int, int], side: str, limit_s: float) -> Rate:
    """One side's turn on its own output topic."""
    await broker.make_topic(job.output, job.partitions)
    worker = SIDES[side].worker(job).start()

    async def done() -> bool:
        worker.check()
        return await group_is_at(broker, job.name, job.input, wanted)

    try:
        seen = await follow(broker, job.output, job.partitions, done, limit_s, START_S)
    finally:
        worker.stop()
    every = max(1, load.keys // WATCHED)
    output = await read_output(broker, seen.ends[-1], set(load.names[::every]) if SIDES[side].answers else set())
    compared = check_answers(output, load, Reference(job.model)) if SIDES[side].answers else 0
    found = rate(seen, output)
    print(
        f"{job.name:28} {found.per_s:10,.0f} records/s  {found.records:,} in {found.seconds:.2f} s, "
        f"{compared} answers compared, {output.bytes_per_record:.0f} bytes an answer",
        flush=True,
    )
    await broker.drop_topics([job.output])
    await broker.drop_topics_of(f"{job.name}-")
    return found


async def measure(a: argparse.Namespace, folder: Path) -> dict[str, list[Rate]]:
    load, model = Load(a.keys, a.partitions), folder / "model.onnx"
    write_model(model)
    taken: dict[str, list[Rate]] = {side: [] for side in a.side}
    async with Broker(a.port) as broker:
        await broker.make_topic("frames", a.partitions)
        async with Feeder(broker.address, "frames", load) as feeder:
            await feeder.put(0, a.records)
        wanted = await ends_of(broker, "frames", a.partitions)
        place = partial(
            Job,
            address=broker.address,
            input="frames",
            partitions=a.partitions,
            model=model,
            folder=folder,
            others=a.others,
        )
        for n in range(a.rounds):
            for side in list(taken):
                job = place(name=f"{side}-{n}", output=f"answers-of-{side}-{n}")
                taken[side].append(await turn(broker, job, load, wanted, side, a.limit_s))
    return taken


def rows(taken: dict[str, list[Rate]]) -> list[list[str]]:
    medians = {side: statistics.median(r.per_s for r in rates) for side, rates in taken.items()}
    base, ours = medians.get("bare"), medians.get("undertow")
    return [
        [
            side,
            SIDES[side].what,
            middle([r.per_s for r in rates]),
            f"{medians[side] / base:.2f}" if base else "-",
            f"{ours / medians[side]:.1f}" if ours else "-",
        ]
        for side, rates in taken.items()
    ]


def arguments() -> argparse.Namespace:
    parser = options(__doc__, "throughput")
    parser.add_argument("--side", nargs="+", choices=sorted(SIDES), default=["bare", "bare-batches", "undertow"])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=20.0, help="a turn's longest time from its first commit on")
    parser.add_argument(
        "--others",
        type=Path,
        default=Path(".venv-others/bin/python"),
        help="Python of the others, see requirements-others.txt",
    )
    a = parser.parse_args()
    if a.quick:
        a.records, a.keys, a.rounds, a.limit_s = 40_000, 1_000, 1, 5.0
    return a


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="undertow-bench-") as folder:
        taken = asyncio.run(measure(a, Path(folder)))
    how = (
        f"{a.records:,} records of {a.keys:,} streams in {a.partitions} partitions; commits every {COMMIT_S} s, checkpoints of "
        f"undertow every {CHECKPOINT_S:.0f} s; median (range) of {a.rounds} rounds, the sides in turn, a turn at most {a.limit_s:.0f} s. "
        "The bare loops send as many bytes as an answer has, without headers, to the partition that the record came from."
    )
    if any(side.startswith(("quix", "faust")) for side in taken):
        how += f" Others: {installed(a.others, 'quixstreams', 'faust-streaming', 'aiokafka', 'confluent-kafka', 'onnxruntime')}."
    body = table(["side", "what", "records/s", "of bare", "undertow is x times"], rows(taken))
    figures = {
        side: [{"records": r.records, "seconds": r.seconds, "per_s": r.per_s} for r in rates]
        for side, rates in taken.items()
    }
    report("throughput", a, how, body, {"sides": figures})


if __name__ == "__main__":
    main()
