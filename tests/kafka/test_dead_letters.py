"""Records that cannot be stepped, on a real broker: each goes to the dead-letter topic once, and only its stream misses it."""

import asyncio
from collections.abc import Callable, Iterator

from aiokafka import AIOKafkaProducer, ConsumerRecord

from .chaos import Scene
from .feeder import fed, keys
from .topics import create_topic, read_topic
from .worker import Fate

KEYS = keys(10)
POISON = b"not int64"  # nine bytes


async def poison(stage: Scene, count: int) -> None:
    """Records of streams of their own that no codec takes."""
    producer = AIOKafkaProducer(bootstrap_servers=stage.bootstrap)
    await producer.start()
    try:
        for i in range(count):
            await producer.send_and_wait(stage.input, POISON, b"bad-%d" % (i % 3), headers=[("trace", b"%d" % i)])
    finally:
        await producer.stop()


def bad(records: list[ConsumerRecord]) -> Iterator[tuple[str, bytes, bytes]]:
    for record in records:
        if record.value == POISON:
            yield f"{record.topic}/{record.partition}/{record.offset}", record.key, dict(record.headers)["trace"]


def test_each_once(scene: Callable[..., Scene]) -> None:
    """Workers are killed after poison records were sent on and before they are committed: each is there once, as it came, with its reason."""

    async def body() -> None:
        stage = scene()
        await stage.set_up(
            source='group_instance_id = "one"',
            tables=f'[dead_letters]\ntopic = "{stage.name}-dead"\n[policy]\nbad_record = "dead-letter"',
        )
        await create_topic(stage.bootstrap, f"{stage.name}-dead", 1)
        async with stage.feeding(fed(KEYS, 10**9)):
            for phase in ("sent", "committing", "committed"):
                await poison(stage, 8)
                worker = stage.start(Fate(phase, 2))
                assert await asyncio.to_thread(worker.wait) == -9, worker.tail()
            stage.start()
        inputs = await read_topic(stage.bootstrap, stage.input)
        await stage.finish()
        letters = await read_topic(stage.bootstrap, f"{stage.name}-dead")
        found = [dict(r.headers) for r in letters]
        assert all(r.value == POISON for r in letters)
        assert all(b"9 bytes" in h["undertow-reason"] for h in found)
        told = [(h["undertow-source"].decode(), r.key, h["trace"]) for h, r in zip(found, letters, strict=True)]
        assert sorted(told) == sorted(bad(inputs))
        assert len(told) == 24

    asyncio.run(body())
