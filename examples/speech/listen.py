"""Words of raw sound, live: signed 16-bit samples at 8 kHz on stdin, JSON Lines on stdout, a line whenever what was heard changes.

    arecord -q -t raw -f S16_LE -r 8000 -c 1 | python examples/speech/listen.py speech

The folder is the one that run.py leaves. Ends with the sound.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from model import STEP
from streaming import searching

import undertow as ut


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for event in heard(searching(Path(sys.argv[1])), sys.stdin.buffer):
        print(json.dumps(event), flush=True)


def heard(engine: ut.Engine, sound: BinaryIO) -> Iterator[dict[str, Any]]:
    """The events as they come; the last ones at the end of the sound."""
    while pcm := sound.read(2 * STEP):
        samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32) / 32768
        yield from engine.push("sound", samples)
    if "sound" in engine:
        yield from engine.close("sound")


if __name__ == "__main__":
    main()
