"""Payloads that are nested lists: JSON and MessagePack, and what Avro's are read by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import CodecError
from .codec_config import JsonCodecConfig, MsgpackCodecConfig
from .columns import NO_SEQ, NO_TIME
from .payload_fields import Marks, PayloadFields, payload_fields
from .payloads import Decoded, Frames, Use, each, encode_one, gathered, no_rows, plain
from .records import Answer
from .trees import JSON, MSGPACK, UNREADABLE, Tree, frames_at_once


class TreeCodec:
    """One of the two notations that are text to msgspec."""

    def __init__(self, frames: "TreeFrames", encode: Callable[[Any], bytes]):
        self.frames, self._encode = frames, encode

    def decode(self, payload: bytes) -> Frames:
        return self.frames.one(payload)

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        return self.frames.many(len(payloads), {i: p for i, p in enumerate(payloads) if p is not None}, {})

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        lists = {name: plain(array) for name, array in values.items()}
        stops = np.cumsum(counts).tolist()
        cuts = [slice(stop - count, stop) for stop, count in zip(stops, counts.tolist(), strict=True)]
        if len(lists) == 1:
            (rows,) = lists.values()
            return [self._encode(rows[cut]) for cut in cuts]
        return [self._encode({name: rows[cut] for name, rows in lists.items()}) for cut in cuts]


def json_codec(config: JsonCodecConfig, spec: StepSpec, use: Use) -> TreeCodec:
    return TreeCodec(TreeFrames(spec, JSON, payload_fields(config, use.writes)), msgspec.json.encode)


def msgpack_codec(config: MsgpackCodecConfig, spec: StepSpec, use: Use) -> TreeCodec:
    return TreeCodec(TreeFrames(spec, MSGPACK, payload_fields(config, use.writes)), msgspec.msgpack.encode)


class TreeFrames:
    """Parts of a tree as frames: nested lists; of several inputs an object of those; with fields one level further down."""

    def __init__(self, spec: StepSpec, tree: Tree, fields: PayloadFields | None, objects: bool = False):
        """objects: of a single input too there may be an object by name, a dict."""
        self.inputs, self.tree, self.fields = spec.inputs, tree, fields
        self._objects, self._several = objects, len(self.inputs) > 1

    def one(self, part: Any) -> Frames:
        """Raises CodecError."""
        if self.fields is None:
            return self._frames(part)
        value, marks = self.fields.taken(self.tree, part)
        if value is None:
            arrays = dict(zip((t.name for t in self.inputs), no_rows(self.inputs), strict=True))
            return Frames(arrays, False, *marks)
        found = self._frames(value)
        return Frames(found.arrays, found.single, *marks)

    def many(self, size: int, parts: dict[int, Any], errors: dict[int, CodecError]) -> Decoded:
        """parts: by place, of `size` payloads; errors: of those that have none."""
        if self.fields is None:
            return self._many(size, parts, errors)
        marks: dict[int, Marks] = {}
        values: dict[int, Any] = {}
        for place, part in parts.items():
            try:
                value, marks[place] = self.fields.taken(self.tree, part)
            except CodecError as error:
                errors[place] = error
            else:
                if value is not None:
                    values[place] = value
        return self._marked(self._many(size, values, errors), marks)

    def _marked(self, found: Decoded, marks: Mapping[int, Marks]) -> Decoded:
        assert self.fields is not None
        places, size = np.fromiter(marks, np.int64, len(marks)), len(found.counts)
        if self.fields.end:
            found.ends = np.zeros(size, bool)
            found.ends[places] = [m.end for m in marks.values()]
        if self.fields.seq:
            found.seqs = np.full(size, NO_SEQ)
            found.seqs[places] = [NO_SEQ if m.seq is None else m.seq for m in marks.values()]
        if self.fields.time:
            found.times_ns = np.full(size, NO_TIME)
            found.times_ns[places] = [NO_TIME if m.time_ns is None else m.time_ns for m in marks.values()]
        return found

    def _frames(self, part: Any) -> Frames:
        if not self._named(part):
            array, single = self.tree.array(part, self.inputs[0])
            return Frames({self.inputs[0].name: array}, single)
        parts = self.tree.fields(part)
        names = [t.name for t in self.inputs]
        if set(parts) != set(names):
            raise CodecError(f"the object has {sorted(parts)}, the model has inputs {names}")
        found = {t.name: self.tree.array(parts[t.name], t) for t in self.inputs}
        lengths = {name: "one frame" if single else f"{len(a)} frames" for name, (a, single) in found.items()}
        if len(set(lengths.values())) > 1:
            raise CodecError(f"inputs have {lengths}, expected as many of each")
        return Frames({name: a for name, (a, _) in found.items()}, next(iter(found.values()))[1])

    def _named(self, part: Any) -> bool:
        return self._several or (self._objects and isinstance(part, dict))

    def _many(self, size: int, parts: Mapping[int, Any], errors: dict[int, CodecError]) -> Decoded:
        """All that are one frame become one array; the rest is decoded one by one, and says there what is wrong with it."""
        places, columns = self._single(parts)
        made = [frames_at_once(rows, t) for rows, t in zip(columns, self.inputs, strict=True)]
        even = [m for m in made if m is not None]
        if not places or len(even) < len(made):
            places, rows = [], no_rows(self.inputs)
        else:
            right = np.logical_and.reduce([ok for _, ok in even])
            rows = [array if right.all() else array[right] for array, _ in even]
            places = [place for place, ok in zip(places, right.tolist(), strict=True) if ok]
        done = set(places)
        others = (
            each({i: p for i, p in parts.items() if i not in done}, self._frames, errors)
            if len(done) < len(parts)
            else {}
        )
        return gathered(self.inputs, size, np.array(places, np.int64), rows, others, errors)

    def _single(self, parts: Mapping[int, Any]) -> tuple[list[int], list[list[Any]]]:
        """Places of what can be read as one frame of each input, and by input their nested lists."""
        read = [(self.tree.numbers(t.dtype, len(t.shape)), t.shape[0] if t.shape else None) for t in self.inputs]
        columns: list[list[Any]] = [[] for _ in self.inputs]
        places = []
        for place, part in parts.items():
            try:
                found = self._read(part, read)
            except (*UNREADABLE, _NotOne, KeyError):
                continue
            places.append(place)
            for column, values in zip(columns, found, strict=True):
                column.append(values)
        return places, columns

    def _read(self, part: Any, read: Sequence["_Read"]) -> list[Any]:
        if not self._named(part):
            return [_frame(part, *read[0])]
        named = self.tree.members(part)
        if len(named) != len(self.inputs):
            raise _NotOne
        return [_frame(named[t.name], *r) for t, r in zip(self.inputs, read, strict=True)]


_Read = tuple[Callable[[Any], Any], int | None]


class _NotOne(Exception):
    """It is not one frame, or not a right one."""


def _frame(part: Any, read: Callable[[Any], Any], length: int | None) -> Any:
    values = read(part)
    if length is not None and (len(values) != length or not values):
        raise _NotOne
    return values
