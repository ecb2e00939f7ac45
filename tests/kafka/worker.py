"""Workers that a test kills: one process that has everything loaded forks one for each that is asked for.

As a program (`python -m tests.kafka.worker`) it reads a JSON line for each thing to do and answers each with one. A worker
runs its pipeline as `undertow run` does, and signals itself at the n-th occurrence of a phase. All die with the program.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
PHASES = ("claimed", "restoring", "polled", "stepped", "sent", "committing", "committed")
END_S = 30


@dataclass(frozen=True, slots=True)
class Fate:
    """What a worker does to itself: `signal` (KILL, STOP) when it comes to `phase` for the nth time."""

    phase: str
    nth: int = 1
    signal: str = "KILL"


class Workers:
    """The test's side: starts workers, once the first is asked for, and knows how they ended."""

    @cached_property
    def _program(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"{__package__}.worker"]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, pipeline: Path, fate: Fate | None = None, runner: str = "undertow", flaw: str = "") -> "Worker":
        """runner: "undertow", or "stand-in" with a flaw."""
        log = pipeline.parent / f"worker-{time.time_ns()}.log"
        asked = {"pipeline": str(pipeline), "log": str(log), "runner": runner, "flaw": flaw}
        return Worker(self, self.ask(start=asked | {"fate": asdict(fate) if fate else None}), log)

    def ask(self, **what: Any) -> Any:
        asked, answers = self._pipes()
        asked.write(json.dumps(what) + "\n")
        asked.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the program that starts workers ended with {self._program.wait()}")
        return json.loads(line)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        return self._program.stdin, self._program.stdout

    def close(self) -> None:
        """Ends the program, if it was started, and with it every worker that still runs."""
        if "_program" in vars(self):
            asked, answers = self._pipes()
            asked.close()
            self._program.wait(END_S)
            answers.close()


class Worker:
    """One worker. Until its status is read, its process id is nobody else's."""

    def __init__(self, workers: Workers, pid: int, log: Path):
        self.workers, self.pid, self.log = workers, pid, log
        self._status: int | None = None

    @property
    def status(self) -> int | None:
        """Its exit code, -9 where SIGKILL ended it, None while it runs or stands still."""
        if self._status is None:
            self._status = self.workers.ask(status=self.pid)
        return self._status

    @property
    def stopped(self) -> bool:
        """By SIGSTOP."""
        return self.status is None and Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def signal(self, number: signal.Signals) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and waits."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> int:
        """SIGTERM, and gives how it ended; SIGKILL after END_S."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = END_S) -> int:
        """Its status. Raises TimeoutError, with its log, where it goes on for longer."""
        self.until(lambda: self.status is not None, seconds, "end")
        assert self._status is not None
        return self._status

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"worker {self.pid} did not {what} within {seconds} s; its log ends: {self.tail()}")
            time.sleep(0.01)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


def main() -> None:
    """The program: loads everything once, then does what each line says."""
    from undertow.connectors import running
    from undertow.engine import Engine

    from .broker import die_with_parent
    from .oracle import oracle

    for wide in (False, True):  # its compiled step is in this process before any worker begins
        Engine(oracle(wide), backend="numba", max_streams=16)
    children: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if (start := asked.get("start")) is not None:
            pid = os.fork()
            if not pid:
                die_with_parent()
                _work(running, **start)
            children.add(pid)
            print(pid, flush=True)
        else:
            pid, status = os.waitpid(asked["status"], os.WNOHANG)
            children.discard(pid)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _work(running: Any, pipeline: str, log: str, runner: str, flaw: str, fate: dict[str, Any] | None) -> None:
    """The life of a worker; its exit code is that of `undertow run`."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    _log_all()
    code, phases = 1, phases_of(Fate(**fate) if fate else None)
    try:
        if runner == "stand-in":
            from .stand_in import run

            run(Path(pipeline), phases, flaw)  # type: ignore[arg-type]
        else:
            running.run(pipeline, phases=phases)
        code = 0
    except BaseException as error:
        import traceback

        traceback.print_exception(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _log_all() -> None:
    """What the processor tells as it goes on, for whoever reads why a test failed."""
    import logging

    usual = vars(logging.makeLogRecord({})).keys()

    class Fields(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            fields = {k: v for k, v in vars(record).items() if k not in usual and k != "message"}
            return f"{time.time():.3f} {record.name} {record.getMessage()} {fields or ''}"

    handler = logging.StreamHandler()
    handler.setFormatter(Fields())
    logging.getLogger("undertow").addHandler(handler)
    logging.getLogger("undertow").setLevel(logging.INFO)


def phases_of(fate: Fate | None) -> Callable[[str], None]:
    """What a processor calls with each phase's name."""
    seen: Counter[str] = Counter()

    def phase(name: str) -> None:
        if name not in PHASES:
            raise ValueError(f"phase {name!r} is none of {PHASES}")
        seen[name] += 1
        if fate is not None and (name, seen[name]) == (fate.phase, fate.nth):
            os.kill(os.getpid(), signal.Signals[f"SIG{fate.signal}"])

    return phase


if __name__ == "__main__":
    main()
