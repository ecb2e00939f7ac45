"""Speech out of eSpeak NG's library, with the time at which each word ends.

The library and its voices are those of the wheel espeakng-loader 0.2.4 (eSpeak NG 1.52, GPL-3.0-or-later), which is unpacked and called through
its C interface; nothing of it is kept in what is trained. A process has one eSpeak.
"""

import ctypes
import itertools
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import wheel

MEMBERS = {
    "espeakng_loader/libespeak-ng.so": "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf",
    "espeakng_loader/espeak-ng-data/": "72d0f78f4165cb03c72c2f63e829ee7d44304a7763876dd8ae9293bb11342dfc",
}
RATE_HZ = 22_050
SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1
WORD, END = 1, 5
RATE, PITCH, RANGE, WORD_GAP = 1, 3, 4, 7


@dataclass(frozen=True, slots=True)
class Manner:
    """How something is said. voice: of eSpeak NG, `en-us+f2`. rate: words a minute. pitch and pitch_range: 0 to 99. gap: pause between words, in 10 ms."""

    voice: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    gap: int = 0


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def spoken(text: str, manner: Manner) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(samples at 22,050 Hz in -1 .. 1, (begin, end) of each word of eSpeak's in seconds). Raises ValueError where there is no such voice."""
    library = _library()
    if library.espeak_SetVoiceByName(manner.voice.encode()):
        raise ValueError(
            f"eSpeak NG has no voice {manner.voice!r}; its voices are those of espeak-ng-data/lang and voices/!v"
        )
    for parameter, value in (
        (RATE, manner.rate),
        (PITCH, manner.pitch),
        (RANGE, manner.pitch_range),
        (WORD_GAP, manner.gap),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    pieces: list[np.ndarray] = []
    marks: list[tuple[int, int]] = []

    def take(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[Event]") -> int:
        if count:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768)
        marks.extend((event.type, event.audio_ms) for event in _until_end(events))
        return 0

    callback = Callback(take)
    library.espeak_SetSynthCallback(callback)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 1, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return np.concatenate(pieces or [np.zeros(0, np.float32)]), _words(marks)


def _until_end(events: "ctypes._Pointer[Event]") -> list[Event]:
    found: list[Event] = []
    while events[len(found)].type:
        found.append(events[len(found)])
    return found


def _words(marks: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """A word lasts until the next one begins or its clause ends."""
    found = []
    for (kind, begin), (_, end) in itertools.pairwise(marks):
        if kind == WORD:
            found.append((begin / 1000, end / 1000))
    return found


@cache
def _library() -> ctypes.CDLL:
    folder = wheel("espeakng-loader", "0.2.4", MEMBERS) / "espeakng_loader"
    library = ctypes.CDLL(str(folder / "libespeak-ng.so"))
    rate = library.espeak_Initialize(SYNCHRONOUS, 200, str(folder).encode(), DONT_EXIT)
    if rate != RATE_HZ:
        raise SystemExit(f"eSpeak NG in {folder} gives {rate} samples a second, expected {RATE_HZ}")
    return library
