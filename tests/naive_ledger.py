"""What a partition's records mean, slow and obvious: one record and one stream at a time, for a model that sums its frames."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from undertow.connectors.config import Policy
from undertow.connectors.records import Record


@dataclass
class Open:
    """A stream: its sum, how many frames it has seen, the number and the time that are due next, when it was last heard of."""

    total: Any
    frames: int = 0
    seq: int | None = None
    due_ns: int | None = None
    heard_ns: int | None = None
    last: Any = None
    broken: bool = False


class Bad(Exception):
    """The record is a dead letter."""


class NaiveLedger:
    """answers: source, key, step, time, whether it is the end, how many outputs, the outputs. letters: partition and offset."""

    def __init__(self, policy: Policy, most: int, size: int):
        self.policy, self.most, self.size = policy, most, size
        self.open: dict[tuple[str, Any], Open] = {}
        self.now: dict[str, int] = {}
        self.answers: list[tuple[Any, ...]] = []
        self.letters: list[tuple[str, int]] = []
        self.late_frames = 0

    def take(self, record: Record) -> None:
        self._expire(record)
        if record.event_time_ns is not None:
            last = record.event_time_ns + max(0, self._count(record) - 1) * record.frame_ns
            self.now[record.partition] = max(last, self.now.get(record.partition, last))
        try:
            if self._count(record):
                self._frames(record)
        except Bad:
            self.letters.append((record.partition, record.offset))
        if record.end and (record.partition, record.key) in self.open:
            self._close(record, (record.partition, record.key))

    @staticmethod
    def _count(record: Record) -> int:
        return 0 if record.value is None else len(record.value)

    def _expire(self, record: Record) -> None:
        idle, at = self.policy.idle_timeout_s, record.event_time_ns
        if idle is None or at is None:
            return
        now = max(at, self.now.get(record.partition, at))
        quiet = [
            (stream.heard_ns, name)
            for name, stream in self.open.items()
            if name[0] == record.partition and stream.heard_ns is not None and now - stream.heard_ns > idle * 1e9
        ]
        for _, name in sorted(quiet, key=lambda q: q[0]):
            self._close(record, name)

    def _close(self, record: Record, name: tuple[str, Any]) -> None:
        stream = self.open.pop(name)
        none = np.zeros((0, self.size), np.float32)
        self.answers.append((record.source, name[1], stream.frames, None, True, 0, none))

    def _missing(self, record: Record, stream: Open | None) -> int:
        if stream is None:
            return 0
        if self.policy.gap_in == "time":
            if stream.due_ns is None or record.event_time_ns is None:
                return 0
            return round((record.event_time_ns - stream.due_ns) / record.frame_ns)
        return 0 if record.seq is None or stream.seq is None else record.seq - stream.seq

    def _frames(self, record: Record) -> None:
        name, policy = (record.partition, record.key), self.policy
        stream, value, at = self.open.get(name), record.value, record.event_time_ns
        missing = self._missing(record, stream)
        late_is_bad = policy.late == "error" or (policy.late is None and policy.gap == "error")
        if missing < 0 and late_is_bad:
            raise Bad
        if missing > 0 and (policy.gap == "error" or (policy.gap != "reset" and missing > policy.max_gap_frames)):
            raise Bad
        if missing < 0:
            dropped = min(-missing, len(value))
            self.late_frames += dropped
            value, at = value[dropped:], None if at is None else at + dropped * record.frame_ns
        if not len(value):
            return
        if missing > 0 and policy.gap == "reset":
            self._close(record, name)
            stream = None
        elif missing > 0:
            assert stream is not None
            value = np.concatenate([self._filling(stream, missing, value[0]), value])
            at = None if at is None else at - missing * record.frame_ns
        if stream is None:
            if len(self.open) >= self.most:
                raise Bad
            stream = self.open[name] = Open(np.zeros(self.size, np.float32))
        self._note(stream, record, len(value))
        self._step(stream, record, value, at)

    def _filling(self, stream: Open, missing: int, new: Any) -> Any:
        if self.policy.gap == "zero":
            return np.zeros((missing, self.size), np.float32)
        if self.policy.gap == "hold":
            return np.stack([stream.last] * missing)
        shares = [(i + 1) / (missing + 1) for i in range(missing)]
        last, to = stream.last.astype(np.float64), new.astype(np.float64)
        return np.stack([last + (to - last) * share for share in shares]).astype(np.float32)

    def _note(self, stream: Open, record: Record, count: int) -> None:
        if record.seq is not None:
            stream.seq = record.seq + len(record.value)
        elif stream.seq is not None:
            stream.seq += count
        stream.due_ns = None
        if record.event_time_ns is not None:
            stream.due_ns = record.event_time_ns + len(record.value) * record.frame_ns
            stream.heard_ns = self.now[record.partition]
        stream.last = record.value[-1]

    def _step(self, stream: Open, record: Record, value: Any, at: int | None) -> None:
        outputs, first = [], stream.frames
        with np.errstate(all="ignore"):
            for frame in value:
                stream.total = (stream.total + frame).astype(np.float32)
                outputs.append(stream.total)
        stream.frames += len(value)
        if not np.isfinite(outputs).all():
            stream.broken = True
        if stream.broken:
            self.letters.append((record.partition, record.offset))
            return
        self.answers.append((record.source, record.key, first, at, False, len(value), np.stack(outputs)))
