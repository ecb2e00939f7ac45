"""kill -9 at any moment: nothing is lost, nothing is repeated, no stream steps on a state that is not its own.

UNDERTOW_CRASHES=N kills N times at random in place of a few.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator

import pytest

from .chaos import Scene
from .feeder import Fed, fed, keys
from .worker import PHASES, Fate, Worker

KEYS = keys(40)
CRASHES = int(os.environ.get("UNDERTOW_CRASHES", "6"))
STATIC = (
    'group_instance_id = "one"'  # who comes back is the same member at once, so a kill does not cost a session timeout
)
GUARANTEES = ["exactly-once", "at-least-once"]


def endless(seed: int = 0) -> Iterator[Fed]:
    """Records of many streams, chunks among them, some streams ending now and then."""
    return fed(KEYS, 10**9, seed, chunks=(1, 1, 1, 5), end_chance=0.002)


async def killed(worker: Worker) -> None:
    assert await asyncio.to_thread(worker.wait) == -9, worker.tail()


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_at_each_phase(scene: Callable[..., Scene], guarantee: str) -> None:
    """Killed the first and the third time that it comes to each phase, by itself: the successor takes it from there."""

    async def body() -> None:
        stage = scene(guarantee)
        await stage.set_up(source=STATIC)
        async with stage.feeding(endless()):
            for phase in PHASES:
                await killed(stage.start(Fate(phase)))
                if phase not in ("claimed", "restoring"):
                    await killed(stage.start(Fate(phase, 3)))
            stage.start()
        await stage.finish()

    asyncio.run(body())


@pytest.mark.parametrize("phase", ["sent", "committing", "committed"])
def test_a_whole_state_survives(scene: Callable[..., Scene], phase: str) -> None:
    """A state of 1 KiB in two tensors comes back whole to a member that the group does not know yet."""

    async def body() -> None:
        stage = scene(wide=True)
        await stage.set_up(session_timeout_s=1)
        async with stage.feeding(endless()):
            first = stage.start(Fate(phase, 12))
            await killed(first)
            second = stage.start()
            await stage.committed(second, 2500)
        await stage.finish()

    asyncio.run(body())


def test_while_it_restores(scene: Callable[..., Scene]) -> None:
    """Successor after successor is killed in the middle of restoring; the one that gets through has it all."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(source=STATIC)
        async with stage.feeding(endless()):
            await killed(stage.start(Fate("committed", 15)))
            for _ in range(3):
                await killed(stage.start(Fate("restoring")))
            stage.start()
        await stage.finish()

    asyncio.run(body())


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_at_random(scene: Callable[..., Scene], guarantee: str) -> None:
    """Of two workers one after the other is killed, at a phase by chance or at any moment, while input goes on."""

    async def body() -> None:
        stage, choose = scene(guarantee), random.Random(CRASHES)
        await stage.set_up(partitions=4, session_timeout_s=1)
        async with stage.feeding(endless(), rate=500):
            pair = [stage.start(), stage.start()]
            for i in range(CRASHES):
                pair[i % 2] = await doomed(stage, pair[i % 2], choose)
        await stage.finish(seconds=40)

    asyncio.run(body())


async def doomed(stage: Scene, worker: Worker, choose: random.Random) -> Worker:
    """Kills the worker after a while; its successor may have a fate of its own, and then has a successor."""
    await asyncio.sleep(choose.uniform(0.1, 2.0))
    await asyncio.to_thread(worker.kill)
    if choose.random() < 0.5:
        phase = choose.choice(PHASES)
        often = phase not in ("claimed", "restoring")  # those come once where the group does not change again
        fated = stage.start(Fate(phase, choose.choice((1, 2, 5)) if often else 1))
        await killed(fated)
    return stage.start()
