"""The files sink: every format read back gives the answers; whatever was written past a commit is cut as if it never was."""

import csv
import os
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.files_config import FilesSinkConfig
from undertow.connectors.files_sink import MARK
from undertow.connectors.output_files import OutputFiles
from undertow.connectors.records import Answer
from undertow.engine.artifact import StepSpec, TensorSpec
from undertow.engine.errors import CodecError, ConfigError, ConnectorError

from .file_cases import answer, sink_of, spec_of, write

S = 10**9
FORMATS = ["jsonl", "csv", "npy", "wav"]


def chunk(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)


def back(path: Path, name: str, columns: int = 2) -> np.ndarray:
    """The values (T, columns) in a file of one stream."""
    if name == "npy":
        return np.load(path)
    if name == "wav":
        return soundfile.read(path, dtype="float32")[0].reshape(-1, columns)
    if name == "csv":
        rows = list(csv.reader(path.read_text().splitlines()))[1:]
        return np.array([[float(x) for x in row[4:]] for row in rows], np.float32).reshape(-1, columns)
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return np.array([line["y"] for line in lines], np.float32).reshape(-1, columns)


def lines(path: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(tmp_path: Path, name: Any) -> None:
    """What is read back from a stream's file is what was answered, bit for bit, over several commits."""
    parts = [chunk(n, n) for n in (3, 1, 4)]
    batches = [[answer("a", 0, y=p), answer("b", 0, y=-p)] for p in parts]
    lengths = write(sink_of(tmp_path, spec_of(2, rate_hz=100), "out", format=name), *batches)
    assert lengths == {f"{k}.{name}": (tmp_path / "out" / f"{k}.{name}").stat().st_size for k in "ab"}
    whole = np.concatenate(parts)
    np.testing.assert_array_equal(back(tmp_path / "out" / f"a.{name}", name), whole)
    np.testing.assert_array_equal(back(tmp_path / "out" / f"b.{name}", name), -whole)


@pytest.mark.parametrize("name", FORMATS)
def test_every_byte_past_the_commit_is_cut(tmp_path: Path, name: Any) -> None:
    """A file that ends at any byte past what was committed, its header rewritten or not, goes on as an uninterrupted one."""
    spec, path = spec_of(2, rate_hz=100), tmp_path / "out" / f"a.{name}"
    first, second, third = ([answer("a", 2 * i, y=chunk(2, i))] for i in range(3))
    write(sink_of(tmp_path, spec, "out", format=name), first, second, third)
    whole = path.read_bytes()
    write(sink_of(tmp_path, spec, "out", format=name), first)
    committed = write(sink_of(tmp_path, spec, "out", format=name), first)
    start = path.read_bytes()
    assert committed == {path.name: len(start)}
    write(sink_of(tmp_path, spec, "out", format=name), second, lengths=committed)
    longer = path.read_bytes()
    assert len(longer) > len(start)
    header = {"npy": 256, "wav": 58}.get(name, 0)
    for size in range(len(start), len(longer) + 1):
        for head in (start[:header], longer[:header]) if header else (b"",):
            path.write_bytes(head + longer[len(head) : size])
            write(sink_of(tmp_path, spec, "out", format=name), second, third, lengths=committed)
            assert path.read_bytes() == whole, f"cut at {size}"


@pytest.mark.parametrize("name", FORMATS)
def test_without_lengths_nothing_whole_is_cut(tmp_path: Path, name: Any) -> None:
    """Opened without lengths (at-least-once), a file that ends at any byte keeps its whole rows, and new ones come after."""
    spec, path = spec_of(rate_hz=100), tmp_path / "out" / f"a.{name}"
    values = lambda: back(path, name, 1).ravel().tolist()  # noqa: E731
    write(sink_of(tmp_path, spec, "out", format=name), [answer("a", i, y=np.float32([i])) for i in range(4)])
    whole = path.read_bytes()
    header = {"npy": 256, "wav": 58, "csv": whole.find(b"\n") + 1}.get(name, 0)
    for size in range(header, len(whole) + 1):
        path.write_bytes(whole[:size])
        rows = [whole[header:size].count(b"\n"), (size - header) // 4][name in ("npy", "wav")]
        write(sink_of(tmp_path, spec, "out", format=name), [answer("a", 9, y=np.float32([9]))], going_on=True)
        assert values() == [*range(rows), 9], f"cut at {size}"


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_one_file_for_all(tmp_path: Path, name: str) -> None:
    """A .jsonl or .csv file has the lines of all streams in the order written, and is cut to its committed length."""
    path = tmp_path / "deep" / f"out.{name}"
    make = lambda: sink_of(tmp_path, spec_of(), f"deep/out.{name}")  # noqa: E731
    first, second = [answer("a", 0, y=[1.0]), answer("b", 0, y=[2.0])], [answer("a", 1, y=[3.0])]
    committed = write(make(), first)
    start = path.read_bytes()
    write(make(), second, lengths=committed)
    whole = path.read_bytes()
    assert whole.startswith(start)
    assert len(whole.splitlines()) == 3 + (name == "csv")
    for size in range(len(start), len(whole) + 1):
        path.write_bytes(whole[:size])
        assert write(make(), second, lengths=committed) == {path.name: len(whole)}
        assert path.read_bytes() == whole
    with pytest.raises(ConnectorError, match=r"knows of no run that wrote them; move the file away"):
        write(make())
    assert path.read_bytes() == whole, "what no commit names may be someone else's"
    assert write(make(), lengths={path.name: 0}) == {path.name: 0}
    assert path.read_bytes() == b""


def test_what_a_line_says(tmp_path: Path) -> None:
    """Stream, step, time of each output, source, then the values: arrays, scalars and text."""
    at = 1709208000 * S + 20 * 10**6
    answers = [
        answer("é", 7, source="in/40", at=at, gap=20 * 10**6, label=["walk", "run"], p=np.float64([0.5, 1.0]), y=[[1, 2], [3, 4]]),
        answer(3, 0, label=["x"], p=np.float64([np.nan]), y=[[0, 0]]),
        answer("z", 0, at=at, label=["x", "x"], p=np.float64([0, np.inf]), y=[[0, 0], [0, 0]]),
        answer("nothing", 0, label=[], p=[], y=np.zeros((0, 2))),
    ]  # fmt: skip
    write(sink_of(tmp_path, spec_of(2), "out.jsonl"), answers)
    first, second, third, fourth, fifth = lines(tmp_path / "out.jsonl")
    assert list(first) == ["stream", "step", "time", "source", "label", "p", "y"]
    assert first == {
        "stream": "é", "step": 7, "time": "2024-02-29T12:00:00.020Z", "source": "in/40", "label": "walk", "p": 0.5, "y": [1, 2],
    }  # fmt: skip
    assert (second["step"], second["time"], second["label"]) == (8, "2024-02-29T12:00:00.040Z", "run")
    assert third == {"stream": 3, "step": 0, "source": "in/0", "label": "x", "p": "NaN", "y": [0, 0]}
    assert fourth["time"] == "2024-02-29T12:00:00.020Z"
    assert "time" not in fifth, "of the second output the time is not known"
    assert fifth["p"] == "Infinity"


def test_times_of_subsampled_outputs(tmp_path: Path) -> None:
    """Where a step takes K frames and gives M outputs, outputs are K/M frames apart."""
    tensor = (TensorSpec("y", (), "float32"),)
    spec = StepSpec((TensorSpec("x", (), "float32"),), tensor, (), frames_per_step=4, outputs_per_step=1)
    write(sink_of(tmp_path, spec, "out.jsonl"), [answer("a", 0, at=0, gap=S, y=[0.0, 1.0])])
    assert [line["time"] for line in lines(tmp_path / "out.jsonl")] == ["1970-01-01T00:00:00Z", "1970-01-01T00:00:04Z"]


def test_csv_columns(tmp_path: Path) -> None:
    """A column for each element, text quoted as needed; answers that would change the columns are refused, after a resume too."""
    make = lambda: sink_of(tmp_path, spec_of(2), "out.csv")  # noqa: E731
    committed = write(make(), [answer('a,"b\n', 0, label=["x"], y=np.float32([[0.5, 1]]), m=np.zeros((1, 1, 2)))])
    head, row = csv.reader((tmp_path / "out.csv").read_text().splitlines(keepends=True))
    assert head == ["stream", "step", "time", "source", "label", "y[0]", "y[1]", "m[0,0]", "m[0,1]"]
    assert row == ['a,"b\n', "0", "", "in/0", "x", "0.5", "1.0", "0.0", "0.0"]
    with pytest.raises(ConnectorError, match="its header is"):
        write(make(), [answer("a", 1, y=[[1.0, 2.0]])], lengths=committed)
    with pytest.raises(ConnectorError, match="its header is"):
        write(make(), [answer("a", 1, y=[[1.0, 2.0]]), answer("a", 1, z=[[1.0, 2.0]])], lengths={"out.csv": 0})


def test_lists_of_words(tmp_path: Path) -> None:
    """Lists, as a decoder's words are, are lists in a line and JSON in a cell; a file of numbers names the output that has them."""
    words = np.empty(1, object)
    words[0] = [{"word": 'the "x"', "begin": 0}, {"word": "é", "begin": 2}]
    for name in ("jsonl", "csv"):
        write(sink_of(tmp_path, spec_of(2), f"out.{name}"), [answer("a", 0, text=["the é"], words=words)])
    assert lines(tmp_path / "out.jsonl")[0]["words"] == words[0]
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert msgspec.json.decode(row["words"]) == words[0]
    with pytest.raises(ConnectorError, match="output 'words' is lists, expected numbers"):
        write(sink_of(tmp_path, spec_of(2), "folder", format="npy", value="words"), [answer("a", 0, words=words)])


def test_keys_that_are_bytes(tmp_path: Path) -> None:
    """Bytes that are UTF-8 are text; others are base64, marked so that no text means the same."""
    keys: list[Any] = ["ключ".encode(), b"\xff\x00", "base64:/wA="]
    write(sink_of(tmp_path, spec_of(), "out.jsonl"), [answer(k, 0, y=[1.0]) for k in keys])
    assert [line["stream"] for line in lines(tmp_path / "out.jsonl")] == ["ключ", {"base64": "/wA="}, "base64:/wA="]


def test_names_of_files(tmp_path: Path) -> None:
    """Any stream name is one visible file in the folder: separators, dots, spaces, unicode, emptiness and great length."""
    names = [
        "a b",
        "../up",
        "x/y",
        ".",
        "..",
        ".hidden",
        "",
        "Ключ",
        "%",
        "%41",
        "A",
        "a",
        "~",
        "nul\0",
        "long" * 200,
        "long" * 201,
    ]
    committed = write(sink_of(tmp_path, spec_of(), "out", format="jsonl"), [answer(n, 0, y=[1.0]) for n in names])
    found = sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != MARK)
    assert found == sorted(committed)
    assert len(found) == len(names)
    assert not any(name.startswith(".") or "/" in name or len(name) > 200 for name in found)
    assert {line["stream"] for p in found for line in lines(tmp_path / "out" / p)} == set(names)
    assert os.listdir(tmp_path) == ["out"]


def test_two_keys_of_one_name(tmp_path: Path) -> None:
    """The number 1 and the text "1" would share a file: refused, never mixed."""
    with pytest.raises(ConnectorError, match=r"1\.jsonl: is the file of stream 1, and would be that of '1' too"):
        write(sink_of(tmp_path, spec_of(), "out", format="jsonl"), [answer(1, 0, y=[1.0]), answer("1", 0, y=[1.0])])


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_no_commit_names_are_removed(tmp_path: Path, name: Any) -> None:
    """A stream's file from after the last commit goes; the rest of the folder stays."""
    make = lambda: sink_of(tmp_path, spec_of(rate_hz=100), "out", format=name)  # noqa: E731
    committed = write(make(), [answer("a", 0, y=np.float32([1]))])
    write(make(), [answer("b", 0, y=np.float32([1]))], lengths=committed)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write(make(), lengths=committed)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARK, f"a.{name}", "notes.txt"]


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    """A folder with files and without our mark is never written to, nor is anything in it removed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.jsonl").write_text("precious")
    with pytest.raises(ConnectorError, match="is not empty and was not written by a sink"):
        write(sink_of(tmp_path, spec_of(), "out", format="jsonl"), [answer("a", 0, y=[1.0])])
    assert (tmp_path / "out" / "data.jsonl").read_text() == "precious"


def test_commits_that_do_not_fit_the_files(tmp_path: Path) -> None:
    """A file that is shorter than what was committed of it, gone, or another one than the pipeline names is told."""
    one = lambda: sink_of(tmp_path, spec_of(), "out.jsonl")  # noqa: E731
    many = lambda: sink_of(tmp_path, spec_of(), "out", format="npy")  # noqa: E731
    write(one(), [answer("a", 0, y=[1.0])])
    write(many(), [answer("a", 0, y=[1.0])])
    with pytest.raises(ConnectorError, match=r"out\.jsonl: has \d+ bytes, 1000 were committed"):
        write(one(), lengths={"out.jsonl": 1000})
    with pytest.raises(ConnectorError, match=r"outputs were committed to 'other\.jsonl'"):
        write(one(), lengths={"other.jsonl": 10})
    with pytest.raises(ConnectorError, match=r"a\.npy: has \d+ bytes"):
        write(many(), lengths={"a.npy": 1000})
    (tmp_path / "out.jsonl").unlink()
    (tmp_path / "out" / "a.npy").unlink()
    with pytest.raises(ConnectorError, match=r"out\.jsonl: is gone, 5 bytes"):
        write(one(), lengths={"out.jsonl": 5})
    with pytest.raises(ConnectorError, match=r"a\.npy: is gone, 260 bytes"):
        write(many(), lengths={"a.npy": 260})


@pytest.mark.parametrize("name", FORMATS)
def test_few_files_are_open_at_once(tmp_path: Path, name: Any) -> None:
    """Very many streams are written through `max_open` descriptors, to the same bytes as through many."""
    spec, count = spec_of(2, rate_hz=100), 60
    batches = [[answer(f"s{k}", step, y=chunk(1, k + step)) for k in range(count)] for step in range(3)]
    few = sink_of(tmp_path, spec, "few", format=name, max_open=3)
    opened: list[int] = []
    original = few._files._opened

    def counted(path: Path) -> int:
        opened.append(len(few._files._open))
        return original(path)

    few._files._opened = counted
    assert write(few, *batches) == write(sink_of(tmp_path, spec, "many", format=name), *batches)
    assert max(opened) < 3
    assert len(opened) > count
    for k in range(count):
        assert (tmp_path / "few" / f"s{k}.{name}").read_bytes() == (tmp_path / "many" / f"s{k}.{name}").read_bytes()


@given(st.data())
def test_crash_anywhere_writes_the_same_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Batches written, some committed, a crash, a resume from the last commit, as often as may be: the files of one run."""
    folder, name = tmp_path_factory.mktemp("sink"), data.draw(st.sampled_from(FORMATS))
    spec = spec_of(2, rate_hz=100)
    batches: list[list[Answer]] = [
        [
            answer(k, i, y=chunk(data.draw(st.integers(0, 2)), 10 * i))
            for k in data.draw(st.sets(st.sampled_from("abc")))
        ]
        for i in range(data.draw(st.integers(1, 5)))
    ]
    write(sink_of(folder, spec, "once", format=name), *batches)
    committed, done = {}, 0
    while done < len(batches):
        upto = data.draw(st.integers(done, len(batches)))
        lost = data.draw(st.integers(0, len(batches) - upto))
        sink = sink_of(folder, spec, "often", format=name, max_open=2)
        committed = write(sink, *batches[done:upto], lengths=committed)
        write(sink_of(folder, spec, "often", format=name), *batches[upto : upto + lost], lengths=committed)
        done = upto if upto > done or data.draw(st.booleans()) else done
        if upto == done and not lost:
            committed = write(sink_of(folder, spec, "often", format=name), *batches[done : done + 1], lengths=committed)
            done += 1
    write(sink_of(folder, spec, "often", format=name), lengths=committed)
    files = {p.name: p.read_bytes() for p in (folder / "often").iterdir()}
    assert files == {p.name: p.read_bytes() for p in (folder / "once").iterdir()}


def test_flush_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `flush` returns, every changed file and the folder of new ones were synced, after their last write."""
    events: list[tuple[str, str]] = []
    sync, put = os.fsync, os.pwrite
    where = lambda fd: Path(os.readlink(f"/proc/self/fd/{fd}")).name  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", where(fd))), sync(fd))[1])
    monkeypatch.setattr(os, "pwrite", lambda fd, *rest: (events.append(("write", where(fd))), put(fd, *rest))[1])
    write(sink_of(tmp_path, spec_of(), "out", format="npy"), [answer("a", 0, y=[1.0]), answer("b", 0, y=[1.0])])
    for name in ("a.npy", "b.npy"):
        assert [kind for kind, n in events if n == name][-1] == "sync"
    assert events[-1] == ("sync", "out")
    assert ("sync", tmp_path.name) in events, "the new folder's own name"


def test_a_flush_gives_what_changed(tmp_path: Path) -> None:
    """`flush` gives the lengths of the parts that changed since the last one, and of no others."""
    import asyncio

    async def run() -> list[Any]:
        sink, seen = sink_of(tmp_path, spec_of(), "out", format="npy"), []
        await sink.open({})
        for keys in ("ab", "a", ""):
            await sink.write([answer(k, 0, y=[1.0]) for k in keys])
            seen.append(await sink.flush())
        await sink.close()
        return seen

    assert asyncio.run(run()) == [{"a.npy": 264, "b.npy": 264}, {"a.npy": 272}, {}]


def test_wav_files(tmp_path: Path) -> None:
    """16-bit samples on request; the sample rate is outputs in a second times their length; what is no audio is refused."""
    tensor = (TensorSpec("y", (160,), "float32"),)
    spec = StepSpec(
        (TensorSpec("x", (160,), "float32"),), tensor, (), frames_per_step=2, outputs_per_step=1, sample_rate_hz=100
    )
    values = np.linspace(-2, 2, 320, dtype=np.float32).reshape(2, 160)
    write(sink_of(tmp_path, spec, "out", format="wav", sample_format="pcm16"), [answer("a", 0, y=values)])
    found, rate = soundfile.read(tmp_path / "out" / "a.wav", dtype="int16")
    assert rate == 8000
    np.testing.assert_array_equal(found, np.clip(np.rint(values.ravel() * 32768.0), -32768, 32767))
    for values_, message in (
        ([[1, 2]], "expected floats"),
        (np.zeros((1, 2, 2)), "expected floats"),
        (["x"], "expected numbers"),
    ):
        with pytest.raises(ConnectorError, match=message):
            write(sink_of(tmp_path, spec, "out", format="wav"), [answer("a", 0, y=values_)])
    with pytest.raises(CodecError, match="finite"):
        write(
            sink_of(tmp_path, spec, "out", format="wav", sample_format="pcm16"),
            [answer("a", 0, y=np.float32([np.nan]))],
        )
    with pytest.raises(ConnectorError, match="needs a whole number"):
        write(sink_of(tmp_path, spec, "out", format="wav", sample_rate_hz=0.3), [answer("a", 0, y=np.float32([1]))])


def test_wav_header(tmp_path: Path) -> None:
    """The sizes in the header are those of the file after every commit, as another reader takes them."""
    write(
        sink_of(tmp_path, spec_of(rate_hz=8000), "out", format="wav"),
        *[[answer("a", i, y=np.float32([i]))] for i in range(3)],
    )
    data = (tmp_path / "out" / "a.wav").read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    info = soundfile.info(tmp_path / "out" / "a.wav")
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (3, 8000, 1, "FLOAT")


def test_which_output(tmp_path: Path) -> None:
    """Of several outputs `value` says which one npy and wav files hold; text is refused there."""
    both = [answer("a", 0, y=np.float32([[1, 2]]), label=["x"])]
    with pytest.raises(ConnectorError, match=r"holds one of the outputs \['y', 'label'\]; say which"):
        write(sink_of(tmp_path, spec_of(2), "out", format="npy"), both)
    with pytest.raises(ConnectorError, match="there is no output 'z'"):
        write(sink_of(tmp_path, spec_of(2), "out", format="npy", value="z"), both)
    with pytest.raises(ConnectorError, match="'label' is <U1, expected numbers"):
        write(sink_of(tmp_path, spec_of(2), "out", format="npy", value="label"), both)
    write(sink_of(tmp_path, spec_of(2), "out", format="npy", value="y"), both)
    assert np.load(tmp_path / "out" / "a.npy").tolist() == [[1, 2]]


def test_a_model_that_changed_under_npy_files(tmp_path: Path) -> None:
    """Answers of another shape or dtype than a committed file's are refused, not appended."""
    committed = write(sink_of(tmp_path, spec_of(2), "out", format="npy"), [answer("a", 0, y=np.float32([[1, 2]]))])
    for values in (np.float64([[1, 2]]), np.float32([[1, 2, 3]])):
        with pytest.raises(ConnectorError, match="its header is not that of output 'y'"):
            write(sink_of(tmp_path, spec_of(2), "out", format="npy"), [answer("a", 1, y=values)], lengths=committed)


@pytest.mark.parametrize(("path", "options", "message"), [
    ("out", {}, "is neither a .jsonl nor a .csv file; of a folder say the format"),
    ("out.npy", {}, "is neither"),
    ("out.jsonl", {"format": "csv"}, "'out.jsonl' is a .jsonl file"),
    ("out.npy", {"format": "npy"}, "one file for all streams is jsonl or csv"),
    ("out.csv", {"value": "y"}, "value: is for npy | wav, the files are csv"),
    ("out", {"format": "npy", "sample_format": "pcm16"}, "sample_format: is for wav"),
    ("out", {"format": "wav"}, "give sample_rate_hz"),
])  # fmt: skip
def test_sinks_that_cannot_be(tmp_path: Path, path: str, options: dict[str, Any], message: str) -> None:
    """What cannot be written, or says nothing of this format, is refused before anything is made."""
    with pytest.raises(ConfigError) as found:
        sink_of(tmp_path, spec_of(2), path, **options)
    assert message in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_outputs_named_as_a_lines_own_fields(tmp_path: Path) -> None:
    """An output called `time` would hide the line's own: refused."""
    for path in ("out.jsonl", "out.csv"):
        with pytest.raises(ConnectorError, match="output 'time' has the name of a field"):
            write(sink_of(tmp_path, spec_of(), path), [answer("a", 0, time=[1.0])])


def test_unknown_keys_are_refused() -> None:
    """The sink's table is read strictly."""
    with pytest.raises(msgspec.ValidationError, match="fromat"):
        msgspec.convert({"type": "files", "path": "out", "fromat": "csv"}, FilesSinkConfig)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """An error of the operating system names the file."""
    (tmp_path / "full").symlink_to("/dev/full")
    files = OutputFiles(tmp_path, 4)
    try:
        with pytest.raises(ConnectorError, match="full: cannot be written"):
            files.append("full", b"x")
    finally:
        files.close()
