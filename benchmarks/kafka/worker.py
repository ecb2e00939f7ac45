"""A worker of Undertow as its users start it, `undertow run pipeline.toml`, and what its log says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from broker import cpu_s

STOP_S = 30.0

PIPELINE = """\
name = "{name}"

[model]
path = "{model}"
max_streams = {max_streams}

[source]
type = "kafka"
bootstrap_servers = "{address}"
topics = ["{input}"]
group_id = "{name}"
session_timeout_s = {session_timeout_s}
codec = {{ type = "raw" }}

[sink]
type = "kafka"
bootstrap_servers = "{address}"
topic = "{output}"
codec = {{ type = "raw" }}

[delivery]
guarantee = "{guarantee}"
commit_interval_s = {commit_s}
checkpoint_interval_s = {checkpoint_s}

[log]
format = "json"
"""


@dataclass(frozen=True)
class Settings:
    """Of a pipeline file."""

    name: str
    model: Path
    address: str
    input: str
    output: str
    guarantee: str = "exactly-once"
    commit_s: float = 0.1
    checkpoint_s: float = 30.0
    session_timeout_s: float = 10.0
    max_streams: int = 200_000
    standbys: int = 0

    def text(self) -> str:
        text = PIPELINE.format_map({name: getattr(self, name) for name in self.__dataclass_fields__})
        return f"{text}\n[store]\nstandbys = {self.standbys}\n" if self.standbys else text


@dataclass(frozen=True)
class Line:
    """A line of the log. time: seconds since 1970."""

    time: float
    message: str
    fields: dict[str, Any]


class Worker:
    """A process that is this benchmark's own, with its log in a file."""

    def __init__(self, command: list[str], log: Path):
        self.command, self.log = command, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def check(self) -> None:
        """Raises SystemExit where the process has ended."""
        if self.process is not None and self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(self.command)}\nended with {self.process.returncode}:\n{tail}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> float:
        """kill -9; when, in seconds since 1970."""
        os.kill(self.pid, signal.SIGKILL)
        at = time.time()
        self.process.wait()
        return at

    def cpu_s(self) -> float:
        """Processor seconds that the process and its threads have taken."""
        return cpu_s(self.pid)

    def lines(self) -> Iterator[Line]:
        """What the log says so far, of lines that are JSON."""
        for text in self.log.read_text(errors="replace").splitlines():
            try:
                found = json.loads(text)
            except ValueError:
                continue
            if isinstance(found, dict) and {"time", "message"} <= set(found):
                rest = {k: v for k, v in found.items() if k not in ("time", "message")}
                yield Line(seconds(found["time"]), found["message"], rest)

    def said(self, message: str, after: float = 0.0) -> list[Line]:
        return [line for line in self.lines() if line.message == message and line.time >= after]


def seconds(told: float | str) -> float:
    """Since 1970: the log's time is that number or ISO 8601."""
    return float(told) if isinstance(told, int | float) else datetime.fromisoformat(told).timestamp()


def undertow_worker(settings: Settings, folder: Path, label: str = "a") -> Worker:
    """Not started yet. label: of one of several workers of the same pipeline."""
    own = folder / f"{settings.name}-{label}"
    own.mkdir(parents=True, exist_ok=True)
    (own / "pipeline.toml").write_text(settings.text())
    command = [str(Path(sys.executable).with_name("undertow")), "run", str(own / "pipeline.toml")]
    return Worker(command, own / "log")
