"""A worker that stands still for longer than its session, and then goes on: whatever it had in hand comes to nothing."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from .chaos import Scene
from .feeder import fed, keys
from .worker import Fate

KEYS = keys(40)


@pytest.mark.parametrize(
    ("guarantee", "phase"),
    [
        ("exactly-once", "stepped"),
        ("exactly-once", "sent"),
        ("exactly-once", "committing"),
        ("exactly-once", "restoring"),
        ("at-least-once", "stepped"),
        ("at-least-once", "committing"),
    ],
)
def test_a_zombie_writes_nothing(scene: Callable[..., Scene], guarantee: str, phase: str) -> None:
    """Stopped in the middle of a phase until another has its partitions and has answered; awake again it harms nothing.

    With exactly-once not one output comes twice; with at-least-once those that it had sent may.
    """

    async def body() -> None:
        stage = scene(guarantee)
        await stage.set_up(session_timeout_s=1)
        async with stage.feeding(fed(KEYS, 10**9, chunks=(1, 4)), rate=600):
            zombie = stage.start(Fate(phase, 1 if phase == "restoring" else 5, "STOP"))
            await asyncio.to_thread(zombie.until, lambda: zombie.stopped, 20, f"stop at '{phase}'")
            stage.start()
        await stage.answered()
        zombie.signal(signal.SIGCONT)
        await stage.feed(fed(keys(50)[40:], 500), rate=500)  # a second in which it may do what it will, and new streams
        await stage.finish(excused=[zombie])

    asyncio.run(body())


def test_a_zombie_of_many(scene: Callable[..., Scene]) -> None:
    """Of three workers one sleeps past its session and wakes, again and again, at any moment: the others have its work."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=6, session_timeout_s=1)
        async with stage.feeding(fed(KEYS, 10**9), rate=500):
            for _ in range(3):
                stage.start()
            await asyncio.sleep(2)
            for worker in stage.running[:2]:
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(2.2)
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(0.5)
        await stage.finish(excused=stage.running)

    asyncio.run(body())
