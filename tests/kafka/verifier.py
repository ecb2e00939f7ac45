"""Whether an output topic is what the oracle gives for an input topic, and if not, what is wrong with it in words.

A line is one output: its identity is the record that it answers and its step. A stream is a key of one input partition.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from aiokafka import ConsumerRecord

from .oracle import Recurrence, state_before

Name = tuple[str, bytes]  # `topic/partition` of the input, key
END = -1  # the step of a line that says that the stream ended
SHOWN = 3  # of the faults of a kind


@dataclass(frozen=True, slots=True)
class Line:
    """step: its index in the stream, or END. source: `topic/partition/offset`. frame: what it was made from; of expected lines alone."""

    source: str
    step: int
    value: int = 0
    frame: int = 0

    @property
    def identity(self) -> tuple[str, int]:
        return self.source, self.step


Lines = dict[Name, list[Line]]


class Streams:
    """The plain reference of a pipeline: one partition's records in, its streams' lines out."""

    def __init__(self, wide: bool = False, idle_ms: int | None = None):
        self.wide, self.idle_ms = wide, idle_ms
        self.lines: Lines = defaultdict(list)
        self.live: dict[str, dict[bytes, tuple[Recurrence, int, int]]] = defaultdict(dict)
        """By partition, with frames seen and the watermark at the last, which came last at the end."""
        self.watermarks: dict[str, int] = {}

    def take(self, record: ConsumerRecord) -> None:
        partition = f"{record.topic}/{record.partition}"
        source, name = f"{partition}/{record.offset}", (partition, record.key)
        mark = self.watermarks[partition] = max(record.timestamp, self.watermarks.get(partition, record.timestamp))
        self._expire(partition, source, mark)
        if record.value and not len(record.value) % 8:  # else it has no frames, and is a dead letter
            live = self.live[partition]
            recurrence, seen, _ = live.pop(record.key, None) or (Recurrence(self.wide), 0, 0)
            for i, (x,) in enumerate(struct.iter_unpack("<q", record.value)):
                self.lines[name].append(Line(source, seen + i, recurrence.step(x), x))
            live[record.key] = (recurrence, seen + len(record.value) // 8, mark)
        if dict(record.headers).get("undertow-end") == b"1" and record.key in self.live[partition]:
            self._end(name, source)

    def _expire(self, partition: str, source: str, mark: int) -> None:
        if self.idle_ms is None:
            return
        live = self.live[partition].items()
        for key in [k for k, _ in takewhile(lambda item: item[1][2] < mark - self.idle_ms, live)]:
            self._end((partition, key), source)

    def _end(self, name: Name, source: str) -> None:
        del self.live[name[0]][name[1]]
        self.lines[name].append(Line(source, END))


def expected(inputs: Iterable[ConsumerRecord], wide: bool = False, idle_ms: int | None = None) -> Lines:
    """What the input has to give; each partition's records in order."""
    streams = Streams(wide, idle_ms)
    for record in inputs:
        streams.take(record)
    return dict(streams.lines)


def given(outputs: Iterable[ConsumerRecord]) -> Lines:
    """What an output topic holds, each stream's lines in the order of the log. Raises ValueError where headers are missing."""
    lines: Lines = defaultdict(list)
    for record in outputs:
        headers = dict(record.headers)
        missing = {"undertow-step", "undertow-source"} - headers.keys()
        if missing:
            raise ValueError(f"output {record.topic}/{record.partition}/{record.offset} has no {sorted(missing)}")
        source, step = headers["undertow-source"].decode(), int(headers["undertow-step"])
        name = (source.rpartition("/")[0], record.key)
        for i, (y,) in enumerate(struct.iter_unpack("<q", record.value or b"")):
            lines[name].append(Line(source, step + i, y))
        if headers.get("undertow-end") == b"1":
            lines[name].append(Line(source, END))
    return dict(lines)


def verify(want: Mapping[Name, list[Line]], got: Mapping[Name, list[Line]], repeats: bool = False) -> None:
    """Raises AssertionError that says what is lost, repeated, reordered, foreign or made from another state.

    repeats: lines may come again (at-least-once), each time the same.
    """
    found = faults(want, got, repeats)
    if found:
        counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in found.items())
        shown = [f"{kind}: {text}" for kind, texts in found.items() for text in texts[:SHOWN]]
        raise AssertionError("\n".join([f"the output is not the oracle's: {counts}", *shown]))


def faults(
    want: Mapping[Name, list[Line]], got: Mapping[Name, list[Line]], repeats: bool = False
) -> dict[str, list[str]]:
    """By kind, every fault in words; nothing where all is right."""
    found: dict[str, list[str]] = defaultdict(list)
    states = _states(want)
    for name in got.keys() - want.keys():
        found["foreign"].append(f"{_told(name)} is no stream of the input, and has {len(got[name])} lines")
    for name, lines in want.items():
        for kind, text in _stream_faults(name, lines, got.get(name, []), repeats, states):
            found[kind].append(f"{_told(name)}: {text}")
    return dict(found)


def _stream_faults(
    name: Name, want: list[Line], got: list[Line], repeats: bool, states: Mapping[int, tuple[Name, int]]
) -> Iterable[tuple[str, str]]:
    places, sources = {line.identity: i for i, line in enumerate(want)}, {line.source for line in want}
    times: dict[tuple[str, int], int] = defaultdict(int)
    latest, wrong = -1, False
    for line in got:
        place = places.get(line.identity)
        if place is None and line.source in sources:
            yield "wrong step", f"{_line(line)} is not one of that record's"
        elif place is None:
            yield "foreign", f"{_line(line)} answers no frame of the stream"
        if place is None:
            continue
        times[line.identity] += 1
        if line.value != want[place].value and not wrong:
            wrong = True  # every later one follows from it
            yield (
                "wrong state",
                f"{_line(line)} is {line.value}, expected {want[place].value}; {_made_from(name, line, want[place], states)}",
            )
        if times[line.identity] > 1:
            continue
        if place < latest:
            yield "reordered", f"{_line(line)} comes after {_line(want[latest])}"
        latest = max(latest, place)
    for line in want:
        seen = times[line.identity]
        if not seen:
            yield "lost", f"{_line(line)} is not there"
        elif seen > 1 and not repeats:
            yield "repeated", f"{_line(line)} is there {seen} times"


def _states(want: Mapping[Name, list[Line]]) -> dict[int, tuple[Name, int]]:
    """Which stream had a state, and after which step."""
    return {line.value: (name, line.step) for name, lines in want.items() for line in lines if line.step != END}


def _made_from(name: Name, got: Line, want: Line, states: Mapping[int, tuple[Name, int]]) -> str:
    state = state_before(got.value, want.frame)
    if state == 0:
        return "it was made from the initial state"
    if state not in states:
        return "it was made from a state that no stream had (of the wide oracle that cannot be told)"
    owner, step = states[state]
    if owner != name:
        return f"it was made from the state of another stream, {_told(owner)}, after step {step}"
    return f"it was made from the stream's own state after step {step}, expected after step {got.step - 1}"


def _line(line: Line) -> str:
    return f"{'the end' if line.step == END else f'step {line.step}'} from {line.source}"


def _told(name: Name) -> str:
    return f"stream {name[1]!r} of {name[0]}"
