"""Another model takes over: in place, not at all, from the beginning, or after it has stepped the last frames of each stream again."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition

from undertow.engine.artifact import Artifact, write_artifact

from ..step_graph import StepGraph
from .chaos import Scene
from .feeder import Fed, fed, keys
from .oracle import MODULUS, Recurrence, frame, oracle
from .topics import committed, delete_records, read_topic
from .worker import Fate

KEYS = keys(20)
FIRST, MORE, WARM = 900, 400, 10


def other_weights(factor: int) -> Artifact:
    """The oracle with another factor: other weights, the same states."""
    g = StepGraph()
    x, h = g.input("x", (1,), "int64"), g.state("h", (1,), "int64")
    total = g.op("Add", g.op("Add", g.op("Mul", h, g.ints(factor)), x), g.ints(1))
    after = g.op("Mod", total, g.ints(MODULUS))
    g.next("h", after)
    g.output("y", after, (1,), "int64")
    return g.artifact()


async def ran(scene: Callable[..., Scene], gently: bool = True) -> Scene:
    """A worker has answered the first records with the first model, and ended in order or by kill -9."""
    stage = scene()
    source = 'group_instance_id = "one"'
    await stage.set_up(partitions=2, source=source, checkpoint_interval_s=0.5 if gently else 1000)
    await stage.feed(records()[:FIRST])
    await stage.ran(gently)
    return stage


def records() -> list[Fed]:
    return list(fed(KEYS, FIRST + MORE, chunks=(1, 1, 3)))


def upgrade(stage: Scene, artifact: Artifact, options: str = "") -> None:
    write_artifact(stage.folder / "model.onnx", artifact.model, artifact.spec)
    text = stage.file.read_text()
    stage.file.write_text(text.replace("max_streams = 4096\n", f"max_streams = 4096\n{options}\n"))


async def answers(stage: Scene) -> dict[bytes, list[tuple[str, int, int]]]:
    """Of each key all outputs, source, step and value; none of them twice, and one for each frame of the input."""
    got: dict[bytes, list[tuple[str, int, int]]] = defaultdict(list)
    for (_, key), lines in (await stage.outputs()).items():
        got[key] += [(line.source, line.step, line.value) for line in lines]
    fed_frames, given = 0, 0
    for record in await read_topic(stage.bootstrap, stage.input):
        source = f"{record.topic}/{record.partition}/{record.offset}"
        fed_frames += len(record.value) // 8
        given += sum(s == source for s, _, _ in got[record.key])
    assert given == fed_frames == sum(map(len, got.values()))
    return got


async def went_on(stage: Scene, rest: list[Fed]) -> None:
    """The upgraded pipeline has answered the rest of the input and ended in order."""
    await stage.feed(rest)
    await stage.went_on(sum(r.count for r in records()))


async def written(stage: Scene) -> tuple[dict[TopicPartition, int], list[tuple[str, int, int]]]:
    """What a run may change: the group's offsets, and the records of output and changelog by their places."""
    offsets = await committed(stage.bootstrap, stage.name, stage.input)
    records = await read_topic(stage.bootstrap, stage.output, stage.changelog)
    return {tp: offset for tp, (offset, _) in offsets.items()}, sorted(
        (r.topic, r.partition, r.offset) for r in records
    )


def seen(key: bytes, some: list[Fed]) -> int:
    return sum(r.count for r in some if r.key == key)


def values(lines: list[tuple[str, int, int]]) -> list[int]:
    return [value for _, _, value in lines]


@pytest.mark.parametrize("gently", [True, False])
def test_other_weights_take_over_in_place(scene: Callable[..., Scene], gently: bool) -> None:
    """Weights alone differ: each stream goes on from its state with the new ones, also where the old model was killed; the log says both."""

    async def body() -> None:
        stage = await ran(scene, gently)
        before = {key: values(lines) for key, lines in (await answers(stage)).items()}
        upgrade(stage, other_weights(33))
        await went_on(stage, records()[FIRST:])
        got = await answers(stage)
        tail = stage.running[-1].tail()
        assert "another model takes over" in tail
        assert oracle().fingerprint.hex() in tail
        assert other_weights(33).fingerprint.hex() in tail
        for key in KEYS:
            n = len(before[key])
            h, want = before[key][-1], []
            if not gently:  # no row was written: the new model has replayed what it then goes on from
                h = 0
                for i in range(n):
                    h = (33 * h + frame(key, i) + 1) % MODULUS
            for i in range(n, seen(key, records())):
                h = (33 * h + frame(key, i) + 1) % MODULUS
                want.append(h)
            assert values(got[key]) == before[key] + want, key

    asyncio.run(body())


def test_other_states_are_refused_or_begin_anew(scene: Callable[..., Scene]) -> None:
    """By default a model with other states ends with 1, says what to do and has written nothing; with "reset" each stream begins
    anew behind what was committed, and its steps count from 0."""

    async def body() -> None:
        stage = await ran(scene)
        before = await written(stage)
        upgrade(stage, oracle(wide=True))
        worker = stage.start()
        assert await asyncio.to_thread(worker.wait) == 1, worker.tail()
        assert "a model with other states" in worker.tail()
        assert "on_change" in worker.tail()
        assert await written(stage) == before
        upgrade(stage, oracle(wide=True), 'on_change = "reset"')
        await went_on(stage, records()[FIRST:])
        got = await answers(stage)
        for key in KEYS:
            first = seen(key, records()[:FIRST])
            anew = Recurrence(wide=True)
            want = [anew.step(frame(key, i)) for i in range(first, seen(key, records()))]
            assert values(got[key])[first:] == want, key
            assert [step for _, step, _ in got[key]][first:] == list(range(len(want)))

    asyncio.run(body())


def test_other_states_are_warmed(scene: Callable[..., Scene]) -> None:
    """With "rewarm" each stream has stepped its last frames, as whole records; also where the first commit after that is killed and all done again."""

    async def body() -> None:
        stage = await ran(scene)
        upgrade(stage, oracle(wide=True), f'on_change = "rewarm"\nrewarm_frames = {WARM}')
        killed = stage.start(Fate("committing"))
        await stage.feed(records()[FIRST : FIRST + 1])
        assert await asyncio.to_thread(killed.wait) == -9, killed.tail()
        await went_on(stage, records()[FIRST + 1 :])
        assert "rewarmed" in stage.running[-1].tail()
        check_warmed(await answers(stage))

    asyncio.run(body())


def check_warmed(got: dict[bytes, list[tuple[str, int, int]]]) -> None:
    for key in KEYS:
        mine = [r for r in records()[:FIRST] if r.key == key]
        first, warm = seen(key, mine), 0
        for record in reversed(mine):
            warm += record.count
            if warm >= WARM:
                break
        anew = Recurrence(wide=True)
        for i in range(first - warm, first):
            anew.step(frame(key, i))
        want = [anew.step(frame(key, i)) for i in range(first, seen(key, records()))]
        assert values(got[key])[first:] == want, key
        assert [step for _, step, _ in got[key]][first:] == list(range(warm, warm + len(want)))


def test_warming_from_what_is_left(scene: Callable[..., Scene]) -> None:
    """Where retention has deleted the input, streams are warmed with the frames that there are, and the log says how many had fewer."""

    async def body() -> None:
        stage = await ran(scene)
        offsets = await committed(stage.bootstrap, stage.name, stage.input)
        await delete_records(stage.bootstrap, {tp: offset for tp, (offset, _) in offsets.items()})
        upgrade(stage, oracle(wide=True), f'on_change = "rewarm"\nrewarm_frames = {WARM}')
        await went_on(stage, records()[FIRST:])
        warned = [line for line in stage.running[-1].tail().splitlines() if "rewarmed" in line]
        assert sum(int(line.split("'with_fewer': ")[1].split(",")[0]) for line in warned) == len(KEYS)
        for (_, key), lines in (await stage.outputs()).items():
            first, anew = seen(key, records()[:FIRST]), Recurrence(wide=True)
            want = [anew.step(frame(key, i)) for i in range(first, seen(key, records()))]
            assert [line.value for line in lines][first:] == want, key

    asyncio.run(body())
