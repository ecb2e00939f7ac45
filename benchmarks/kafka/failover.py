"""One failover, run and told: a worker that owns all streams is ended with kill -9 under load, another takes over."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paced
from broker import Broker
from feeding import Feeder, Load
from lstm_model import Reference
from receiving import Receiver
from watching import TOLERANCE, Output, check_answers, ends_of, group_is_at
from worker import Line, Settings, Worker, undertow_worker

WATCHED, CHECKED, START_S, JOIN_S, DRAIN_S = 40, 1000, 120.0, 60.0, 120.0
# Of the log; the last is missing where nothing had to be replayed.
EVENTS = ("assigned", "fenced", "restored", "replayed")


@dataclass(frozen=True)
class Story:
    """Times are seconds after the kill.

    events: the successor's log, in its order. silence: the longest time without an answer from a partition, which began at
    silent_from and ended with `first`. caught_up: when answers were again younger than one second. receipts: when each
    answer came, from three seconds before the kill on. fields: what the log says of the restore. streams: that were restored.
    """

    standbys: int
    events: dict[str, float]
    first: float
    silence: float
    silent_from: float
    caught_up: float
    receipts: np.ndarray
    fields: list[dict]
    streams: int
    compared: int


@dataclass(frozen=True)
class Plan:
    """settings: of both workers. per_s: of the feed; settle_s: of feed before the kill, after_s: of feed after it."""

    settings: Settings
    load: Load
    per_s: float
    settle_s: float
    after_s: float


async def failover(broker: Broker, plan: Plan, folder: Path) -> Story:
    settings, load = plan.settings, plan.load
    await broker.make_topic(settings.input, load.partitions)
    await broker.make_topic(settings.output, load.partitions)
    async with Feeder(broker.address, settings.input, load) as feeder:
        await feeder.put(0, load.keys)
    owner, successor = (undertow_worker(settings, folder, label) for label in "ab")
    watched = set(load.names[:: max(1, load.keys // WATCHED)])
    owner.start()
    try:
        async with Receiver(broker.address, settings.output, load, watched) as got:
            await got.until(load.keys, START_S, owner.check)
            successor.start()
            await two_members(broker, settings.name, successor)
            return await killed_under_load(broker, plan, owner, successor, got)
    finally:
        owner.stop()
        successor.stop()


async def two_members(broker: Broker, group: str, successor: Worker) -> None:
    """Until the successor is in the group and nothing moves."""
    deadline = time.monotonic() + JOIN_S
    while True:
        successor.check()
        (response,) = await broker.admin.describe_consumer_groups([group])
        _, _, state, _, _, members, *_ = response.groups[0]
        if state == "Stable" and len(members) == 2:
            return
        if time.monotonic() > deadline:
            raise SystemExit(
                f"group {group} is {state} with {len(members)} members, expected 2; {successor.log.read_text()[-2000:]}"
            )
        await asyncio.sleep(0.1)


async def killed_under_load(broker: Broker, plan: Plan, owner: Worker, successor: Worker, got: Receiver) -> Story:
    """Feeds, kills, feeds on, waits until all is answered, and checks it."""
    settings, load = plan.settings, plan.load
    begin, seconds = time.monotonic() + 2.0, plan.settle_s + plan.after_s
    feeding = paced.start(broker.address, settings.input, load, load.keys, plan.per_s, seconds, begin)
    try:
        await asyncio.sleep(begin + plan.settle_s - time.monotonic())
        owner.check()
        at = owner.kill()
        killed = time.monotonic() - (time.time() - at)
        got.keeping = True
        await got.until(load.keys + int(plan.per_s * seconds), seconds + DRAIN_S, successor.check)
    finally:
        feeding.terminate()
        feeding.wait()
    wanted = await ends_of(broker, settings.input, load.partitions)
    await asyncio.sleep(1.0)
    if not await group_is_at(broker, settings.name, settings.input, wanted):
        raise SystemExit(f"{settings.name}: all answers are there, and the group has not committed all of the input")
    compared = check_all(plan, got)
    return told(plan, successor, got, at, killed, begin, compared)


def check_all(plan: Plan, got: Receiver) -> int:
    """How many answers were compared: all of the watched streams, and the first after the kill of whatever stream.

    Raises SystemExit where one is wrong, or where a record has no answer or two.
    """
    load, reference = plan.load, Reference(plan.settings.model)
    records, _, _ = got.receipts()
    if not np.array_equal(np.sort(records), np.arange(len(records))):
        raise SystemExit(f"{plan.settings.name}: some streams have more answers than records and others fewer")
    for record, value in got.kept[:CHECKED]:
        step, stream = divmod(record, load.keys)
        want = reference.answers(load.frames(stream, step + 1))[-1]
        if not np.allclose(np.frombuffer(value, "<f4"), want, atol=TOLERANCE):
            raise SystemExit(
                f"{plan.settings.name}: the answer to frame {step} of stream {stream} is wrong after the kill"
            )
    return check_answers(Output({}, got.values, 0), load, reference) + len(got.kept[:CHECKED])


def told(plan: Plan, successor: Worker, got: Receiver, at: float, killed: float, begin: float, compared: int) -> Story:
    records, times, partitions = got.receipts()
    since, age = times - killed, times - begin - (records - plan.load.keys) / plan.per_s
    silence, silent_from = max(longest_gap(since[partitions == p], plan.after_s) for p in set(partitions.tolist()))
    if silence < plan.settings.session_timeout_s / 2:
        raise SystemExit(
            f"{plan.settings.name}: silent for {silence:.2f} s only, so the worker that was killed owned nothing"
        )
    old = since[(since > 0) & (age > 1.0)]
    found = {name: lines for name in EVENTS if (lines := successor.said(name, at))}
    last = {"restored", "replayed"}  # of several partitions
    return Story(
        standbys=plan.settings.standbys,
        events={name: lines[-1 if name in last else 0].time - at for name, lines in found.items()},
        first=silent_from + silence,
        silence=silence,
        silent_from=silent_from,
        caught_up=float(old.max()) if len(old) else 0.0,
        receipts=since[since > -3.0],
        fields=[line.fields for line in found.get("restored", [])],
        streams=streams_in(plan.load, found.get("restored", [])),
        compared=compared,
    )


def streams_in(load: Load, restored: list[Line]) -> int:
    """How many streams are in the partitions that the log says were restored, each by its name `topic/partition`."""
    partitions = {int(name.rsplit("/", 1)[1]) for line in restored for name in line.fields["partitions"]}
    return sum(p in partitions for p in load.partition_of)


def longest_gap(since: np.ndarray, stop: float) -> tuple[float, float]:
    """The longest time without a receipt that began while there was a feed, from a second before the kill on; and when it began."""
    moments = np.unique(since[since > -1.0])
    gaps = np.diff(moments)[moments[:-1] < stop - 1.0]
    longest = int(np.argmax(gaps))
    return float(gaps[longest]), float(moments[longest])
