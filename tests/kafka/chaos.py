"""A pipeline on a real broker with an input that goes on, workers that come and go, and an output that the oracle judges."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer

from undertow.engine.artifact import write_artifact

from .feeder import Fed, feed
from .oracle import oracle
from .topics import create_topic, partitions_of, read_topic, reader
from .verifier import Lines, expected, faults, given, verify
from .worker import Fate, Worker, Workers

PIPELINE = """
name = "{name}"
[model]
path = "model.onnx"
backend = "numba"
max_streams = 4096
[source]
type = "kafka"
bootstrap_servers = "{bootstrap}"
topics = ["{name}-in"]
group_id = "{name}"
codec = {{ type = "raw" }}
session_timeout_s = {session_timeout_s}
heartbeat_interval_s = 0.2
rebalance_timeout_s = 5
[sink]
type = "kafka"
bootstrap_servers = "{bootstrap}"
topic = "{name}-out"
codec = {{ type = "raw" }}
[delivery]
guarantee = "{guarantee}"
commit_interval_s = {commit_interval_s}
checkpoint_interval_s = {checkpoint_interval_s}
{tables}
"""


class Scene:
    """One pipeline, its two topics and its workers. `verify` at the end says whether all of it was right."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        workers: Workers,
        guarantee: str = "exactly-once",
        wide: bool = False,
        runner: str = "undertow",
        flaw: str = "",
    ):
        self.bootstrap, self.workers, self.guarantee, self.wide = bootstrap, workers, guarantee, wide
        self.runner, self.flaw = runner, flaw
        self.name = f"oracle-{uuid4().hex[:8]}"
        self.folder = folder / self.name
        self.file = self.folder / "pipeline.toml"
        self.running: list[Worker] = []
        self.idle_ms: int | None = None

    async def set_up(
        self,
        partitions: int = 2,
        session_timeout_s: float = 1.5,
        commit_interval_s: float = 0.05,
        checkpoint_interval_s: float = 0.5,
        tables: str = "",
        **config: str,
    ) -> None:
        """Topics, model and pipeline file. config: of the input topic."""
        self.folder.mkdir(parents=True)
        artifact = oracle(self.wide)
        write_artifact(self.folder / "model.onnx", artifact.model, artifact.spec)
        await create_topic(self.bootstrap, self.input, partitions, **config)
        await create_topic(self.bootstrap, self.output, partitions)
        values = {k: v for k, v in locals().items() if k.endswith("_s")}
        text = PIPELINE.format(
            name=self.name, bootstrap=self.bootstrap, guarantee=self.guarantee, tables=tables, **values
        )
        self.file.write_text(text)

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        return f"{self.name}-out"

    @property
    def changelog(self) -> str:
        return f"{self.name}-{self.input}-changelog"

    def start(self, fate: Fate | None = None) -> Worker:
        self.running.append(self.workers.start(self.file, fate, self.runner, self.flaw))
        return self.running[-1]

    async def feed(self, records: Iterable[Fed], rate: float | None = None) -> int:
        return await feed(self.bootstrap, self.input, records, rate)

    @contextlib.asynccontextmanager
    async def feeding(self, records: Iterable[Fed], rate: float) -> AsyncIterator[None]:
        """Feeds meanwhile, and to the end."""
        task = asyncio.create_task(self.feed(records, rate))
        try:
            yield
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def expected(self) -> Lines:
        return expected(await read_topic(self.bootstrap, self.input), self.wide, self.idle_ms)

    async def outputs(self, committed: bool = True) -> Lines:
        return given(await read_topic(self.bootstrap, self.output, committed=committed))

    async def answered(self, seconds: float = 30) -> None:
        """Until every line that the input has to give is in the output. Raises TimeoutError that says what is missing."""
        want = await self.expected()
        left = {(name, line.identity) for name, lines in want.items() for line in lines}
        got: Lines = {}
        deadline = time.monotonic() + seconds
        consumer = reader(self.bootstrap)
        await consumer.start()
        try:
            consumer.assign(await partitions_of(self.bootstrap, self.output))
            while left:
                await self._more(consumer, got)
                left -= {(name, line.identity) for name, lines in got.items() for line in lines}
                if left and time.monotonic() > deadline:
                    raise TimeoutError(self._missing(len(left), want, got, seconds))
        finally:
            await consumer.stop()

    async def _more(self, consumer: AIOKafkaConsumer, got: Lines) -> None:
        polled = await consumer.getmany(timeout_ms=100)
        for name, lines in given(r for records in polled.values() for r in records).items():
            got.setdefault(name, []).extend(lines)

    def _missing(self, left: int, want: Lines, got: Lines, seconds: float) -> str:
        kinds = {kind: texts[:2] for kind, texts in faults(want, got, self.repeats).items()}
        logs = "\n".join(f"worker {w.pid}, status {w.status}:\n{w.tail()}" for w in self.running[-3:])
        return f"{left} lines are not there after {seconds} s: {kinds}\n{logs}"

    @property
    def repeats(self) -> bool:
        return self.guarantee == "at-least-once"

    async def verify(self) -> None:
        """The whole output against the whole input, once nobody writes any more."""
        verify(await self.expected(), await self.outputs(), self.repeats)

    async def finish(self, seconds: float = 30) -> None:
        """Waits for all answers, ends the workers in order, which exit with 0, and verifies."""
        await self.answered(seconds)
        for worker in self.running:
            if worker.status is None:
                assert worker.end() == 0, worker.tail()
        await self.verify()

    def close(self) -> None:
        for worker in self.running:
            worker.kill()
