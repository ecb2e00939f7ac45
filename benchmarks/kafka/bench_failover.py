"""Failover on a time line: `kill -9` of the worker that owns 100,000 streams of 1 KiB state, under load, a second worker in the group.

Every stream has had a frame before, and a feeder goes on with --per-s records/s, on a constant schedule, through all of it. What the
successor did is told by its own log; the silence is what a read_committed consumer sees. All answers are awaited and
counted, and those of some 40 streams are compared with the model: none may be missing, repeated or wrong. Once with a
standby, once without.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np
from broker import Broker
from failover import EVENTS, Plan, Story, failover
from feeding import Load
from lstm_model import STATE_BYTES, write_model
from reporting import PAGE, options, report, table
from sides import COMMIT_S
from worker import Settings

BIN_S = 0.1


async def measure(a: argparse.Namespace, folder: Path) -> list[Story]:
    load, model, stories = Load(a.keys, a.partitions), folder / "model.onnx", []
    write_model(model)
    for standbys in a.standbys:
        async with Broker(a.port) as broker:  # a fresh one: nothing of the first is in the way of the second
            settings = Settings(
                f"failover-{standbys}", model, broker.address, "frames", "answers",
                checkpoint_s=a.checkpoint_s, session_timeout_s=a.session_timeout_s, max_streams=2 * a.keys, standbys=standbys,
            )  # fmt: skip
            plan = Plan(settings, load, a.per_s, a.settle_s, a.after_s)
            stories.append(await failover(broker, plan, folder))
            print(f"standbys {standbys}: {row(stories[-1])}", flush=True)
    return stories


def row(s: Story) -> list:
    events = [f"{s.events[name]:.2f}" if name in s.events else "-" for name in EVENTS]
    return [
        s.standbys,
        *events,
        f"{s.first:.2f}",
        f"{s.silence:.2f}",
        f"{s.caught_up:.2f}",
        *restored(s),
    ]


def restored(s: Story) -> list[str]:
    """Seconds from `fenced` to `restored`, streams/s, MB/s of state."""
    if not {"fenced", "restored"} <= set(s.events):
        return ["-", "-", "-"]
    took = max(s.events["restored"] - s.events["fenced"], 0.001)
    return [f"{took:.2f}", f"{s.streams / took:,.0f}", f"{s.streams * STATE_BYTES / took / 1e6:,.0f}"]


def plot(stories: list[Story], path: Path) -> None:
    """Answers received a second over the time since the kill, with the successor's log as marks."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "failover"  # the same figures make the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(stories), 1, figsize=(9, 2.8 * len(stories)), sharex=True, squeeze=False)
    stop = max(max(s.caught_up, s.first) for s in stories) + 2.0
    for axis, s in zip(axes[:, 0], stories, strict=True):
        bins = np.arange(-3.0, stop, BIN_S)
        counts, _ = np.histogram(s.receipts, bins)
        axis.fill_between(bins[:-1], counts / BIN_S, step="post", alpha=0.6, linewidth=0)
        axis.axvspan(s.silent_from, s.silent_from + s.silence, color="tab:red", alpha=0.12)
        marks = {"killed": 0.0, **s.events, "first answer received": s.first, "caught up": s.caught_up}
        for n, (name, at) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
            axis.axvline(at, color="black", linewidth=0.8)
            axis.annotate(f" {name} {at:.2f}", (at, 0.95 - 0.1 * n), xycoords=("data", "axes fraction"), fontsize=8)
        axis.set_ylabel("answers/s")
        axis.set_title(
            f"{'with a standby' if s.standbys else 'without a standby'}: {s.silence:.2f} s without an answer",
            fontsize=10,
        )
    axes[-1, 0].set_xlabel("seconds after kill -9")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def arguments() -> argparse.Namespace:
    parser = options(__doc__, "failover")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument(
        "--partitions",
        type=int,
        default=1,
        help="with more than one the two workers share them, so the killed one owns half",
    )
    parser.add_argument("--per-s", type=float, default=2000.0)
    parser.add_argument("--checkpoint-s", type=float, default=30.0)
    parser.add_argument("--session-timeout-s", type=float, default=3.0)
    parser.add_argument(
        "--settle-s", type=float, default=70.0, help="of feed before the kill: more than two checkpoint intervals"
    )
    parser.add_argument("--after-s", type=float, default=20.0, help="of feed after the kill")
    parser.add_argument("--standbys", type=int, nargs="+", default=[0, 1], help="how many standbys, one run each")
    a = parser.parse_args()
    if a.quick:
        a.keys, a.per_s, a.checkpoint_s, a.settle_s, a.after_s, a.standbys = 2_000, 500.0, 2.0, 5.0, 8.0, [0]
    return a


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="undertow-bench-") as folder:
        stories = asyncio.run(measure(a, Path(folder)))
    how = (
        f"{a.keys:,} streams in {a.partitions} partition{'s' * (a.partitions > 1)}, {a.per_s:,.0f} records/s throughout; exactly-once, commits every {COMMIT_S} s, "
        f"checkpoints every {a.checkpoint_s:.0f} s, session timeout {a.session_timeout_s:.0f} s. Times are seconds after `kill -9`. `first` is the first correct answer after the silence; `silence` the longest time without an answer from a partition; `caught up` when answers were again younger than a second. "
        f"The restore is from `fenced` to `restored`. {sum(s.compared for s in stories):,} answers were compared with the model, and every record was answered once."
    )
    columns = ["standbys", *EVENTS, "first", "silence s", "caught up", "restore s", "streams/s", "MB/s"]
    body = table(columns, [row(s) for s in stories])
    image = PAGE.parent / "images/kafka-failover.svg" if a.docs else a.out / "failover.svg"
    plot(stories, image)
    if a.docs:
        body += f"\n\n![Answers a second around the kill](images/{image.name})"
    kept = [
        {
            "standbys": s.standbys,
            "events": s.events,
            "first": s.first,
            "silence": s.silence,
            "caught_up": s.caught_up,
            "log": s.fields,
        }
        for s in stories
    ]
    report("failover", a, how, body, {"stories": kept})


if __name__ == "__main__":
    main()
