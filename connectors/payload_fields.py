"""What an object says beside its frames: that the stream ends, the number of the first frame, event time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ..engine.errors import CodecError, ConfigError
from .codec_config import FieldKeys, TimeUnit
from .times import parse_time_ns
from .trees import UNREADABLE, Tree

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Marks(NamedTuple):
    """As in `Record`."""

    end: bool = False
    seq: int | None = None
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PayloadFields:
    """The names in a payload that is an object; None of what it does not have."""

    value: str
    end: str | None
    seq: str | None
    time: str | None
    unit: TimeUnit
    ignore_others: bool

    @property
    def names(self) -> list[str]:
        return [n for n in (self.value, self.end, self.seq, self.time) if n is not None]

    def taken(self, tree: Tree, part: Any) -> tuple[Any | None, Marks]:
        """The frames' part, None where there are none; and what the others say. Raises CodecError."""
        parts = tree.fields(part)
        others = parts.keys() - set(self.names)
        if others and not self.ignore_others:
            raise CodecError(
                f"the payload has a field '{min(others)}', expected {self.names}; "
                'name the fields in codec (value_field, ..), or say extra_fields = "ignore"'
            )
        marks = Marks(
            flag(tree, parts, self.end), seq(tree, parts, self.seq), time_ns(tree, parts, self.time, self.unit)
        )
        value = parts.get(self.value)
        if value is None or tree.null(value):
            if not marks.end:
                ends = f" and does not end its stream ('{self.end}': true)" if self.end else ""
                raise CodecError(f"the payload has no '{self.value}'{ends}")
            return None, marks
        return value, marks


def payload_fields(config: FieldKeys, writes: bool) -> PayloadFields | None:
    """None where the payload is the frames alone. Raises ConfigError where a key would say nothing."""
    named = [key for key in ("value_field", "end_field", "seq_field", "time_field") if getattr(config, key)]
    given = [*named, *(key for key in ("time_unit", "extra_fields") if getattr(config, key))]
    if writes and given:
        raise ConfigError(f"[sink.codec] {given[0]}: is for payloads that are read; take it out")
    if config.time_unit and not config.time_field:
        raise ConfigError(
            "[source.codec] time_unit: is for time_field, which is not given; give it, or take time_unit out"
        )
    if config.extra_fields and not named:
        raise ConfigError(
            "[source.codec] extra_fields: no field is named, so a payload is its frames alone; give value_field"
        )
    if not named:
        return None
    names = [config.value_field or "value", *(n for n in (config.end_field, config.seq_field, config.time_field) if n)]
    if len(set(names)) < len(names):
        raise ConfigError(f"[source.codec] value_field, end_field, seq_field, time_field: {names} has a name twice")
    return PayloadFields(
        names[0], config.end_field, config.seq_field, config.time_field, config.time_unit or "s", config.extra_fields == "ignore"
    )  # fmt: skip


def flag(tree: Tree, parts: Mapping[str, Any], name: str | None) -> bool:
    part = _part(tree, parts, name)
    return False if part is None else tree.value(part, bool, f"'{name}'")


def seq(tree: Tree, parts: Mapping[str, Any], name: str | None) -> int | None:
    part = _part(tree, parts, name)
    if part is None:
        return None
    number = tree.value(part, int, f"'{name}'")
    if not 0 <= number < 2**63:
        raise CodecError(f"'{name}' is {number}, expected a frame's number, from 0 on")
    return number


def time_ns(tree: Tree, parts: Mapping[str, Any], name: str | None, unit: TimeUnit) -> int | None:
    part = _part(tree, parts, name)
    if part is None:
        return None
    try:
        at = tree.moment(part)
        return parse_time_ns(at, unit) if isinstance(at, str) else _since_1970_ns(at)
    except (CodecError, *UNREADABLE) as error:
        raise CodecError(f"'{name}': {error}") from error


def _part(tree: Tree, parts: Mapping[str, Any], name: str | None) -> Any | None:
    """None where the object has not the field, or says null."""
    part = None if name is None else parts.get(name)
    return None if part is None or tree.null(part) else part


def _since_1970_ns(at: datetime) -> int:
    """A datetime without a zone is in UTC."""
    ns = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1) * 1000
    if not -(2**63) <= ns < 2**63:
        raise CodecError(f"time {at} is outside of the years 1678 to 2262")
    return ns
