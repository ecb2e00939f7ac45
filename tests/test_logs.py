"""Logs: what a line holds in each format, what is never in one, and that an embedding program keeps its own."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.config import LogConfig
from undertow.connectors.logs import JsonLines, TextLines, logging_to_stderr, secrets_of
from undertow.connectors.memory import MemorySink, MemorySource
from undertow.connectors.running import run
from undertow.connectors.secret import Secret

from .pipelines import cut, pipeline, streams

log = logging.getLogger("undertow.test")
UNDERTOW = Path(sys.executable).parent / "undertow"
JSON = LogConfig(format="json")


def lines(capsys: pytest.CaptureFixture[str], config: LogConfig, say: Callable[[], None], *secrets: str) -> list[str]:
    with logging_to_stderr(config, "pumps", secrets):
        say()
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_says_which_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """One of several says its number in every line of either format, and a field of the same name gives way."""
    for config in (JSON, LogConfig()):
        with logging_to_stderr(config, "pumps", worker=1):
            log.info("restored", extra={"worker": "mine"})
    as_json, text = capsys.readouterr().err.splitlines()
    line = json.loads(as_json)
    assert (line["worker"], line["worker_"], line["message"]) == (1, "mine", "restored")
    assert text.endswith(" INFO undertow.test: worker 1: restored  worker=mine")


def test_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is an object with time, level, logger, pipeline, message and the event's fields, of JSON's types."""

    def say() -> None:
        fields = {
            "rows": 1200,
            "share": 0.5,
            "key": b"pump\xff",
            "parts": {("t", 1), ("t", 1)},
            "more": {"path": Path("/x")},
        }
        log.info("restored %s", "frames/3", extra={**fields, "time": "mine"})

    (line,) = map(json.loads, lines(capsys, JSON, say))
    at = datetime.fromisoformat(line.pop("time"))
    assert at.utcoffset() is not None
    assert not at.utcoffset()
    assert abs((datetime.now(at.tzinfo) - at).total_seconds()) < 60
    assert line == {
        "level": "info",
        "logger": "undertow.test",
        "pipeline": "pumps",
        "message": "restored frames/3",
        "rows": 1200,
        "share": 0.5,
        "key": "pump\\xff",
        "parts": [["t", 1]],
        "more": {"path": "/x"},
        "time_": "mine",
    }


def test_a_line_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger, message, then the fields; one with blanks is quoted, a number is not."""

    def say() -> None:
        log.warning("fenced", extra={"partition": "frames/3", "by": "the next one", "rows": 3, "none": None})

    (line,) = lines(capsys, LogConfig(), say)
    assert datetime.fromisoformat(line.split(" ")[0]).year > 2000
    assert line.split(" ", 1)[1] == (
        'WARNING undertow.test: fenced  partition=frames/3 by="the next one" rows=3 none=null'
    )


def test_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is a field of the line in JSON, and follows the line in text."""

    def say() -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("failed")

    (line,) = map(json.loads, lines(capsys, JSON, say))
    assert line["message"] == "failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: broken")
    first, *rest = lines(capsys, LogConfig(), say)
    assert first.endswith("ERROR undertow.test: failed")
    assert (rest[0][:9], rest[-1]) == ("Traceback", "ValueError: broken")


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(capsys: pytest.CaptureFixture[str], level: Any, shown: int) -> None:
    """What is below the level is not shown; of aiokafka and asyncio never less than warnings."""

    def say() -> None:
        for logger in (log, logging.getLogger("aiokafka.conn"), logging.getLogger("asyncio")):
            for n in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logger.log(n, "said")

    config = LogConfig(format="json", level=level)
    loggers = [json.loads(line)["logger"] for line in lines(capsys, config, say)]
    assert [loggers.count(name) for name in ("undertow.test", "aiokafka.conn", "asyncio")] == [
        shown,
        *[min(shown, 2)] * 2,
    ]


def leaky(secret: str) -> None:
    """Says a secret in every way there is."""
    other = logging.getLogger("aiokafka")
    log.info(
        "password %s",
        secret,
        extra={"password": secret, "inside": {"list": [secret], secret: 1}, "raw": secret.encode()},
    )
    other.warning(f"connecting as admin:{secret}@host")
    try:
        raise RuntimeError(secret)
    except RuntimeError:
        log.exception("failed")


@pytest.mark.parametrize("secret", ["hunter2-hunter2", 'quo"te\\and\nline', "schlüssel"])
@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets(capsys: pytest.CaptureFixture[str], format: Any, secret: str) -> None:
    """A secret appears in no line, whoever says it, be it in a traceback or with characters that a format writes otherwise."""
    written = "\n".join(lines(capsys, LogConfig(format=format), lambda: leaky(secret), secret))
    assert secret not in written
    assert json.dumps(secret)[1:-1] not in written
    assert msgspec.json.encode(secret).decode()[1:-1] not in written
    assert written.count("***") == 7


def test_secrets_of_a_pipeline() -> None:
    """Secrets are found wherever a table holds them."""

    class Security(msgspec.Struct):
        password: str
        more: dict[str, list[str]]
        name: str = "admin"

    class Source(msgspec.Struct):
        security: Security | None

    found = Source(Security(Secret("one"), {"a": [Secret("two"), "three"]}))
    assert sorted(secrets_of(found)) == ["one", "two"]
    assert {type(s) for s in secrets_of(found)} == {str}
    assert list(secrets_of(Source(None))) == []


@given(
    st.dictionaries(
        st.text(min_size=1), st.one_of(st.text(), st.floats(), st.binary(), st.integers(-(2**63), 2**63 - 1))
    )
)
def test_any_fields(fields: dict[str, Any]) -> None:
    """Whatever an event's fields are called and hold, a line is one line of valid JSON, and one line to read."""
    record = logging.makeLogRecord({"name": "undertow", "msg": "said", "levelname": "INFO"})
    vars(record).update({f"x{name}": value for name, value in fields.items()})
    line = JsonLines("pumps").format(record)
    assert "\n" not in line
    assert len(json.loads(line)) == 5 + len(fields)
    assert TextLines("pumps").format(record).count("\n") == sum(name.count("\n") for name in fields)


def test_a_name_that_is_not_utf8() -> None:
    """The name of a file that is not UTF-8 can be logged."""
    record = logging.makeLogRecord({"name": "undertow", "msg": "read", "levelname": "INFO", "file": "a\udcff.npy"})
    assert json.loads(JsonLines("pumps").format(record))["file"] == "a\\udcff.npy"


def test_an_embedding_program_keeps_its_logging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `[log]` a run's events go where the program's do; with it to stderr alone, and afterwards all is as it was."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    caplog.set_level(logging.INFO)
    records = cut(streams(1, ["a"]), seed=1)
    run(pipeline(tmp_path / "a"), source=MemorySource(records), sink=MemorySink())
    assert [r.message for r in caplog.records if r.name == "undertow.run"] == ["starts", "ended"]
    assert capsys.readouterr().err == ""
    before = vars(logging.getLogger("undertow")).copy()
    caplog.clear()
    placed = pipeline(tmp_path / "b", tables='[log]\nformat = "json"\n')
    run(placed, source=MemorySource(records), sink=MemorySink())
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(s["message"], s["pipeline"]) for s in said] == [("starts", "test"), ("ended", "test")]
    assert said[1]["records"] == len(records)
    assert not caplog.records
    after = vars(logging.getLogger("undertow"))
    assert {k: after[k] for k in ("level", "propagate", "handlers")} == {
        k: before[k] for k in ("level", "propagate", "handlers")
    }


FILES = """
name = "logged"
model.path = "model.onnx"
model.backend = "numba"
source = {{ type = "files", path = "{}" }}
sink = {{ type = "files", path = "out.jsonl" }}
log = {{ format = "json" }}
"""


def test_the_command_logs_json_alone(tmp_path: Path) -> None:
    """With `format = "json"` every line on stderr is JSON, from the start to the summary, and so is the error of a run that fails."""
    pipeline(tmp_path)
    np.save(tmp_path / "in.npy", np.zeros((50, 3), np.float32))
    for path, status, last in (("in.npy", 0, "ended"), ("gone.npy", 1, "gone.npy")):
        (tmp_path / "logged.toml").write_text(FILES.format(path))
        done = subprocess.run(
            [UNDERTOW, "run", "logged.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        said = [json.loads(line) for line in done.stderr.splitlines()]
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert last in said[-1]["message"]
        assert said[-1]["level"] == ("error" if status else "info")
    assert said[-1]["error"] == "ConnectorError"
