"""Warm standbys: who follows a changelog goes on from what it has read already."""

import asyncio
import re
import time
from collections.abc import Callable

import pytest

from .chaos import Scene
from .feeder import fed, keys
from .worker import Worker

KEYS = keys(60)


async def said(worker: Worker, pattern: str, seconds: float = 20) -> str:
    """The first line of the worker's log that matches."""
    deadline = time.monotonic() + seconds
    while not (found := re.search(rf".*{pattern}.*", worker.tail())):
        assert worker.status is None, worker.tail()
        assert time.monotonic() < deadline, f"no {pattern!r} in: {worker.tail()}"
        await asyncio.sleep(0.1)
    return found.group()


@pytest.mark.parametrize("how", ["killed", "in order"])
def test_takes_over(scene: Callable[..., Scene], how: str) -> None:
    """Of two workers that stand by for each other one goes: the other's restore begins where its following was."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=2, session_timeout_s=1.5, tables="[store]\nstandbys = 1")
        async with stage.feeding(fed(KEYS, 10**9, end_chance=0.002), rate=500):
            stays = stage.start()
            await said(stays, "restored")
            goes = stage.start()
            await said(goes, "restored")
            await stage.committed(goes, 1500)
            if how == "killed":
                goes.kill()
            else:
                assert await asyncio.to_thread(goes.end) == 0, goes.tail()
            await said(stays, "'warm': 1")
            await stage.committed(stays, 2500)
        await stage.finish()

    asyncio.run(body())


def test_three_in_a_circle(scene: Callable[..., Scene]) -> None:
    """Two standbys a partition, and the workers are killed one after the other: the streams survive each."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=3, session_timeout_s=1, tables="[store]\nstandbys = 2")
        async with stage.feeding(fed(KEYS, 10**9), rate=500):
            workers = [stage.start() for _ in range(3)]
            for i, worker in enumerate(workers[:]):
                await stage.committed(workers[-1], 600 * (i + 1))
                worker.kill()
                workers.append(stage.start())
        await stage.finish()

    asyncio.run(body())
