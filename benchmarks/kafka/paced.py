"""A process that feeds records on a constant schedule, whatever becomes of them; the clock is time.monotonic of this machine."""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

from feeding import Feeder, Load


def start(
    address: str, topic: str, load: Load, first: int, per_s: float, seconds: float, begin: float
) -> subprocess.Popen:
    """Record first + n is due n / per_s after `begin`."""
    given = {
        "first": first,
        "per-s": per_s,
        "seconds": seconds,
        "begin": begin,
        "keys": load.keys,
        "partitions": load.partitions,
    }
    numbers = [word for name, value in given.items() for word in (f"--{name}", repr(value))]
    return subprocess.Popen([sys.executable, str(Path(__file__).resolve()), address, topic, *numbers])


async def feed(a: argparse.Namespace) -> None:
    load = Load(a.keys, a.partitions)
    load.record(0)  # what it keeps is made before the schedule begins
    async with Feeder(a.address, a.topic, load) as feeder:
        await feeder.put_paced(a.first, a.per_s, a.seconds, a.begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("topic")
    for name in ("--first", "--keys", "--partitions"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--per-s", "--seconds", "--begin"):
        parser.add_argument(name, type=float, required=True)
    asyncio.run(feed(parser.parse_args()))


if __name__ == "__main__":
    main()
