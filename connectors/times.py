"""Event times: nanoseconds since 1970 in int64, read from and written as text without losing any of them."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from ..engine.errors import CodecError, ConfigError
from .codec_config import TimeUnit
from .files_config import FilesSourceConfig

_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s*([Zz]|[+-]\d\d:?\d\d)?|(\d{4}-\d\d-\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT = 2**63


def parse_time_ns(text: str, unit: TimeUnit = "s") -> int:
    """ISO 8601 (UTC where it names no zone) or a number of `unit` since 1970. Raises CodecError."""
    text = text.strip()
    found = _ISO.fullmatch(text)
    try:
        ns = _iso_ns(found) if found else int((Decimal(text) * _UNIT_NS[unit]).to_integral_value())
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise CodecError(f"{text!r:.80} is not a time: expected ISO 8601 or a number of {unit} since 1970") from error
    if not -_LIMIT <= ns < _LIMIT:
        raise CodecError(f"time {text!r:.80} is outside of the years 1678 to 2262; is the unit '{unit}' right?")
    return ns


def _iso_ns(found: re.Match[str]) -> int:
    seconds, fraction, zone, day = found.groups()
    at = datetime.fromisoformat(
        (day or seconds).upper() + ("+00:00" if zone in (None, "Z", "z") and not day else zone or "")
    )
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return (at - _EPOCH) // timedelta(seconds=1) * 10**9 + int((fraction or "").ljust(9, "0"))


def format_time(ns: int) -> str:
    """ISO 8601 in UTC, with as many groups of three decimals as it needs."""
    seconds, rest = divmod(ns, 10**9)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{rest:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def start_time_ns(config: FilesSourceConfig) -> int:
    """Of a file's first frame: 1970 where the pipeline does not say."""
    try:
        return parse_time_ns(config.start_time) if config.start_time else 0
    except CodecError as error:
        raise ConfigError(f"[source] start_time: {error}") from error


class FrameClock:
    """When a frame of a steadily sampled file is: from `start_ns` on by the rate, without drift."""

    def __init__(self, rate_hz: float | Fraction, start_ns: int):
        self.period, self.start_ns = Fraction(10**9) / Fraction(rate_hz), start_ns

    @property
    def frame_ns(self) -> int:
        return round(self.period)

    def at(self, frame: int) -> int:
        return self.start_ns + frame * self.period.numerator // self.period.denominator
