"""Which input a pipeline takes: to the end that it has, topics by a pattern, partitions that are added."""

import asyncio
import re
from collections.abc import Callable
from itertools import islice

import pytest
from aiokafka.admin import NewPartitions

from .chaos import Scene
from .feeder import fed, feed, keys
from .topics import asked, create_topic, read_topic, write
from .verifier import expected, verify
from .worker import Worker

KEYS = keys(20)


async def ended(worker: Worker) -> None:
    assert await asyncio.to_thread(worker.wait) == 0, worker.tail()


@pytest.mark.parametrize("last", ["a record", "an aborted transaction"])
def test_stop_at_end(scene: Callable[..., Scene], last: str) -> None:
    """The run ends by itself with everything answered, also where the log ends in records that nobody gets; the next goes on."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(source="stop_at_end = true")
        records = fed(KEYS, 10**9)
        for _ in range(2):
            await stage.feed(islice(records, 300))
            if last != "a record":
                some, *_ = await read_topic(stage.bootstrap, stage.input)
                await write(stage.bootstrap, some, some.value, commit=False)
            await ended(stage.start())
            await stage.verify()

    asyncio.run(body())


def test_topics_by_pattern(scene: Callable[..., Scene]) -> None:
    """Every topic that the pattern matches is input with a changelog of its own; the pipeline's own topics are not."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(source="stop_at_end = true")
        other = f"{stage.name}-more"
        await create_topic(stage.bootstrap, other, 1)
        text = stage.file.read_text()
        stage.file.write_text(text.replace(f'topics = ["{stage.input}"]', f'topic_pattern = "{stage.name}.*"'))
        await stage.feed(fed(KEYS, 300))
        await feed(stage.bootstrap, other, fed(KEYS, 200, seed=3))
        await ended(stage.start())
        verify(expected(await read_topic(stage.bootstrap, stage.input, other)), await stage.outputs())
        for topic in (stage.input, other):
            assert await read_topic(stage.bootstrap, f"{stage.name}-{topic}-changelog")

    asyncio.run(body())


def test_partitions_are_added(scene: Callable[..., Scene]) -> None:
    """The input has more partitions than its changelog: the next start says so and what to do, before anything is processed."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(source="stop_at_end = true")
        await stage.feed(fed(KEYS, 100))
        await ended(stage.start())
        await asked(stage.bootstrap, lambda admin: admin.create_partitions({stage.input: NewPartitions(5)}))
        worker = stage.start()
        assert await asyncio.to_thread(worker.wait) == 1, worker.tail()
        assert re.search(rf"'{stage.changelog}'[^\n]*2[^\n]*5", worker.tail()), worker.tail()

    asyncio.run(body())
