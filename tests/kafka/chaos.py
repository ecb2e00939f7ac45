"""A pipeline on a real broker with an input that goes on, workers that come and go, and an output that the oracle judges."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Container, Iterable
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer

from undertow.engine.artifact import write_artifact

from .feeder import Fed, feed
from .oracle import oracle
from .topics import committed, create_topic, partitions_of, read_topic, reader
from .verifier import Lines, Name, expected, faults, given, verify
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
{source}
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
        source: str = "",
        tables: str = "",
        **config: str,
    ) -> None:
        """Topics, model and pipeline file. source, tables: TOML to add. config: of the input topic."""
        self.folder.mkdir(parents=True)
        artifact = oracle(self.wide)
        write_artifact(self.folder / "model.onnx", artifact.model, artifact.spec)
        await create_topic(self.bootstrap, self.input, partitions, **config)
        await create_topic(self.bootstrap, self.output, partitions)
        text = PIPELINE.format(
            name=self.name,
            bootstrap=self.bootstrap,
            guarantee=self.guarantee,
            session_timeout_s=session_timeout_s,
            commit_interval_s=commit_interval_s,
            checkpoint_interval_s=checkpoint_interval_s,
            source=source,
            tables=tables,
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
    async def feeding(self, records: Iterable[Fed], rate: float = 1000) -> AsyncIterator[None]:
        """Feeds meanwhile, and no longer than the block lasts."""
        over = False

        async def go_on() -> None:
            await self.feed(itertools.takewhile(lambda _: not over, records), rate)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            over = True
            await task

    async def committed(self, worker: Worker, records: int, seconds: float = 20) -> None:
        """Until the group's offsets come to `records` in all, while the worker runs."""
        deadline = time.monotonic() + seconds
        while sum(o for o, _ in (await committed(self.bootstrap, self.name, self.input)).values()) < records:
            if worker.status is not None or time.monotonic() > deadline:
                raise TimeoutError(
                    f"{records} records are not committed, worker's status {worker.status}: {worker.tail()}"
                )
            await asyncio.sleep(0.1)

    async def ran(self, gently: bool = True) -> None:
        """A worker answers everything that there is, and ends in order or by kill -9."""
        worker = self.start()
        await self.answered()
        if gently:
            assert await asyncio.to_thread(worker.end) == 0, worker.tail()
        else:
            worker.kill()

    async def went_on(self, frames: int, seconds: float = 30) -> None:
        """A worker goes on until so many frames are answered in all, and ends in order."""
        worker, deadline = self.start(), time.monotonic() + seconds
        while sum(map(len, (await self.outputs()).values())) < frames and time.monotonic() < deadline:
            assert worker.status is None, worker.tail()
            await asyncio.sleep(0.1)
        assert await asyncio.to_thread(worker.end) == 0, worker.tail()

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
                left -= await self._more(consumer, got)
                if left and time.monotonic() > deadline:
                    raise TimeoutError(self._missing(len(left), want, got, seconds))
        finally:
            await consumer.stop()

    async def _more(self, consumer: AIOKafkaConsumer, got: Lines) -> set[tuple[Name, tuple[str, int]]]:
        """Adds what came to `got`; which lines that were."""
        polled = await consumer.getmany(timeout_ms=100)
        new = given(r for records in polled.values() for r in records)
        for name, lines in new.items():
            got.setdefault(name, []).extend(lines)
        return {(name, line.identity) for name, lines in new.items() for line in lines}

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

    async def finish(self, seconds: float = 30, excused: Container[Worker] = ()) -> None:
        """Waits for all answers, ends the workers in order, which exit with 0 unless they are excused, and verifies."""
        await self.answered(seconds)
        for worker in [w for w in self.running if w.status is None]:
            code = await asyncio.to_thread(worker.end)
            begun = bool(worker.tail())  # one that SIGTERM met before it listens to signals ends by it
            assert code == 0 or worker in excused or (code == -signal.SIGTERM and not begun), (code, worker.tail())
        await self.verify()

    def close(self) -> None:
        for worker in self.running:
            worker.kill()
