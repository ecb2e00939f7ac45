"""The harness itself, tried on a plain loop in place of the product: right it passes, broken in a known way it is found out."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord

from .chaos import Scene
from .feeder import fed, keys
from .verifier import END, Line, Lines, expected, faults, verify
from .worker import PHASES, Fate

KEYS = keys(6)


def log(records: int = 400) -> list[ConsumerRecord]:
    """A partition's log as the feeder would write it."""
    made = []
    for i, one in enumerate(fed(KEYS, records, chunks=(1, 2), end_chance=0.02)):
        headers = (("undertow-end", b"1"),) if one.end else ()
        made.append(ConsumerRecord("in", 0, i, i, 0, one.key, one.value, None, 0, 0, headers))
    return made


def right() -> Lines:
    lines = expected(log())
    assert sum(line.step == END for one in lines.values() for line in one) > 2
    return lines


def test_right_output_has_no_faults() -> None:
    """The oracle's own lines, whole; and with repeats, where those are allowed."""
    lines = right()
    verify(lines, lines)
    again = {name: [*some, *some[3:]] for name, some in lines.items()}
    verify(lines, again, repeats=True)
    assert faults(lines, again).keys() == {"repeated"}


@pytest.mark.parametrize("repeats", [False, True], ids=["exactly-once", "at-least-once"])
def test_each_fault_is_named(repeats: bool) -> None:
    """One line lost, swapped, of a foreign stream or of a wrong step is found, and nothing else is, whatever is allowed."""
    name = ("in/0", KEYS[1])
    whole = right()[name]
    broken: dict[str, list[Line]] = {
        "lost": whole[:7] + whole[8:],
        "reordered": [*whole[:7], whole[8], whole[7], *whole[9:]],
        "foreign": [*whole, Line("in/0/999", 5, 1)],
        "wrong state": [*whole[:7], replace(whole[7], value=1), *whole[8:]],
    }
    for kind, lines in broken.items():
        found = faults(right(), right() | {name: lines}, repeats)
        assert {k: len(texts) for k, texts in found.items()} == {kind: 1}
    assert faults(right(), right() | {("in/0", b"nobody"): whole}, repeats).keys() == {"foreign"}
    late = faults(right(), right() | {name: [replace(whole[0], step=50), *whole[1:]]}, repeats)
    assert late.keys() == {"wrong step", "lost"}
    with pytest.raises(AssertionError, match=r"1 lost\nlost: stream b'pump-1' of in/0: step \d+ from in/0/\d+ is not"):
        verify(right(), right() | {name: broken["lost"]}, repeats)


def test_whose_state_it_was() -> None:
    """A step made on another stream's state, on the initial one, or on an older one of its own, is told from its output."""
    from .oracle import step

    name, other = ("in/0", KEYS[1]), ("in/0", KEYS[2])
    lines = right()
    states = {
        "the state of another stream, stream b'pump-2' of in/0, after step 2": lines[other][2].value,
        "the initial state": 0,
        "the stream's own state after step 4, expected after step 6": lines[name][4].value,
    }
    for text, state in states.items():
        wrong = replace(lines[name][7], value=step(state, lines[name][7].frame))
        found = faults(lines, lines | {name: [*lines[name][:7], wrong, *lines[name][8:]]})
        assert found.keys() == {"wrong state"}
        assert found["wrong state"][0].endswith(f"made from {text}")


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_right_loop_survives(scene: Callable[..., Scene], guarantee: str) -> None:
    """A loop that is right is found right, killed at each phase and started again."""

    async def body() -> None:
        stage = scene(guarantee, runner="stand-in")
        await stage.set_up()
        async with stage.feeding(fed(KEYS, 10**6, chunks=(1, 3), end_chance=0.01)):
            for phase in PHASES:
                worker = stage.start(Fate(phase, 1 if phase in PHASES[:2] else 2))
                assert await asyncio.to_thread(worker.wait) == -9, worker.tail()
            stage.start()
        await stage.finish()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("flaw", "phase", "kind"),
    [
        ("forgets", "committed", "wrong state: .* made from the initial state"),
        ("no transaction", "committing", "repeated: .* is there 2 times"),
        ("commits first", "stepped", "lost.* is not there"),
        ("mixes", "committed", "wrong state: .* made from a state that no stream had"),
        ("reorders", "committed", "reordered: .* comes after"),
    ],
)
def test_broken_loop_is_found_out(scene: Callable[..., Scene], flaw: str, phase: str, kind: str) -> None:
    """A loop that is broken in one known way, killed once, is found to be just that."""

    async def body() -> None:
        stage = scene(runner="stand-in", flaw=flaw)
        await stage.set_up()
        await stage.feed(fed(KEYS, 600))
        worker = stage.start(Fate(phase, 2))
        assert await asyncio.to_thread(worker.wait) == -9, worker.tail()
        stage.start()
        with pytest.raises((AssertionError, TimeoutError), match=f"(?s){kind}"):
            await stage.finish(seconds=4)

    asyncio.run(body())


def test_unfenced_zombie_is_found_out(scene: Callable[..., Scene]) -> None:
    """A worker that nobody fenced sleeps, wakes and writes what its successor had written: found to be repeated."""

    async def body() -> None:
        stage = scene(runner="stand-in", flaw="no fence")
        await stage.set_up()
        await stage.feed(fed(KEYS, 600))
        zombie = stage.start(Fate("stepped", 2, "STOP"))
        await asyncio.to_thread(zombie.until, lambda: zombie.stopped, 20, "stop")
        stage.start()
        await stage.answered()
        zombie.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        with pytest.raises(AssertionError, match=r"(?s)repeated: .* is there 2 times"):
            await stage.finish()

    asyncio.run(body())
