"""`undertow replay` on a broker: what a worker answered is stepped again, bit by bit, and nobody notices."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from undertow.cli_replay import replay_command
from undertow.engine.artifact import write_artifact

from .chaos import Scene
from .feeder import fed, keys
from .test_state import frames
from .test_upgrade import other_weights
from .topics import committed, members, read_topic

KEYS = keys(8)
ALL = list(fed(KEYS, 400, chunks=(1, 3), end_chance=0.02))
ONE = KEYS[1]
IDLE = "[policy]\nidle_timeout_s = 1000"  # so that the others' times are read as well


async def replayed(stage: Scene, *options: Any) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Report, outputs, exit code."""

    def call() -> tuple[dict[str, Any], list[dict[str, Any]], int]:
        out = stage.folder / "again.jsonl"
        arguments = [str(stage.file), "--stream", ONE.decode(), "--out", str(out), "--json", *map(str, options)]
        done = CliRunner().invoke(replay_command, arguments, catch_exceptions=False)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        return json.loads(done.stdout), lines, done.exit_code

    return await asyncio.to_thread(call)


def test_a_stream_is_stepped_again(scene: Callable[..., Scene]) -> None:
    """From the start the outputs are the oracle's and the output topic's, its ends included; from the changelog those that are still to come; a model
    beside it has its own; what was written otherwise is found. The group and the topics stay as they are."""

    async def body() -> None:
        stage, some, rest = scene(), ALL[:300], ALL[300:]
        await stage.set_up(partitions=2, tables=IDLE)
        await stage.feed(some)
        await stage.went_on(sum(r.count for r in some))
        want = [
            line
            for (_, key), lines in (await stage.expected()).items()
            if key == ONE
            for line in lines
            if line.step >= 0
        ]

        report, lines, code = await replayed(stage, "--compare")
        assert [(line["source"], line["step"], line["y"]) for line in lines] == [
            (w.source, w.step, [w.value]) for w in want
        ]
        written = [r for r in await read_topic(stage.bootstrap, stage.output) if r.key == ONE]
        assert (code, report["compared"]["equal"], report["compared"]["differ"]) == (0, len(written), 0)
        assert report["outputs"] == frames(some, ONE)

        await stage.feed(rest)
        before = await committed(stage.bootstrap, stage.name, stage.input)
        _, lines, _ = await replayed(stage, "--from", "changelog")
        everything = [
            line
            for (_, key), lines in (await stage.expected()).items()
            if key == ONE
            for line in lines
            if line.step >= 0
        ]
        assert [(line["source"], line["y"]) for line in lines] == [
            (w.source, [w.value]) for w in everything[len(want) :]
        ]
        assert lines
        assert await committed(stage.bootstrap, stage.name, stage.input) == before
        assert await members(stage.bootstrap, stage.name) == []

        other = other_weights(33)
        write_artifact(stage.folder / "other.onnx", other.model, other.spec)
        report, lines, _ = await replayed(stage, "--model", stage.folder / "other.onnx", "--to", 40)
        y = report["shadow"]["outputs"]["y"]
        assert y["compared"] == len(lines) == report["other_outputs"]
        gaps = [abs(line["y"][0] - line["other"]["y"][0]) for line in lines]
        assert (y["worst"], y["over"]) == (max(gaps), sum(gap > 0 for gap in gaps))
        assert y["over"]

        await forge(stage, written[3])
        report, _, code = await replayed(stage, "--compare")
        assert (code, report["compared"]["differ"], report["compared"]["repeated"]) == (1, 1, 1)

    asyncio.run(body())


async def forge(stage: Scene, record: Any) -> None:
    """Another value for an output that there is."""
    producer = AIOKafkaProducer(bootstrap_servers=stage.bootstrap)
    await producer.start()
    try:
        place = {"partition": record.partition, "key": record.key, "headers": list(record.headers)}
        await producer.send_and_wait(record.topic, bytes(len(record.value)), **place)
    finally:
        await producer.stop()
