"""Pipeline files: what is wrong is refused with table, key, what was got and what is allowed."""

import asyncio
import re
from pathlib import Path

import pytest

import undertow as ut
from undertow.connectors.config import read_pipeline
from undertow.connectors.files_config import FilesSinkConfig, FilesSourceConfig
from undertow.connectors.files_sink import FilesSink
from undertow.connectors.input_files import find_files

from .step_graph import lookahead_step

GOOD = """
name = "activity"
[model]
path = "m.onnx"
max_streams = 100_000
[source]
type = "files"
path = "in"
[policy]
idle_timeout_s = 600
[decode]
type = "labels"
[sink]
type = "files"
path = "${OUT}/a.jsonl"
[delivery]
checkpoint_interval_s = 30
"""


def read(folder: Path, text: str, **environ: str) -> object:
    (folder / "pipeline.toml").write_text(text)
    return read_pipeline(folder / "pipeline.toml", environ)


def test_a_whole_file(tmp_path: Path) -> None:
    """Values, defaults, the environment, and paths relative to the file, wherever the process is."""
    placed = read(tmp_path, GOOD, OUT="there")
    assert placed.pipeline.sink.path == "there/a.jsonl"
    assert placed.pipeline.model.max_streams == 100_000
    assert (placed.pipeline.policy.bad_record, placed.pipeline.policy.gap) == ("stop", "error")
    assert placed.pipeline.delivery.guarantee == "exactly-once"
    assert placed.store_path == tmp_path / "activity.state"
    assert placed.path("m.onnx") == tmp_path / "m.onnx"
    assert placed.path("/m.onnx") == Path("/m.onnx")


def test_a_literal_dollar(tmp_path: Path) -> None:
    """`$${NAME}` is the text `${NAME}`, a lone dollar is itself, and a value is not looked into again."""
    text = GOOD.replace("${OUT}/a.jsonl", "$${OUT}/$5-${X}.jsonl")
    assert read(tmp_path, text, X="${Y}").pipeline.sink.path == "${OUT}/$5-${Y}.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[sink]", "[sink]\npaht = 1", "pipeline.toml: [sink] unknown key 'paht'; expected one of: type, path, .*; did you mean 'path'?"),
        ("[delivery]", "[delivry]", "pipeline.toml: unknown key 'delivry'; expected one of: name, .*; did you mean 'delivery'?"),
        ('type = "labels"', 'type = "label"', "[decode] type = 'label' is not known; this version knows: anomaly, ctc, generate, labels, mean, quantiles, raw, threshold; did you mean 'labels'?"),
        ('"files"\npath = "in"', '"socket"\nport = 1', "[source] type = 'socket' is not known; this version knows: files, kafka, memory, stdin"),
        ('type = "files"\npath = "in"', 'path = "in"', "[source] has no key 'type'; add it; this version knows: files, kafka, memory, stdin"),
        ("100_000", "0", "[model] max_streams is 0: expected `int` >= 1"),
        ("100_000", '"many"', "[model] max_streams is 'many': expected `int`, got `str`"),
        ("600", "0", "[policy] idle_timeout_s is 0: expected `float` > 0"),
        ("[policy]", '[policy]\ngap = "skip"', "[policy] gap is 'skip': invalid enum value 'skip'; expected one of: error, hold, interpolate, reset, zero"),
        ('path = "in"', 'path = "in"\nrate = "slow"', "[source] rate is 'slow': invalid enum value 'slow'; expected one of: fast, recorded, a number"),
        ("${OUT}", "${NOWHERE}", "[sink] path: the environment variable 'NOWHERE' is not set; set it"),
        ("[policy]", '[policy]\nbad_record = "dead-letter"', "[policy] bad_record is 'dead-letter' and there is no table [dead_letters]"),
        ("[policy]", '[dead_letters]\npath = "d"\n[policy]', "[dead_letters] is given and [policy] bad_record is 'stop'"),
        ('path = "m.onnx"\n', "", "[model] has neither of path and stages; give path, of one model, or [[model.stages]], of a chain"),
        ('[model]\npath = "m.onnx"\nmax_streams = 100_000', "", "the file has no table [model]; add it"),
        ('"activity"', '"a/b"', "name is 'a/b': expected `str` matching regex"),
        ("[model]", '[model]\nproviders = ["CPUExecutionProvider"]\nbackend = "numba"', "[model] providers are for ONNX Runtime"),
        ("[model]", "[model", "pipeline.toml: is not valid TOML: .*line 3"),
        ("[model]", '[model]\nproviders = ["a", 1]', "[model.providers] 1 is 1: expected `str`, got `int`"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each says where in the file, what is there, and what is allowed."""
    assert old in GOOD
    parts = [re.escape(p) for p in message.split(".*")]
    with pytest.raises(ut.ConfigError, match=".*".join(parts)):
        read(tmp_path, GOOD.replace(old, new), OUT="there")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing pipeline file, and one that is not text, are errors that say so."""
    with pytest.raises(ut.ConfigError, match=r"none.toml: cannot be read \(No such file"):
        read_pipeline(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ut.ConfigError, match="is not UTF-8"):
        read_pipeline(tmp_path / "b.toml")


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home folder in the paths of source and sink, as in the others."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.npy").write_bytes(b"")
    for pattern in ("~/in", "~/in/*.npy", "~/in/a.npy"):
        _, files = find_files(FilesSourceConfig(path=pattern), tmp_path / "elsewhere")
        assert [f.path for f in files] == [tmp_path / "in" / "a.npy"]
    sink = FilesSink(FilesSinkConfig(path="~/out/a.jsonl"), tmp_path / "elsewhere", lookahead_step(2).spec)
    asyncio.run(sink.open({}))
    assert (tmp_path / "out" / "a.jsonl").exists()
    asyncio.run(sink.close())
