"""`undertow run --check` of a pipeline on a real broker: what it says of topics, changelog, group and claims, and that it changes nothing."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition

from undertow.connectors.config import read_pipeline
from undertow.engine.errors import CheckpointError, ConnectorError
from undertow.plan import checked_plan, print_facts

from .chaos import Scene
from .feeder import fed, keys
from .topics import asked, committed, delete_records, end_offsets, partitions_of

KEYS = keys(20)


async def checked(stage: Scene) -> dict[str, Any]:
    return await asyncio.to_thread(lambda: checked_plan(read_pipeline(stage.file)))


async def everything(stage: Scene) -> tuple[Any, ...]:
    """What a run changes: topics, what they hold, and the group's offsets and claims."""
    topics = [t for t in await asked(stage.bootstrap, lambda admin: admin.list_topics()) if stage.name in t]
    ends = await end_offsets(stage.bootstrap, await partitions_of(stage.bootstrap, *topics))
    return sorted(topics), ends, await committed(stage.bootstrap, stage.name, stage.input)


def test_before_while_and_after(scene: Callable[..., Scene], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a pipeline that never ran, that runs, and that was killed: where it begins or goes on, its lag, who holds its partitions.

    Nothing is made, written or committed by looking.
    """

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=3)
        await stage.feed(fed(KEYS, 300))
        before = await everything(stage)
        new = await checked(stage)
        assert await everything(stage) == before
        assert new["group"] == {"id": stage.name, "state": "none", "members": 0}
        assert new["changelogs"] == [
            {"topic": stage.changelog, "partitions": 3, "state": "would be created", "records": 0}
        ]
        assert [p["partition"] for p in new["partitions"]] == [f"{stage.input}/{i}" for i in range(3)]
        assert [(p["committed"], p["begin"], p["claimed_by"]) for p in new["partitions"]] == [(None, 0, None)] * 3
        assert (new["lag"], new["resumes"]) == (300, False)

        worker = stage.start()
        await stage.answered()
        await stage.committed(worker, 300)
        running = await checked(stage)
        assert running["group"] == {"id": stage.name, "state": "Stable", "members": 1}
        assert {p["claimed_by"].rpartition("-")[0] for p in running["partitions"]} == {_member(worker.tail(), stage)}
        worker.kill()
        await stage.feed(fed(keys(30)[20:], 50))
        before = await everything(stage)
        gone = await checked(stage)
        assert await everything(stage) == before
        assert gone["changelogs"][0]["state"] == "exists"
        assert gone["changelogs"][0]["records"] > 0
        assert (gone["lag"], gone["resumes"]) == (sum(p["end"] - p["committed"] for p in gone["partitions"]), True)
        assert gone["lag"] >= 50
        assert all(p["claimed_by"] for p in gone["partitions"])
        print_facts(gone, False, err=False)
        text = capsys.readouterr().out
        assert f"\n{'':<18} partition = {stage.input}/1, first = 0, " in text
        stage.start()
        await stage.finish()

    asyncio.run(body())


def _member(log: str, stage: Scene) -> str:
    """What the transactional ids of this worker begin with."""
    found = re.search(r"'member': '(\w+)'", log)
    assert found, log
    return f"{stage.name}-{found[1]}"


def test_what_a_run_would_refuse(scene: Callable[..., Scene]) -> None:
    """Input that retention took before it was processed, input that is not kept long enough, a topic that is not there, a changelog
    that is gone, or that is of another group: each is an error that names it and says what to do, and none is made by looking.
    """

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=1)
        await stage.feed(fed(KEYS, 50))
        worker = stage.start()
        await stage.committed(worker, 50)
        await asyncio.to_thread(worker.end)
        text = stage.file.read_text()
        stage.file.write_text(text.replace("checkpoint_interval_s = 0.5", "checkpoint_interval_s = 1e6"))
        with pytest.raises(ConnectorError, match=r"retention.ms is 604800000, expected at least"):
            await checked(stage)
        stage.file.write_text(text.replace(f'"{stage.name}-in"', '"nothing-here"'))
        with pytest.raises(ConnectorError, match=r"topic 'nothing-here': does not exist"):
            await checked(stage)
        stage.file.write_text(text.replace('group_id = "', 'group_id = "other-'))
        with pytest.raises(
            CheckpointError, match=rf"holds .* records of {stage.input}/0, and group 'other-.*' has no offset"
        ):
            await checked(stage)
        stage.file.write_text(text)
        await asked(stage.bootstrap, lambda admin: admin.delete_topics([stage.changelog]))
        with pytest.raises(
            CheckpointError,
            match=rf"changelog '{stage.changelog}': there is nothing in it of {stage.input}/0, .*Bring it back",
        ):
            await checked(stage)
        await stage.feed(fed(KEYS, 10, seed=1))
        await delete_records(stage.bootstrap, {TopicPartition(stage.input, 0): 55})
        with pytest.raises(ConnectorError, match=r"the group's offset is 50, and there are records from 55 to 60"):
            await checked(stage)
        stage.file.write_text(text.replace('group_id = "', 'group_id = "other-'))
        assert (await checked(stage))["partitions"][0]["begin"] == 55

    asyncio.run(body())
