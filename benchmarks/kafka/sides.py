"""Who takes part in the throughput comparison, and how each is started."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lstm_model import ANSWER_BYTES
from worker import Settings, Worker, undertow_worker

HERE = Path(__file__).resolve().parent
COMMIT_S, CHECKPOINT_S = 0.1, 30.0


@dataclass(frozen=True)
class Job:
    """One turn of one side. others: the Python that has the other stream processors."""

    name: str
    address: str
    input: str
    output: str
    partitions: int
    model: Path
    folder: Path
    others: Path


@dataclass(frozen=True)
class Side:
    """what: as the table says it. answers: whether it answers what the model answers."""

    what: str
    worker: Callable[[Job], Worker]
    answers: bool = True


def script(python: Path | str, job: Job, file: str, *arguments: str) -> Worker:
    folder = job.folder / job.name
    folder.mkdir(parents=True)
    where = ["--address", job.address, "--input", job.input, "--output", job.output, "--group", job.name]
    return Worker([str(python), str(HERE / file), *arguments, *where], folder / "log")


def bare(how: str, *arguments: str) -> Callable[[Job], Worker]:
    fixed = ("--answer-bytes", str(ANSWER_BYTES), "--commit-s", str(COMMIT_S))
    return lambda job: script(sys.executable, job, "side_bare.py", how, *fixed, *arguments)


def undertow(guarantee: str) -> Callable[[Job], Worker]:
    def make(job: Job) -> Worker:
        settings = Settings(job.name, job.model, job.address, job.input, job.output, guarantee, COMMIT_S, CHECKPOINT_S)
        return undertow_worker(settings, job.folder)

    return make


def quix(guarantee: str, *arguments: str) -> Callable[[Job], Worker]:
    def make(job: Job) -> Worker:
        where = ("--model", str(job.model), "--folder", str(job.folder / f"{job.name}-state"))
        return script(job.others, job, "side_quix.py", "--guarantee", guarantee, *where, *arguments)

    return make


def faust(guarantee: str) -> Callable[[Job], Worker]:
    def make(job: Job) -> Worker:
        where = ("--model", str(job.model), "--folder", str(job.folder / f"{job.name}-state"))
        more = ("--partitions", str(job.partitions), "--commit-s", str(COMMIT_S))
        return script(job.others, job, "side_faust.py", "--guarantee", guarantee, *where, *more)

    return make


SIDES = {
    "bare": Side("aiokafka, a send a record, transactions; no inference", bare("sends", "--transactions"), False),
    "bare-batches": Side(
        "aiokafka, prepared batches, transactions; no inference", bare("batches", "--transactions"), False
    ),
    "bare-plain": Side("aiokafka, a send a record, no transactions; no inference", bare("sends"), False),
    "bare-plain-batches": Side("aiokafka, prepared batches, no transactions; no inference", bare("batches"), False),
    "undertow": Side("undertow run, exactly-once", undertow("exactly-once")),
    "undertow-alo": Side("undertow run, at-least-once", undertow("at-least-once")),
    "quix": Side("Quix Streams, exactly-once", quix("exactly-once", "--commit-s", str(COMMIT_S))),
    "quix-default": Side("Quix Streams, exactly-once, its own commit interval (5 s)", quix("exactly-once")),
    "faust": Side("faust-streaming, exactly_once", faust("exactly_once")),
    "faust-alo": Side("faust-streaming, at_least_once", faust("at_least_once")),
}
