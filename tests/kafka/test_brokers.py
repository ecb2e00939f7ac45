"""Brokers that die, come back and hand over, under a pipeline that goes on: three of them, every topic on all three."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .broker import Cluster
from .chaos import Scene
from .feeder import fed, keys
from .worker import Workers

KEYS = keys(40)


@pytest.fixture(scope="module")
def three(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(kafka_home, tmp_path_factory.mktemp("three"), nodes=3)
    yield cluster
    cluster.close()


@pytest.fixture
def stage(three: Cluster, workers: Workers, tmp_path: Path) -> Iterator[Scene]:
    one = Scene(three.bootstrap, tmp_path, workers)
    yield one
    one.close()


async def under_load(stage: Scene, *blows: Callable[[], None]) -> None:
    """Each blow falls while two workers have work, and two seconds pass before the next."""
    await stage.set_up(partitions=6, session_timeout_s=3)
    async with stage.feeding(fed(KEYS, 10**9), rate=400):
        first = stage.start()
        await stage.committed(first, 400)
        stage.start()
        for blow in blows:
            await asyncio.to_thread(blow)
            await asyncio.sleep(2)
    await stage.finish(seconds=60)


def test_a_broker_is_killed(stage: Scene, three: Cluster) -> None:
    """kill -9 of one broker after another, each back before the next goes: leaders and coordinators move, nothing else."""
    asyncio.run(under_load(stage, lambda: three.kill(0), lambda: three.start(0), lambda: three.restart(1)))


def test_leaders_move(stage: Scene, three: Cluster) -> None:
    """A broker that leaves in order hands its leaders over, and an election gives them back."""

    def elect() -> None:
        command = [three.home / "bin" / "kafka-leader-election.sh", "--bootstrap-server", three.bootstrap]
        command += ["--election-type", "preferred", "--all-topic-partitions"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    asyncio.run(under_load(stage, lambda: three.stop(2), lambda: three.start(2), elect))


def test_all_restart(stage: Scene, three: Cluster) -> None:
    """Every broker is killed at once and started again: the workers wait and go on."""

    def all_at_once() -> None:
        three.kill(0, 1, 2)
        three.start(0, 1, 2)

    asyncio.run(under_load(stage, all_at_once))


def test_a_broker_stands_still(stage: Scene, three: Cluster) -> None:
    """A broker that does not answer for some seconds, and then goes on where it was, repeats and loses nothing."""
    asyncio.run(under_load(stage, lambda: three.pause(0), lambda: three.resume(0)))
