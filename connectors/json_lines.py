"""JSON Lines as records: `{"key": .., "time": .., "value": ..}` by configurable names, of files and of standard input."""

from dataclasses import dataclass

from ..engine import Key
from ..engine.artifact import StepSpec
from ..engine.errors import CodecError
from .codec_config import TimeUnit
from .lines import Line
from .payload_fields import flag, seq, time_ns
from .records import Record, Unreadable
from .tree_codecs import TreeFrames
from .trees import JSON


@dataclass(frozen=True, slots=True)
class Fields:
    """The names in an object. key: None where the lines are all of one stream, which may then be bare payloads."""

    key: str | None
    value: str = "value"
    time: str = "time"
    end: str = "end"
    seq: str = "seq"
    ignore_others: bool = False

    @property
    def names(self) -> list[str]:
        return [n for n in (self.key, self.value, self.time, self.end, self.seq) if n is not None]


class JsonLines:
    """Makes a record of a line. One that cannot be read makes a record too, whose value says why."""

    def __init__(self, fields: Fields, spec: StepSpec, unit: TimeUnit, frame_ns: int):
        self.fields, self.frames = fields, TreeFrames(spec, JSON, None)
        self.unit: TimeUnit = unit
        self.frame_ns = frame_ns

    def record(self, partition: str, line: Line, key: Key) -> Record:
        """key: of a line that names none."""
        try:
            if line.problem:
                raise CodecError(line.problem)
            return self._record(partition, line, key)
        except CodecError as error:
            broken = Unreadable(line.text, str(error))
            return Record(partition, line.offset, line.next_offset, "" if self.fields.key else key, broken)

    def _record(self, partition: str, line: Line, key: Key) -> Record:
        f = self.fields
        parts = {f.value: line.text} if f.key is None and not _is_object(line.text) else self._parts(line.text)
        end, number = flag(JSON, parts, f.end), seq(JSON, parts, f.seq)
        at = time_ns(JSON, parts, f.time, self.unit)
        key = self._key(parts) if f.key else key
        payload = parts.get(f.value, b"null")
        if payload.strip() == b"null":
            if not end:
                raise CodecError(f"the line has no '{f.value}' and does not end its stream ('{f.end}': true)")
            return Record(partition, line.offset, line.next_offset, key, None, at, 0, end, number)
        where = (partition, line.offset, line.next_offset)
        try:
            frames = self.frames.one(payload)
        except CodecError as error:  # the stream is known, and may end with this line all the same
            return Record(*where, key, Unreadable(line.text, str(error)), at, 0, end, number)
        return Record(*where, key, frames.arrays, at, self.frame_ns, end, number, single=frames.single)

    def _parts(self, text: bytes) -> dict[str, bytes]:
        parts = JSON.fields(text)
        others = parts.keys() - set(self.fields.names)
        if others and not self.fields.ignore_others:
            key = "" if self.fields.key else f'key_column = "{min(others)}" where it names the stream, '
            raise CodecError(
                f"the line has a field '{min(others)}', expected {self.fields.names}; "
                f'name the fields in [source] ({key}value_field ..), or say extra_fields = "ignore"'
            )
        return parts

    def _key(self, parts: dict[str, bytes]) -> Key:
        name = self.fields.key or ""
        if name not in parts:
            raise CodecError(f"the line has no '{name}', so its stream is not known; it has {sorted(parts)}")
        return JSON.value(parts[name], str | int, f"'{name}' (the stream)")


def _is_object(text: bytes) -> bool:
    return text.lstrip().startswith(b"{")
