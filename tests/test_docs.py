"""docs/pipelines.md says every key that there is, and what it shows works."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from undertow.connectors.config import Pipeline, read_pipeline
from undertow.demo import excerpt

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def keys(kind: object) -> set[str]:
    """Every key of a config type and of the tables in it."""
    info = msgspec.inspect.type_info(kind)
    return named(info)


def named(info: msgspec.inspect.Type) -> set[str]:
    if isinstance(info, msgspec.inspect.StructType):
        return {f.encode_name for f in info.fields}.union(*(named(f.type) for f in info.fields))
    inner = info.types if isinstance(info, msgspec.inspect.UnionType) else ()
    return set().union(*map(named, inner)) if inner else set()


def test_every_key_is_there_and_no_other() -> None:
    """The keys in the page's tables are the keys that the program reads."""
    rows = re.findall(r"^\| (`[^|]+) \|", TEXT, re.MULTILINE)
    said = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    tables = {f.encode_name for f in msgspec.inspect.type_info(Pipeline).fields} - {"name"}
    wanted = keys(Pipeline) - tables
    assert wanted - {"path", "codec", "type"} <= said
    assert said <= wanted
    assert all(f"`[{table}]" in TEXT for table in tables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(excerpt(), tmp_path / "undertow-demo")


def test_the_pipeline_is_one(folder: Path) -> None:
    """The page's pipeline file runs in the folder that it names."""
    (block,) = [text for kind, text in BLOCK.findall(TEXT) if kind == "toml"]
    assert tomllib.loads(block)
    (folder / "mine.toml").write_text(block)
    assert read_pipeline(folder / "mine.toml").pipeline.name == "activity"
    command = [Path(sys.executable).with_name("undertow"), "run", "mine.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (folder / "answers.jsonl").read_text().splitlines()
    assert len({msgspec.json.decode(line)["stream"] for line in lines}) == 14


def test_the_code_prints_what_it_says(folder: Path) -> None:
    """The embedded example runs."""
    (block,) = [text for kind, text in BLOCK.findall(TEXT) if kind == "python"]
    said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said
