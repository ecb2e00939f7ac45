"""Logs on stderr: lines to read, or JSON Lines for a collector.

The program logs to loggers under "undertow" as any Python program does, an event's fields in `extra`:
`log.info("restored", extra={"partition": "frames/3", "rows": 1200})`. Nothing is configured at import; a program that embeds
a pipeline keeps its own logging, unless the pipeline's file has a table `[log]`.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from .config import LogConfig
from .secret import Secret

LOGGERS = {
    "undertow": logging.DEBUG,
    "aiokafka": logging.WARNING,
    "asyncio": logging.WARNING,
}  # the least of each that is shown
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def logging_to_stderr(
    config: LogConfig, pipeline: str, secrets: Iterable[str] = (), worker: int | None = None
) -> Iterator[None]:
    """While the block runs, what is logged goes to stderr, and to no other handler.

    secrets: texts that are replaced by `***` wherever they would appear, be it in another library's line. worker: which one
    of several this is; every line says it.
    """
    handler = logging.StreamHandler(_Stderr())
    kind = JsonLines if config.format == "json" else TextLines
    handler.setFormatter(kind(pipeline, secrets, worker))
    level = getattr(logging, config.level.upper())
    loggers = [(logging.getLogger(name), least) for name, least in LOGGERS.items()]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger, _ in loggers]
    for logger, least in loggers:
        logger.handlers[:] = [handler]
        logger.setLevel(max(level, least))
        logger.propagate = False
    try:
        yield
    finally:
        for logger, old, propagates, handlers in before:
            logger.handlers[:] = handlers
            logger.setLevel(old)
            logger.propagate = propagates


def secrets_of(settings: Any) -> Iterator[str]:
    """The secrets that a table of the pipeline file holds, at any depth."""
    if isinstance(settings, Secret):
        yield settings.reveal()
    elif isinstance(settings, msgspec.Struct):
        for name in settings.__struct_fields__:
            yield from secrets_of(getattr(settings, name))
    elif isinstance(settings, dict | list | tuple):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from secrets_of(value)


class _Stderr:
    """Whatever sys.stderr is when something is written."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class Lines(logging.Formatter):
    """What the two formats share: time, fields, and what must not be shown."""

    def __init__(self, pipeline: str, secrets: Iterable[str] = (), worker: int | None = None):
        super().__init__()
        self.pipeline, self.worker = pipeline, worker
        self.secrets = sorted({s for s in secrets if s}, key=len, reverse=True)

    def shown(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text.encode(errors="backslashreplace").decode()  # names of files may hold what UTF-8 has not

    def value(self, value: Any) -> Any:
        """A field as JSON has it: numbers and texts as they are, the insides of lists and tables likewise, all else as text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self.shown(str(k)): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(v) for v in value]
        return self.shown(value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value))

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What `extra` said."""
        return {name: self.value(value) for name, value in vars(record).items() if name not in _OWN}

    def error(self, record: logging.LogRecord) -> str | None:
        """The traceback, where there is one."""
        return self.shown(self.formatException(record.exc_info)) if record.exc_info and record.exc_info[0] else None


class JsonLines(Lines):
    """One object a line: time (ISO 8601, UTC), level, logger, pipeline, worker of several, message, the event's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pipeline": self.pipeline,
            **({} if self.worker is None else {"worker": self.worker}),
            "message": self.shown(record.getMessage()),
        }
        fields = {f"{name}_" if name in line else name: value for name, value in self.fields(record).items()}
        error = self.error(record)
        return msgspec.json.encode({**line, **fields, **({"exception": error} if error else {})}).decode()


class TextLines(Lines):
    """`2026-01-01T00:00:00.000Z INFO undertow.kafka: restored  partition=frames/3 rows=1200`, then the traceback.

    One of several workers says `undertow.kafka: worker 1: restored`.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in self.fields(record).items())
        message = self.shown(record.getMessage())
        who = "" if self.worker is None else f"worker {self.worker}: "
        line = f"{_time(record)} {record.levelname} {record.name}: {who}{message}{'  ' if fields else ''}{fields}"
        error = self.error(record)
        return f"{line}\n{error}" if error else line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: Any) -> str:
    """A field's value as one word: JSON where it has blanks or quotes."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    plain = isinstance(value, str) and value and not any(c.isspace() or c in '"=' for c in value)
    return text if plain or not isinstance(value, str) else msgspec.json.encode(value).decode()
