"""What others do to a pipeline's topics: transactions that abort, retention, damage. It goes on rightly, or says clearly why not."""

import asyncio
import re
from collections.abc import Callable
from itertools import islice

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from undertow.connectors.config import read_pipeline
from undertow.engine.errors import CheckpointError
from undertow.plan import checked_plan

from .chaos import Scene
from .feeder import Fed, fed, keys
from .topics import alter_topic, committed, delete_records, members, read_topic, write
from .verifier import verify
from .worker import Fate, Worker

KEYS = keys(20)
FIRST, MORE = 1500, 300


async def ran(scene: Callable[..., Scene], gently: bool = True, records: int = FIRST) -> Scene:
    """A scene in which one worker has answered everything and ended, in order or by kill -9; its input goes on a little."""
    stage = scene()
    await stage.set_up(partitions=1, source='group_instance_id = "one"', checkpoint_interval_s=1000)
    await stage.feed(fed(KEYS, records))
    await stage.ran(gently)
    return stage


async def refused(worker: Worker, *patterns: str) -> None:
    """It ends with 1, and what it says has all of these."""
    assert await asyncio.to_thread(worker.wait) == 1, worker.tail()
    for pattern in patterns:
        assert re.search(pattern, worker.tail()), f"{pattern!r} is not in: {worker.tail()}"


async def commit(bootstrap: str, group: str, place: TopicPartition, offset: int) -> None:
    """What kafka-consumer-groups.sh --reset-offsets does; the group has no members."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.commit({place: offset})
    finally:
        await consumer.stop()


def test_aborted_input(scene: Callable[..., Scene]) -> None:
    """Records of aborted transactions in the input are nobody's frames; those of committed ones are."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=1)
        stage.start()
        await stage.feed(fed(KEYS, 200))
        some, *_ = await read_topic(stage.bootstrap, stage.input)
        others = fed(keys(30)[20:], 10**9)
        for commit in (False, True, False, False, True, False):
            await write(stage.bootstrap, some, some.value, commit)
            await stage.feed(islice(others, 50))
        await stage.finish()

    asyncio.run(body())


def test_fenced_from_outside(scene: Callable[..., Scene]) -> None:
    """Somebody else begins the worker's transactional id: it aborts, and takes its partitions anew or leaves them to the next."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(session_timeout_s=1)
        async with stage.feeding(fed(KEYS, 10**9)):
            worker = stage.start()
            await stage.committed(worker, 500)
            claims = {text for _, text in (await committed(stage.bootstrap, stage.name, stage.input)).values()}
            assert all(claims), "a running worker's partitions are claimed by nobody"
            for claim in claims:
                thief = AIOKafkaProducer(bootstrap_servers=stage.bootstrap, transactional_id=claim)
                await thief.start()
                await thief.stop()
            await asyncio.sleep(1)
            stage.start()
        await stage.finish(excused=[worker])

    asyncio.run(body())


def test_changelog_that_ends_in_control_records(scene: Callable[..., Scene]) -> None:
    """An aborted transaction at the changelog's end hides nothing, adds nothing and holds up no restore."""

    async def body() -> None:
        stage = await ran(scene)
        rows = await read_topic(stage.bootstrap, stage.changelog)
        for _ in range(3):
            await write(stage.bootstrap, rows[-1], b"never written", commit=False)
        stage.start()
        await stage.feed(fed(keys(30)[20:], MORE))
        await stage.finish()

    asyncio.run(body())


def test_input_gone_that_nobody_needs(scene: Callable[..., Scene]) -> None:
    """After a stop in order the input below the committed offset may go: state comes from the changelog alone."""

    async def body() -> None:
        stage = await ran(scene)
        ((place, (offset, _)),) = (await committed(stage.bootstrap, stage.name, stage.input)).items()
        await stage.feed(more())
        want = await stage.expected()
        await delete_records(stage.bootstrap, {place: offset})
        worker = stage.start()
        await stage.committed(worker, offset + MORE)
        assert await asyncio.to_thread(worker.end) == 0, worker.tail()
        verify(want, await stage.outputs())

    asyncio.run(body())


def test_offset_set_back(scene: Callable[..., Scene]) -> None:
    """The group's offset was set below what the changelog stands for: refused with the offset that fits, and nothing is repeated."""

    async def body() -> None:
        stage = await ran(scene)
        ((place, (offset, _)),) = (await committed(stage.bootstrap, stage.name, stage.input)).items()
        while await members(stage.bootstrap, stage.name):
            await asyncio.sleep(0.1)
        await commit(stage.bootstrap, stage.name, place, offset - 100)
        await refused(stage.start(), f"{stage.changelog}[^\n]*{offset}")
        await stage.verify()

    asyncio.run(body())


def test_a_group_without_offset(scene: Callable[..., Scene]) -> None:
    """The group has no offsets (another name, or they expired) while the changelog holds state: refused each time with the offset that
    fits, and with that it goes on."""

    async def body() -> None:
        stage = await ran(scene)
        ((place, (offset, _)),) = (await committed(stage.bootstrap, stage.name, stage.input)).items()
        other = f"{stage.name}-other"
        stage.file.write_text(stage.file.read_text().replace(f'group_id = "{stage.name}"', f'group_id = "{other}"'))
        await stage.feed(more())
        for _ in range(2):
            await refused(stage.start(), f"{stage.changelog}[^\n]*{offset}")
        with pytest.raises(CheckpointError, match="has no offset"):
            await asyncio.to_thread(lambda: checked_plan(read_pipeline(stage.file)))
        while await members(stage.bootstrap, other):  # a static one stays for a session timeout
            await asyncio.sleep(0.1)
        await commit(stage.bootstrap, other, place, offset)
        stage.running.clear()
        stage.start()
        await stage.finish()

    asyncio.run(body())


@pytest.mark.parametrize("gone", ["replay", "committed"])
def test_input_gone_that_is_needed(scene: Callable[..., Scene], gone: str) -> None:
    """Input that a replay or the committed offset needs was deleted: it says which partition, from where, and what there is."""

    async def body() -> None:
        stage = await ran(scene, gently=gone == "committed")
        ((place, (offset, _)),) = (await committed(stage.bootstrap, stage.name, stage.input)).items()
        await stage.feed(more())
        at = offset if gone == "replay" else offset + 10
        await delete_records(stage.bootstrap, {place: at})
        await refused(stage.start(), f"{stage.input}[^\n]*{at}")

    asyncio.run(body())


def more() -> list[Fed]:
    """Frames that go on with streams of before."""
    return list(fed(KEYS, FIRST + MORE))[FIRST:]


@pytest.mark.parametrize("how", ["one row", "cut short", "all gone"])
def test_damaged_changelog(scene: Callable[..., Scene], how: str) -> None:
    """A row with flipped bits, one cut short, and a changelog that retention emptied: an error that names topic and stream."""

    async def body() -> None:
        stage = await ran(scene)
        rows = await read_topic(stage.bootstrap, stage.changelog)
        row = next(r for r in reversed(rows) if r.value and b"pump-7" in r.key)
        if how == "all gone":
            await alter_topic(stage.bootstrap, stage.changelog, cleanup_policy="compact,delete")
            await delete_records(stage.bootstrap, {TopicPartition(row.topic, row.partition): rows[-1].offset + 1})
            await alter_topic(stage.bootstrap, stage.changelog, cleanup_policy="compact")
            await refused(stage.start(), stage.changelog)
            return
        damaged = bytes(b ^ 0x5A for b in row.value) if how == "one row" else row.value[: len(row.value) // 2]
        await write(stage.bootstrap, row, damaged)
        await refused(stage.start(), f"{stage.changelog}", "pump-7")

    asyncio.run(body())


def test_rows_of_nobody_are_not_believed(scene: Callable[..., Scene]) -> None:
    """The worker that was killed between two commits left rows in an aborted transaction: they are not read."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(partitions=1, source='group_instance_id = "one"', checkpoint_interval_s=0.05)
        async with stage.feeding(fed(KEYS, 10**9)):
            for phase, nth in (("committing", 2), ("committing", 4), ("sent", 3)):
                worker = stage.start(Fate(phase, nth))
                assert await asyncio.to_thread(worker.wait) == -9, worker.tail()
        stage.start()
        await stage.finish()

    asyncio.run(body())
