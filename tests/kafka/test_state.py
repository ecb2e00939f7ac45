"""`undertow state` on a broker: what is stored is shown, taken out, put in and deleted, and a worker then goes on from that."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from undertow.cli_state import state_command
from undertow.connectors.config import read_pipeline
from undertow.connectors.kafka.cluster import Cluster
from undertow.connectors.kafka.stored_rows import ChangelogStates
from undertow.connectors.opening import open_states
from undertow.engine import Engine
from undertow.engine.errors import CheckpointError, ConnectorError

from .chaos import Scene
from .feeder import Fed, fed, keys
from .oracle import Recurrence, frame, oracle
from .topics import read_topic
from .worker import Fate

KEYS = keys(8)
RECORDS = list(fed(KEYS, 300, chunks=(1, 3)))
MORE = list(fed(KEYS, 400, chunks=(1, 3)))[300:]
ONE, OTHER, FORK = KEYS[1], KEYS[2], b"fork"


def command(*arguments: Any) -> str:
    """What the command prints. Raises what it raises."""
    done = CliRunner().invoke(state_command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


async def told(*arguments: Any) -> Any:
    return json.loads(await asyncio.to_thread(command, *arguments, "--json"))


def frames(records: Sequence[Fed], key: bytes) -> int:
    return sum(r.count for r in records if r.key == key)


def after(key: bytes, count: int) -> Recurrence:
    stream = Recurrence()
    for i in range(count):
        stream.step(frame(key, i))
    return stream


async def outputs(stage: Scene) -> dict[bytes, list[tuple[int, int]]]:
    """By key step and value, in order; each frame of the input was answered once."""
    got: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for (_, key), lines in (await stage.outputs()).items():
        got[key] += [(line.step, line.value) for line in lines]
    given = sum(len(r.value or b"") // 8 for r in await read_topic(stage.bootstrap, stage.input))
    assert sum(map(len, got.values())) == given
    return got


def test_a_stream_is_taken_out_put_in_and_deleted(scene: Callable[..., Scene], tmp_path: Path) -> None:
    """What list, show and export say is the oracle's state; the copy under another name goes on from it, what was deleted begins anew,
    the others do not notice, and while a worker runs nothing is changed."""

    async def body() -> None:
        stage, blob = scene(), tmp_path / "one.snapshot"
        await stage.set_up(partitions=2, checkpoint_interval_s=0.2)
        await stage.feed(RECORDS)
        worker = stage.start()
        await stage.answered()
        while (await told("list", stage.file))["total"] < len(KEYS):  # rows are written after the answers
            await asyncio.sleep(0.05)
        with pytest.raises(ConnectorError, match="has 1 members"):
            await asyncio.to_thread(command, "delete", stage.file, "--stream", ONE.decode())
        assert await asyncio.to_thread(worker.end) == 0, worker.tail()

        listed = await told("list", stage.file)
        assert {p["replay_from"] == p["committed"] for p in listed["partitions"]} == {True}
        assert listed["total"] == len(KEYS)
        assert {"base64": "/wD+"} in [s["stream"] for s in listed["streams"]]
        assert {s["stream"]: s["frames"] for s in listed["streams"] if isinstance(s["stream"], str)} == {
            k.decode(): frames(RECORDS, k) for k in KEYS[1:]
        }
        few = await told("list", stage.file, "--prefix", "pump-", "--limit", 2)
        assert (few["total"], len(few["streams"])) == (len(KEYS) - 1, 2)
        shown = await told("show", stage.file, "--stream", ONE.decode(), "--full")
        assert shown["states"]["h"]["values"] == [after(ONE, frames(RECORDS, ONE)).h]

        await told("export", stage.file, blob, "--stream", ONE.decode())
        engine, stream = Engine(oracle(), backend="numba", max_streams=2), after(ONE, frames(RECORDS, ONE))
        engine.restore("elsewhere", blob.read_bytes())
        (y,) = np.asarray(engine.push("elsewhere", np.array([[7]], np.int64))).ravel()
        assert y == stream.step(7)

        await told("import", stage.file, blob, "--stream", FORK.decode())
        with pytest.raises(CheckpointError, match="--replace"):
            await asyncio.to_thread(command, "import", stage.file, blob, "--stream", FORK.decode())
        await told("import", stage.file, blob, "--stream", FORK.decode(), "--replace")
        await told("delete", stage.file, "--stream", OTHER.decode())
        assert {s["stream"] for s in (await told("list", stage.file))["streams"] if isinstance(s["stream"], str)} == {
            k.decode() for k in (*KEYS[1:], FORK) if k != OTHER
        }
        numbered = [Fed(r.key, r.first, r.count, r.seq - frames(RECORDS, OTHER) * (r.key == OTHER)) for r in MORE]
        await stage.feed([*numbered, Fed(FORK, 0, 3, 0), Fed(FORK, 3, 2, 3)])
        await stage.went_on(sum(r.count for r in (*RECORDS, *MORE)) + 5)
        check(await outputs(stage))

    def check(got: dict[bytes, list[tuple[int, int]]]) -> None:
        for key in KEYS:
            first, total = frames(RECORDS, key), frames([*RECORDS, *MORE], key)
            h = after(key, 0)
            want = [(i, h.step(frame(key, i))) for i in range(first)]
            h, begin = (Recurrence(), first) if key == OTHER else (h, 0)
            want += [(i - begin, h.step(frame(key, i))) for i in range(first, total)]
            assert got[key] == want, key
        h, first = after(ONE, frames(RECORDS, ONE)), frames(RECORDS, ONE)
        assert got[FORK] == [(first + i, h.step(frame(FORK, i))) for i in range(5)]

    asyncio.run(body())


def test_a_pipeline_begins_with_a_state(scene: Callable[..., Scene]) -> None:
    """A snapshot put into a pipeline that has never run is what its stream begins with; nothing else is stored there."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=2)
        assert (await told("list", stage.file))["streams"] == []
        engine, blob = Engine(oracle(), backend="numba", max_streams=2), stage.folder / "blob"
        engine.push(b"x", np.array([[frame(b"x", i)] for i in range(9)], np.int64))
        blob.write_bytes(engine.snapshot(b"x"))
        await told("import", stage.file, blob, "--stream", "x")
        await stage.feed([Fed(b"x", 9, 4, 9), Fed(b"y", 0, 2, 0)])
        await stage.went_on(6)
        got, x, y = await outputs(stage), after(b"x", 9), Recurrence()
        assert got[b"x"] == [(i, x.step(frame(b"x", i))) for i in range(9, 13)]
        assert got[b"y"] == [(i, y.step(frame(b"y", i))) for i in range(2)]

    asyncio.run(body())


def test_after_a_kill(scene: Callable[..., Scene]) -> None:
    """What a killed worker has left open is not seen and not waited for; a change shuts it out, and the records that it had taken
    are stepped again around the new row."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=1, session_timeout_s=1)
        await stage.feed(RECORDS)
        worker = stage.start(Fate("committing"))
        assert await asyncio.to_thread(worker.wait) == -9
        begun = time.monotonic()
        assert (await told("list", stage.file))["streams"] == []
        assert time.monotonic() - begun < 10
        engine, blob = Engine(oracle(), backend="numba", max_streams=2), stage.folder / "blob"
        engine.push(b"x", np.array([[frame(b"x", i)] for i in range(9)], np.int64))
        blob.write_bytes(engine.snapshot(b"x"))
        for _ in range(50):
            try:
                await told("import", stage.file, blob, "--stream", "x")
                break
            except ConnectorError as error:  # until the group has given the dead one up
                if "has 1 members" not in str(error):
                    raise
                await asyncio.sleep(0.1)
        await stage.feed([Fed(b"x", 9, 4, 9)])
        await stage.went_on(sum(r.count for r in RECORDS) + 4)
        got, x = await outputs(stage), after(b"x", 9)
        assert got[b"x"] == [(i, x.step(frame(b"x", i))) for i in range(9, 13)]
        for key in KEYS:
            assert [y for _, y in got[key]][-1] == after(key, frames(RECORDS, key)).h

    asyncio.run(body())


def test_a_worker_shuts_a_change_out(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts in the middle of a change makes it fail, and it has written nothing; a change that begins while a worker
    runs is refused its claim, even by one who did not look for members."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=1)
        await stage.feed(RECORDS)
        await stage.went_on(sum(r.count for r in RECORDS))
        whole = ChangelogStates._whole

        async def meanwhile(self: ChangelogStates, *arguments: Any) -> Any:
            log = await whole(self, *arguments)
            worker = stage.start()
            await asyncio.to_thread(worker.until, lambda: "restored" in worker.tail(), 20, "restore")
            return log

        def delete() -> None:
            states = open_states(read_pipeline(stage.file))
            states.delete(states.read(lambda _, key: key == ONE).rows[0])

        monkeypatch.setattr(ChangelogStates, "_whole", meanwhile)
        with pytest.raises(ConnectorError, match="meanwhile"):
            await asyncio.to_thread(delete)

        async def unseen(self: Cluster) -> None:
            pass

        monkeypatch.setattr(Cluster, "no_members", unseen)
        with pytest.raises(ConnectorError, match="was refused"):
            await asyncio.to_thread(delete)
        await stage.feed(MORE)
        await stage.finish()

    asyncio.run(body())
