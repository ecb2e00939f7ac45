"""docs/pipelines.md says every key that there is, with its default and words, and what it shows works."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.inspect import Field, LiteralType, Metadata, StructType, Type, UnionType, type_info

from undertow.connectors.codec_config import CodecConfig
from undertow.connectors.config import Pipeline, StageConfig, read_pipeline
from undertow.connectors.kafka.config import SecurityConfig
from undertow.connectors.summary import Summary
from undertow.demo import excerpt
from undertow.engine.chain_config import Gate

from .codec_cases import codec_of
from .file_cases import spec_of

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(TEXT) if found == kind]


def structs(kind: Type) -> list[StructType]:
    kinds = kind.types if isinstance(kind, UnionType) else (kind.type if isinstance(kind, Metadata) else kind,)
    return [k for k in kinds if isinstance(k, StructType)]


def tables() -> dict[str, list[Field]]:
    """The keys of each table that the program reads, by the heading under which the page has them."""
    (pipeline,) = structs(type_info(Pipeline))
    (security,) = structs(type_info(SecurityConfig))
    found = {"the file": [f for f in pipeline.fields if not structs(f.type)]}
    found |= {f'`codec` type = "{struct.tag}"': list(struct.fields) for struct in structs(type_info(CodecConfig))}
    found["`security`"] = list(security.fields)
    (stage,), (gate,) = structs(type_info(StageConfig)), structs(type_info(Gate))
    found |= {"`[[model.stages]]`": list(stage.fields), "`gate`": list(gate.fields)}
    for field in pipeline.fields:
        for struct in structs(field.type):
            tag = f' {struct.tag_field} = "{struct.tag}"' if struct.tag_field else ""
            found[f"`[{field.encode_name}]{tag}`"] = list(struct.fields)
    return found


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: the cells of each key."""
    section = HEADING.split(TEXT)
    body = section[section.index(heading) + 1]
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in body.splitlines() if line[:3] == "| `"
    ]
    return {cells[0].strip("`"): cells for cells in lines}


@pytest.mark.parametrize("heading", tables())
def test_every_key_is_there_and_no_other(heading: str) -> None:
    """The page's table of a table has its keys, no others; each key's default, and the words that it takes."""
    said, known = rows(heading), {f.encode_name: f for f in tables()[heading]}
    assert list(said) == list(known)
    for name, field in known.items():
        _, _, default, meaning = said[name]
        assert field.required == (default == "needed"), name
        if field.default is not msgspec.NODEFAULT and field.default is not None:
            shown = tomllib.loads(f"x = {default.strip('`')}")["x"]
            assert msgspec.convert(shown, type(field.default)) == field.default, name
        missing = [word for word in words(field.type) if f'"{word}"' not in f"{default} {meaning}"]
        assert not missing, f"{heading} {name}: the page does not say {missing}"


def words(kind: Type) -> list[Any]:
    kinds = kind.types if isinstance(kind, UnionType) else (kind,)
    return [word for k in kinds if isinstance(k, LiteralType) for word in k.values]


def test_no_table_is_of_what_there_is_not() -> None:
    """Every heading of keys is one that the program reads."""
    assert {h for h in HEADING.findall(BLOCK.sub("", TEXT)) if rows(h)} <= tables().keys()
    assert {f.name for f in fields(Summary)} <= set(re.findall(r"`(\w+)`", TEXT.split("## The summary")[1]))


def test_the_settings_are_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of settings is read as a pipeline."""
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    names = []
    for block in blocks("toml"):
        (tmp_path / "pipeline.toml").write_text(block)
        names.append(read_pipeline(tmp_path / "pipeline.toml").pipeline.name)
    assert names == ["motion", "pipe", "speech", "secured"]


def undertow(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("undertow"), "run", *arguments]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `undertow demo` leaves, and the page's first two files."""
    shutil.copytree(excerpt(), tmp_path / "undertow-demo")
    (tmp_path / "motion.csv").write_text(blocks("csv")[0])
    (tmp_path / "pipeline.toml").write_text(blocks("toml")[0])
    return tmp_path


def test_files_in_files_out(folder: Path) -> None:
    """The first example writes what the page shows, within what backends may differ by, and again adds nothing."""
    undertow(folder, "pipeline.toml")
    lines = [msgspec.json.decode(line) for line in (folder / "activities.jsonl").read_text().splitlines()]
    shown = [msgspec.json.decode(line) for line in blocks("jsonl")[0].splitlines()]
    assert [line.pop("confidence") for line in lines] == pytest.approx([s.pop("confidence") for s in shown], abs=1e-4)
    assert lines == shown
    again = undertow(folder, "pipeline.toml")
    assert f"goes on from {folder / 'motion.state'}\nnothing was new: " in again.stderr
    assert len((folder / "activities.jsonl").read_text().splitlines()) == len(shown)


def test_the_code_prints_what_it_says(folder: Path) -> None:
    """The embedded example runs."""
    (block,) = blocks("python")
    said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=folder / "undertow-demo", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said
    assert done.stdout.splitlines() == said


def test_lines_are_json() -> None:
    """Every line that the page shows is an object."""
    for block in blocks("json"):
        assert all(isinstance(msgspec.json.decode(line), dict) for line in block.splitlines())


def test_the_payloads_are_payloads() -> None:
    """What the page shows as payloads is read by the codec with the keys that it says, and so is its Avro schema."""
    bare = codec_of("json", spec_of(3)).decode_many([line.encode() for line in blocks("payloads")[0].splitlines()])
    assert bare.counts.tolist() == [1, 2]
    (shown,) = re.findall(r"^With `(value_field = .*)` every payload", TEXT, re.MULTILINE)
    (objects,) = [block for block in blocks("json") if '"x"' in block]
    keys = tomllib.loads(f"codec = {{ {shown} }}")["codec"]
    found = codec_of("json", spec_of(3), **keys).decode_many([line.encode() for line in objects.splitlines()])
    assert (found.errors, found.counts.tolist(), found.ends.tolist()) == ({}, [1, 2, 0], [False, False, True])
    (schema,) = re.findall(r'`(\{"type": "record".*?\]\})`', TEXT, re.DOTALL)
    codec_of("avro", spec_of(3), schema=schema)
