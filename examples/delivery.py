"""Are the answers the same however they are delivered? `python examples/delivery.py DIR ..`, each a folder that a run.py left.

Every pipeline of a folder runs from its files without a break, again with kill -9 again and again, and from Kafka, in and out,
exactly-once, with kill -9 too. Each stream's answers have to be the same each time, none missing and none twice: bit by bit where
the compiled backend runs the model. ONNX Runtime sums in another order in a batch of another size, so of what it runs, of models that
the compiled backend does not take, numbers may be ROUNDED apart; the page says so.
Kafka is KAFKA_BOOTSTRAP_SERVERS, or a broker that is started from KAFKA_HOME; where neither is set, files alone are looked at.
"""

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from undertow.connectors.config import read_pipeline
from undertow.connectors.differences import matching
from undertow.connectors.files_source import FilesSource
from undertow.connectors.opening import pipeline_model, steady_backend
from undertow.engine.building import outside

ROOT = Path(__file__).resolve().parents[1]
UNDERTOW = Path(sys.executable).with_name("undertow")
PARTITIONS, LIVES, LONGEST_S = 3, 3, 900
ROUNDED = 1e-5
PLACED = ("stream", "step", "time", "source")  # what says of which record an answer is, not what it is

Answers = dict[str, list[dict[str, Any]]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    options.add_argument("--out", type=Path, help="a JSON file for what was found")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place, broker(Path(place)) as servers:
        found = {
            f"{folder.name}/{file.name}": delivered(file, Path(place), servers)
            for folder in given.folders
            for file in sorted(folder.glob("*.toml"))
        }
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    for name, each in found.items():
        print(f"{name:<32} " + ", ".join(f"{what} {value}" for what, value in each.items()))


@contextmanager
def broker(place: Path) -> Iterator[str | None]:
    """Bootstrap servers, where there are any."""
    named, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if named or not home:
        yield named
        return
    sys.path.append(str(ROOT))
    from tests.kafka.broker import Cluster

    cluster = Cluster(Path(home), place / "kafka")
    try:
        yield cluster.bootstrap
    finally:
        cluster.close()


def delivered(file: Path, place: Path, servers: str | None) -> dict[str, Any]:
    """One pipeline, every way. Raises SystemExit where answers differ."""
    placed = read_pipeline(file)
    backend = steady_backend(placed, pipeline_model(placed))
    apart = 0.0 if backend == "numba" else ROUNDED
    whole = from_files(file, place / "whole", backend, kill=False)
    killed = from_files(file, place / "killed", backend, kill=True)
    same(f"{file}: after kill -9", killed[0], whole[0], apart)
    found = {"streams": len(whole[0]), "answers": sum(map(len, whole[0].values())), "killed": killed[1], "apart": apart}
    if servers is not None:
        answers, kills = from_kafka(file, place / "kafka-run", servers)
        same(f"{file}: from Kafka", answers, whole[0], apart)
        found["killed_on_kafka"] = kills
    return found


def same(what: str, got: Answers, expected: Answers, apart: float) -> None:
    """Raises SystemExit, naming the first difference; apart: how far numbers may be from each other, 0 for not at all."""
    if set(got) != set(expected):
        raise SystemExit(f"{what}: streams {sorted(set(got) ^ set(expected))[:5]} are in one of the two only")
    for key, answers in expected.items():
        if not alike(got[key], answers, apart):
            pairs = enumerate(zip(got[key], answers, strict=False))
            first = next((i for i, (a, b) in pairs if not alike(a, b, apart)), None)
            shown = (
                f"{len(got[key])} answers, expected {len(answers)}"
                if first is None
                else f"answer {first} is {got[key][first]}, expected {answers[first]}"
            )
            raise SystemExit(f"{what}: stream {key!r}: {shown}")


def alike(got: Any, expected: Any, apart: float) -> bool:
    """The same, but for numbers that are no further apart than `apart`, or that part of them where they are above 1."""
    return matching(got, expected, partial(math.isclose, rel_tol=apart, abs_tol=apart))


# ------------------------------------------------------------------------------------------------- from files


def from_files(file: Path, place: Path, backend: str, kill: bool) -> tuple[Answers, int]:
    """The answers by stream; and how often the run was killed."""

    def change(document: dict[str, Any]) -> None:
        document["model"]["backend"] = backend  # one for every size of batch, as from Kafka
        document.setdefault("delivery", {}).update(commit_interval_s=0.02)

    laid_out(file, place, change)
    sink = place / tomllib.loads((place / file.name).read_text())["sink"]["path"]
    kills = killed(place / file.name, lambda: sink.stat().st_size if sink.exists() else 0) if kill else 0
    finished(place / file.name)
    found: Answers = defaultdict(list)
    for line in sink.read_text().splitlines():
        answer = json.loads(line)
        found[str(answer["stream"])].append({name: value for name, value in answer.items() if name not in PLACED})
    return dict(found), kills


def laid_out(file: Path, place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A copy of the pipeline's folder without what runs left there, its file changed. Nothing is played in real time."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(file.parent, place, ignore=shutil.ignore_patterns("*.state"))
    document = tomllib.loads(file.read_text())
    document["source"].pop("rate", None)
    if document["sink"]["type"] == "files":
        (place / document["sink"]["path"]).unlink(missing_ok=True)
    change(document)
    (place / file.name).write_text(tomli_w.dumps(document))


def killed(file: Path, done: Callable[[], int]) -> int:
    """Starts the run and kills it when it has done something, again and again, but lets it end where it is faster; how often."""
    kills = 0
    for life in range(LIVES):
        before, process = done(), started(file)
        while process.poll() is None and done() <= before:
            time.sleep(0.002)
        time.sleep(0.03 * life)
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    return kills


def started(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([UNDERTOW, "run", file.name], cwd=file.parent, stderr=subprocess.PIPE, text=True)


def finished(file: Path) -> None:
    process = started(file)
    _, said = process.communicate(timeout=LONGEST_S)
    if process.returncode:
        raise SystemExit(f"{file}: undertow run ended with {process.returncode}\n{said}")


# ------------------------------------------------------------------------------------------------- from Kafka


def from_kafka(file: Path, place: Path, servers: str) -> tuple[Answers, int]:
    """The same records through topics; answers by stream, and how often the run was killed."""
    name = f"{file.parent.name}-{file.stem}-{uuid.uuid4().hex[:6]}"
    topics = f"{name}-in", f"{name}-out"
    kept: dict[str, Any] = {}

    def change(document: dict[str, Any]) -> None:
        kept.update(document["source"])
        codec = {"type": "json", "value_field": "value", "end_field": "end"}
        document["name"] = name
        document["source"] = {
            "type": "kafka", "bootstrap_servers": servers, "topics": [topics[0]], "codec": codec, "stop_at_end": True,
            "session_timeout_s": 1.0, "heartbeat_interval_s": 0.2, "max_poll_records": 256,
        }  # fmt: skip
        if "sample_rate_hz" in kept:
            document["source"]["sample_rate_hz"] = kept["sample_rate_hz"]
        document["sink"] = {"type": "kafka", "bootstrap_servers": servers, "topic": topics[1]}
        document["delivery"] = {"guarantee": "exactly-once", "commit_interval_s": 0.05}

    laid_out(file, place, change)
    asyncio.run(feed(file, servers, topics))
    kills = killed(place / file.name, lambda: asyncio.run(size(servers, topics[1])))
    finished(place / file.name)
    return asyncio.run(read(servers, topics[1])), kills


async def feed(file: Path, servers: str, topics: tuple[str, str]) -> None:
    """Makes the topics, and sends what the pipeline's files hold: each record's frames, and each stream's end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics])
    await admin.close()
    placed = read_pipeline(file)
    spec = outside(pipeline_model(placed), placed.pipeline.decode)
    source, open_keys = FilesSource(placed.pipeline.source, placed.folder, spec), dict[str, set[Any]]()
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20, max_request_size=2**24) as producer:
        await source.open({})
        while not source.exhausted:
            for record in await source.poll(1000, 1.0):
                live = open_keys.setdefault(record.partition, set())
                if record.end_partition:
                    for key in live:
                        await producer.send(topics[0], b'{"end": true}', str(key).encode())
                    live.clear()
                    continue
                payload: dict[str, Any] = {"end": True} if record.end else {}
                if record.value is not None:
                    payload["value"] = plain(record.value)
                await producer.send(topics[0], json.dumps(payload).encode(), str(record.key).encode())
                (live.discard if record.end else live.add)(record.key)
        await source.close()


def plain(value: Any) -> Any:
    """Frames as JSON has them: by input where there are several."""
    if isinstance(value, dict):
        named = {name: array.tolist() for name, array in value.items()}
        return next(iter(named.values())) if len(named) == 1 else named
    return value.tolist()


async def size(servers: str, topic: str) -> int:
    """How many records the topic has."""
    async with AIOKafkaConsumer(bootstrap_servers=servers) as consumer:
        ends = await consumer.end_offsets([TopicPartition(topic, p) for p in range(PARTITIONS)])
    return sum(ends.values())


async def read(servers: str, topic: str) -> Answers:
    """What was committed, by stream: a record holds the answers that one record of the input made ready."""
    found: Answers = defaultdict(list)
    how = {"bootstrap_servers": servers, "isolation_level": "read_committed", "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer(**how) as consumer:
        places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                for record in batch:
                    found[record.key.decode()] += answers_of(json.loads(record.value)) if record.value else []
    return {key: answers for key, answers in found.items() if answers}


def answers_of(chunk: Any) -> list[dict[str, Any]]:
    """A chunk of answers: columns by name, a row for each."""
    return [dict(zip(chunk, row, strict=True)) for row in zip(*chunk.values(), strict=True)]


if __name__ == "__main__":
    main()
