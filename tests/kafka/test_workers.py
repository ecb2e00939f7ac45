"""`undertow run --workers` on a real broker: shared partitions, a worker that is killed, and the end of all."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from .broker import die_with_parent
from .chaos import Scene
from .feeder import fed, keys
from .topics import members

KEYS = keys(60)
LOGS = '[log]\nformat = "json"'


class Supervised:
    """The command, its log and its end."""

    def __init__(self, stage: Scene, workers: int):
        self.log = stage.folder / f"supervisor-{time.time_ns()}.log"
        command = [sys.executable, "-m", "undertow", "run", str(stage.file), "--workers", str(workers), "--json"]
        with self.log.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, preexec_fn=die_with_parent)

    def said(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if line["message"] == message]

    async def until(self, done: Callable[[], bool], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"not {what}, status {self.process.returncode}: {self.log.read_text()[-4000:]}")
            await asyncio.sleep(0.05)

    def end(self) -> tuple[int, dict[str, Any]]:
        """SIGTERM: its exit code and its summary."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=30)
        assert out, self.log.read_text()
        return self.process.returncode, json.loads(out)


@contextmanager
def supervised(stage: Scene, workers: int = 2) -> Iterator[Supervised]:
    """Its workers end with it, also where the test fails."""
    one = Supervised(stage, workers)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()


async def shared(stage: Scene, *sizes: int) -> None:
    deadline = time.monotonic() + 30
    while sorted(await members(stage.bootstrap, stage.name)) != sorted(sizes):
        assert time.monotonic() < deadline, f"not shared as {sizes}"
        await asyncio.sleep(0.1)


def test_workers(scene: Callable[..., Scene]) -> None:
    """Two share the partitions. One is killed, comes back while input goes on, and has its share again. SIGTERM ends both with 0,
    every answer is there once, and the summary has what all lives did, that of the killed one too.
    """

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=4, session_timeout_s=1.5, tables=LOGS)
        await stage.feed(fed(KEYS, 1500))
        with supervised(stage) as both:
            await both.until(lambda: len(sharing(both, 0)) == len(sharing(both, 1)) == 1, "shared by both")
            await shared(stage, 2, 2)
            await stage.feed(fed(keys(90)[60:75], 500))
            await stage.answered()
            await asyncio.sleep(1)  # the figures of the one that is killed are told by then
            (pid,) = [line["pid"] for line in both.said("worker started") if line["worker"] == 0]
            os.kill(pid, signal.SIGKILL)
            async with stage.feeding(fed(keys(90)[75:], 10**9), rate=300):
                await both.until(lambda: len(sharing(both, 0)) == 2, "shared with the first worker's second life")
            await stage.answered()
            code, summary = await asyncio.to_thread(both.end)
            assert code == 0, both.log.read_text()
        await stage.verify()
        (died,) = both.said("worker ended")
        assert (died["worker"], died["how"], died["next_start_s"]) == (0, "SIGKILL", 1.0)
        ended = both.said("ended")
        assert [line.get("worker", "all") for line in ended[-1:]] == ["all"]
        assert {line["worker"] for line in ended[:-1]} == {0, 1}
        inputs = sum(map(len, (await stage.expected()).values()))
        assert summary["records"] >= inputs > sum(line["records"] for line in ended[:-1])
        assert (summary["stopped_by"], summary["lag"]) == ("SIGTERM", None)

    asyncio.run(body())


def sharing(one: Supervised, worker: int) -> set[str]:
    """When those processes of this worker were started that had a half of the partitions at some time."""
    lives = [line["time"] for line in one.said("worker started") if line["worker"] == worker]
    lines = [line for line in one.said("assigned") if line["worker"] == worker and len(line["partitions"]) == 2]
    return {begin for begin, end in pairwise([*lives, "9999"]) if any(begin < line["time"] < end for line in lines)}
