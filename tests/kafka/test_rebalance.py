"""Workers come and go, in order and out of it: partitions move with their state, and nothing else changes."""

import asyncio
import random
import time
from collections.abc import Callable
from signal import SIGTERM

import pytest

from .chaos import Scene
from .feeder import fed, keys
from .topics import members

KEYS = keys(200)


async def shared(stage: Scene, *sizes: int) -> None:
    """Until the group's members have so many partitions each."""
    deadline, found = time.monotonic() + 20, []
    while found != sorted(sizes):
        if time.monotonic() > deadline:
            logs = "\n".join(w.tail() for w in stage.running)
            raise TimeoutError(f"members have {found} partitions, expected {sorted(sizes)}\n{logs}")
        await asyncio.sleep(0.1)
        found = sorted(await members(stage.bootstrap, stage.name))


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_one_three_one(scene: Callable[..., Scene], guarantee: str) -> None:
    """From one worker to three and back under load, all in order: each has its share while it is there, and goes with 0.

    At-least-once too repeats nothing, for nobody crashed.
    """

    async def body() -> None:
        stage = scene(guarantee)
        await stage.set_up(partitions=6, session_timeout_s=6)
        async with stage.feeding(fed(KEYS, 10**9, chunks=(1, 2), end_chance=0.001)):
            stage.start()
            await shared(stage, 6)
            stage.start()
            stage.start()
            await shared(stage, 2, 2, 2)
            for left, worker in ((2, stage.running[0]), (1, stage.running[1])):
                assert await asyncio.to_thread(worker.end) == 0, worker.tail()
                await shared(stage, *([6 // left] * left))
        await stage.answered()
        stage.guarantee = "exactly-once"
        await stage.finish()

    asyncio.run(body())


def test_storm(scene: Callable[..., Scene]) -> None:
    """Joins, leaves and kills faster than anybody restores, while input goes on: in the end every answer is there once."""

    async def body() -> None:
        stage, choose = scene(), random.Random(5)
        await stage.set_up(partitions=8, session_timeout_s=1)
        await stage.feed(fed(KEYS, 2000))
        async with stage.feeding(fed(keys(300)[200:], 10**9), rate=300):
            stage.start()
            until = time.monotonic() + 8
            while time.monotonic() < until:
                await gust(stage, choose)
                await asyncio.sleep(choose.uniform(0.05, 0.6))
            stage.start()
        await stage.finish(seconds=40)

    asyncio.run(body())


async def gust(stage: Scene, choose: random.Random) -> None:
    """One joins, leaves or is killed; there are one to four."""
    there = [w for w in stage.running if w.status is None]
    what = "join" if len(there) < 2 else "leave" if len(there) > 3 else choose.choice(("join", "leave", "kill"))
    if what == "join":
        stage.start()
        return
    worker = choose.choice(there)
    if what == "kill":
        worker.kill()
        return
    code = await asyncio.to_thread(worker.end)
    begun = "assigned" in worker.tail()  # before that it may not heed signals yet, and has nothing to hand over
    assert code == 0 or (code == -SIGTERM and not begun), worker.tail()
