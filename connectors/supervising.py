"""Several processes of one pipeline on this machine: started, watched, started again where they fail, and ended together.

A worker is a command of its own that writes its figures to stdout, a JSON object a line. It ends with 0 once its input is
exhausted or it was told to; with 2 where trying again does not help; any other end is a failure, and it is started again.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from .summary import Summary, total

log = logging.getLogger("undertow.workers")
FIRST_S, LONGEST_S = 1.0, 30.0  # from a failure to the next start; twice as long after each, until one has lasted
LASTED_S = 60.0
CLOSE_S = 20.0  # beside the time that a worker has to store what it has: for connections that do not close
TELL_S = 0.25
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(slots=True)
class Worker:
    """before: the figures of its processes but for the last one, together. now: the last figures of that one."""

    number: int
    process: asyncio.subprocess.Process | None = None
    before: Summary | None = None
    now: Summary | None = None

    @property
    def lives(self) -> list[Summary]:
        return [life for life in (self.before, self.now) if life is not None]


class Supervisor:
    """Runs `count` workers. command: that of a worker, by its number from 0.

    stop_timeout_s: how long workers may take to store what they have. told: as of `undertow.run`, for all of them together.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        count: int,
        stop_timeout_s: float,
        told: Callable[[Callable[[], Summary]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.command, self.told, self.clock = command, told, clock
        self.limit_s = stop_timeout_s + CLOSE_S
        self.workers = [Worker(number) for number in range(count)]
        self.stopped_by: str | None = None
        self._ends = asyncio.Event()
        self._began = clock()

    async def run(self) -> tuple[int, Summary]:
        """Until all workers have ended: the exit code of the whole, the highest that one ended with, and what they did."""
        loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._heed, number.name)
        telling = asyncio.create_task(self._tell())
        try:
            codes = await asyncio.gather(*map(self._keep, self.workers))
        finally:
            telling.cancel()
            self._signal(signal.SIGKILL)
            for number in signals:
                loop.remove_signal_handler(number)
        return max(codes), self.summary()

    def summary(self) -> Summary:
        lives = [life for worker in self.workers for life in worker.lives]
        running = [w.now for w in self.workers if w.process is not None and w.now is not None]
        return total(lives, running, self.clock() - self._began, self.stopped_by)

    # ------------------------------------------------------------------------------------------ one worker

    async def _keep(self, worker: Worker) -> int:
        """Has the worker run until it ends well, or need not be tried again, or all are to end: its exit code."""
        delay_s = FIRST_S
        while True:
            began = self.clock()
            code = await self._live(worker)
            if self._ends.is_set():
                # -SIGTERM: it had not come to the point where it heeds signals, and had nothing to store
                return 0 if code in (0, -signal.SIGTERM) else 2 if code == 2 else 1
            if code == 0 and (worker.now is None or worker.now.stopped_by is None):
                return 0
            if code == 2:
                log.error("a worker cannot run, so all end", extra={"worker": worker.number})
                self._stop()
                return 2
            delay_s = FIRST_S if self.clock() - began > LASTED_S else delay_s
            log.warning("worker ended", extra={"worker": worker.number, "how": _how(code), "next_start_s": delay_s})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ends.wait(), delay_s)
                return 0 if code == 0 else 1
            delay_s = min(2 * delay_s, LONGEST_S)

    async def _live(self, worker: Worker) -> int:
        """One process from its start to its end: its exit code, or minus the signal that ended it."""
        worker.before, worker.now = total(worker.lives, [], 0.0) if worker.lives else None, None
        process = worker.process = await asyncio.create_subprocess_exec(
            *self.command(worker.number),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=ONE_THREAD | os.environ,
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which passes it on
        )
        log.info("worker started", extra={"worker": worker.number, "pid": process.pid})
        if self._ends.is_set():
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        async for line in process.stdout:
            worker.now = msgspec.json.decode(line, type=Summary)
        code = await process.wait()
        worker.process = None
        return code

    # ------------------------------------------------------------------------------------------ all of them

    def _heed(self, name: str) -> None:
        if self.stopped_by is not None:
            log.warning("a second signal: workers are killed", extra={"signal": name})
            self._signal(signal.SIGKILL)
            return
        self.stopped_by = name
        log.info("stops", extra={"signal": name})
        self._stop()

    def _stop(self) -> None:
        """Tells all workers to end, and kills those that take too long."""
        if not self._ends.is_set():
            self._ends.set()
            self._signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(self.limit_s, self._kill)

    def _kill(self) -> None:
        late = [worker.number for worker in self.workers if worker.process is not None]
        if late:
            log.error("workers do not end, and are killed", extra={"workers": late, "after_s": self.limit_s})
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self.workers:
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    async def _tell(self) -> None:
        while self.told is not None:
            await asyncio.sleep(TELL_S)
            self.told(self.summary)


def _how(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
