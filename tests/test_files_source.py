"""The files source: every format gives its frames, and from any offset the same rest; what is wrong is told where."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.codecs import frames_of
from undertow.connectors.files_config import FilesSourceConfig
from undertow.engine.errors import CodecError, ConfigError, ConnectorError

from .file_cases import drain, frames, read, reasons, source_of, spec_of, told, two_inputs

S = 10**9


def csv_text(rows: np.ndarray, header: str = "u,v") -> str:
    return "\n".join([header, *(",".join(map(repr, row)) for row in rows.tolist())]) + "\n"


def four_formats(folder: Path, rows: np.ndarray) -> dict[str, Any]:
    """The same frames (T, 2) in a file of each format: path and further options."""
    (folder / "a.csv").write_text(csv_text(rows))
    (folder / "a.jsonl").write_text("".join(f"{msgspec.json.encode(r).decode()}\n" for r in rows.tolist()))
    np.save(folder / "a.npy", rows)
    np.save(folder / "fortran.npy", np.asfortranarray(rows))
    soundfile.write(folder / "a.wav", rows, 100, subtype="FLOAT")
    soundfile.write(folder / "mono.wav", rows.ravel(), 200, subtype="FLOAT")
    return {p.name: p for p in sorted(folder.iterdir())}


@given(st.integers(0, 11), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_from_every_offset_the_same_rest(
    tmp_path_factory: pytest.TempPathFactory, count: int, chunk: int, max_records: int, keep_pace: bool
) -> None:
    """Resumed at any record's next_offset, a file of any format gives exactly the records that were left, times included."""
    folder = tmp_path_factory.mktemp("f")
    rows = (np.arange(2 * count, dtype=np.float32) / 64).reshape(count, 2)
    for name in four_formats(folder, rows):
        options: dict[str, Any] = {"chunk": chunk} if name.endswith(("npy", "wav")) else {}
        options |= {"rate": 1e6} if keep_pace and not name.endswith("jsonl") else {}
        spec = spec_of(2, rate_hz=100)
        whole = drain(source_of(folder, spec, name, **options), max_records=max_records)
        assert whole[-1].end
        if count:
            np.testing.assert_array_equal(frames(whole), rows)
        for i, record in enumerate(whole):
            rest = drain(source_of(folder, spec, name, **options), {name: record.next_offset}, max_records)
            assert [told(r) for r in rest] == [told(r) for r in whole[i + 1 :]], f"{name} after record {i}"


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 3), st.data())
def test_many_files_resume_each_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], concurrency: int, data: st.DataObject
) -> None:
    """Cut after any number of records, the files together give the same records again, each file's in order."""
    folder = tmp_path_factory.mktemp("f")
    for i, n in enumerate(lengths):
        np.save(folder / f"s{i}.npy", np.arange(2 * n, dtype=np.float32).reshape(n, 2) + 100 * i)
    make = lambda: source_of(folder, spec_of(2), chunk=2, concurrency=concurrency)  # noqa: E731
    whole = drain(make())
    assert [told(r) for r in drain(make(), max_records=1)] == [told(r) for r in whole]
    cut = data.draw(st.integers(0, len(whole)))
    offsets = {r.partition: r.next_offset for r in whole[:cut]}
    rest = drain(make(), offsets)
    for i in range(len(lengths)):
        name = f"s{i}.npy"
        expected = [told(r) for r in whole[cut:] if r.partition == name]
        assert [told(r) for r in rest if r.partition == name] == expected


def test_array_cuts_are_at_multiples_of_chunk(tmp_path: Path) -> None:
    """From an offset inside of a chunk the next cut is where it always is."""
    np.save(tmp_path / "a.npy", np.zeros((10, 2), np.float32))
    found = drain(source_of(tmp_path, spec_of(2), chunk=4), {"a.npy": 3})
    assert [(r.offset, r.next_offset) for r in found] == [(3, 4), (4, 8), (8, 10), (10, 11)]


def test_files_are_read_in_turn(tmp_path: Path) -> None:
    """A record of each open file in turn, in the order of their names; the next is opened when one is done."""
    for name in ("b", "a", "c"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 2), np.float32))
    found = read(tmp_path, spec_of(2), chunk=1, concurrency=2)
    assert "".join(r.key for r in found) == "abababccc"


def test_at_most_so_many_files_are_open(tmp_path: Path) -> None:
    """A folder of many files never has more than `concurrency` of them open."""
    for i in range(40):
        np.save(tmp_path / f"{i}.npy", np.zeros((5, 2), np.float32))

    async def most() -> int:
        source, open_files = source_of(tmp_path, spec_of(2), chunk=1, concurrency=8), 0
        before = len(os.listdir("/proc/self/fd"))
        await source.open({})
        while not source.exhausted:
            await source.poll(3, 0.0)
            open_files = max(open_files, len(os.listdir("/proc/self/fd")) - before)
        await source.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 4  # the loop's own
        return open_files

    assert 4 <= asyncio.run(most()) <= 8 + 4


def test_which_files(tmp_path: Path) -> None:
    """A folder is read with its folders, a pattern where it matches; keys are paths without suffix; hidden ones are passed over."""
    for name in ("x/b.npy", "x/y/a.npy", "c.npy", ".hidden.npy", ".git/d.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, np.zeros((1, 2), np.float32))
    (tmp_path / "README").write_text("not a recording")
    keys = lambda path: [r.key for r in read(tmp_path, spec_of(2), path) if r.end]  # noqa: E731
    assert keys(".") == ["c", "x/b", "x/y/a"]
    assert keys("x") == ["b", "y/a"]
    assert keys("x/b.npy") == ["b"]
    assert keys("**/?.npy") == ["c", "x/b", "x/y/a"]
    assert keys("x/*.npy") == ["b"]


def test_empty_files(tmp_path: Path) -> None:
    """An empty file is a stream that ends at once, and is done after that."""
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"u,v\n")
    found = read(tmp_path, spec_of(2))
    assert [(r.key, r.value, r.end, r.offset, r.next_offset) for r in found] == [
        ("a", None, True, 0, 1),
        ("b", None, True, 4, 5),
    ]
    assert drain(source_of(tmp_path, spec_of(2)), {"a.csv": 1, "b.csv": 5}) == []


# ------------------------------------------------------------------------------------------------------------ csv


def test_csv_columns_time_and_key(tmp_path: Path) -> None:
    """Columns by name and order, ISO times with any zone to the nanosecond, and streams by key that end with the file."""
    (tmp_path / "a.csv").write_text(
        "site,at,u,v,note\n"
        "é,2024-02-29T12:00:00.123456789Z,1,2,x\n"
        "b,2024-02-29T13:00:00+01:00,3,4,5\n"
        "é,2024-02-29 12:00:01,5,6,\n"
    )
    options: dict[str, Any] = {"columns": ("v", "u"), "key_column": "site", "time_column": "at"}
    found = read(tmp_path, spec_of(2), "a.csv", **options)
    noon = 1709208000 * S
    assert [(r.key, r.event_time_ns) for r in found[:-1]] == [("é", noon + 123456789), ("b", noon), ("é", noon + S)]
    assert frames(found, "é").tolist() == [[2, 1], [6, 5]]
    end = found[-1]
    assert (end.end_partition, end.end, end.value) == (True, False, None)
    size = (tmp_path / "a.csv").stat().st_size
    assert (end.offset, end.next_offset) == (size, size + 1)
    assert drain(source_of(tmp_path, spec_of(2), "a.csv", **options), {"a.csv": size})[0].end_partition


@pytest.mark.parametrize(("unit", "text", "ns"), [
    ("s", "1700000000.123456789", 1700000000123456789), ("ms", "1.5", 1500000), ("us", "-3", -3000), ("ns", "7", 7),
])  # fmt: skip
def test_csv_numeric_times(tmp_path: Path, unit: Any, text: str, ns: int) -> None:
    """Numbers of the unit since 1970, without losing a nanosecond."""
    (tmp_path / "a.csv").write_text(f"t,u,v\n{text},1,2\n")
    assert read(tmp_path, spec_of(2), time_column="t", time_unit=unit)[0].event_time_ns == ns


def test_csv_default_columns(tmp_path: Path) -> None:
    """Without `columns` the frame is every column of numbers but key and time."""
    (tmp_path / "a.csv").write_text("name,t,u,v\nx,0,1,2\n")
    assert frames(read(tmp_path, spec_of(2), time_column="t")).tolist() == [[1, 2]]


def test_csv_dialects(tmp_path: Path) -> None:
    """Windows line ends, a byte order mark, quotes, blank lines, another delimiter and no last line end."""
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"u";"v;w"\r\n1;2\r\n\r\n"3";" 4"\r\n5;6')
    found = read(tmp_path, spec_of(2), delimiter=";", columns=("v;w", "u"))
    assert frames(found).tolist() == [[2, 1], [4, 3], [6, 5]]
    assert found[0].offset == 14


def test_csv_several_inputs(tmp_path: Path) -> None:
    """The columns fill the model's inputs one after the other, each of its dtype."""
    (tmp_path / "a.csv").write_text("u,v,n\n1,2,9007199254740993\n")
    value = read(tmp_path, two_inputs())[0].value
    assert value["a"].tolist() == [[1, 2]]
    assert value["b"].tolist() == [9007199254740993]


def test_csv_largest_numbers(tmp_path: Path) -> None:
    """The largest float32, as it is usually written, is still a float32; the next power of ten is not."""
    (tmp_path / "a.csv").write_text("u,v\n3.4028235e+38,-3.4028235e+38\n1e39,0\n")
    found = read(tmp_path, spec_of(2))
    assert frames(found).tolist() == [[float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)]]
    assert "'1e39' is not a finite float32" in reasons(found)[0]


def test_csv_bad_rows(tmp_path: Path) -> None:
    """Each row that cannot be read is a record with its bytes and the reason; the rows around it are as ever."""
    bad = [
        b"1",
        b"1,2,3",
        b"1,x",
        b"1,nan",
        b"1,inf",
        b"1,1e39",
        b"1,",
        b"1,1_0",
        b'1,"2',
        b"\xff,2",
        b"1," + b"2" * 100,
    ]
    (tmp_path / "a.csv").write_bytes(b"u,v\n0,0\n" + b"\n".join(bad) + b"\n9,9\n")
    found = read(tmp_path, spec_of(2), max_line_bytes=64)
    assert frames(found).tolist() == [[0, 0], [9, 9]]
    expected = ("1 fields", "3 fields", "'x' is not a number", "'nan' is not a finite", "'inf'", "'1e39' is not a finite float32",
        "'' is not a number", "'1_0'", "a row is one line", "not UTF-8 at byte 0", "has 103 bytes, at most 64")  # fmt: skip
    for reason, part in zip(reasons(found), expected, strict=True):
        assert part in reason
    broken = [r for r in found if r.value is not None and not isinstance(r.value, dict)]
    assert [r.value.payload for r in broken[:-1]] == bad[:-1]
    assert bad[-1].startswith(broken[-1].value.payload)
    assert all(r.key == "a" for r in broken)
    with pytest.raises(CodecError, match=r"a\.csv/8: the row has 1 fields, the header has 2"):
        frames_of(broken[0], None)


def test_csv_quoted_newline_is_refused_by_its_line(tmp_path: Path) -> None:
    """A quoted field that goes on over a line's end spoils those lines and no others."""
    (tmp_path / "a.csv").write_text('u,v\n1,"2\n3",4\n5,6\n')
    found = read(tmp_path, spec_of(2))
    assert len(reasons(found)) == 2
    assert frames(found).tolist() == [[5, 6]]


@pytest.mark.parametrize(("text", "options", "message"), [
    ("u,v\n1,2\n", {"columns": ("u", "w")}, r"a\.csv: header: has no column 'w'; it has \['u', 'v'\]"),
    ("u,v\n1,2\n", {"time_column": "t"}, "has no column 't'"),
    ("u,v\n1,2\n", {"key_column": "k"}, "has no column 'k'"),
    ("u,u\n1,2\n", {}, "column 'u' is there twice"),
    ("u,v,w\n1,2,3\n", {}, r"3 columns \['u', 'v', 'w'\], the model's frame has 2 values"),
])  # fmt: skip
def test_csv_headers_that_do_not_fit(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    """A file whose columns cannot be the model's frame stops the run and names them."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConnectorError, match=message):
        read(tmp_path, spec_of(2), **options)


def test_csv_times_by_sample_rate(tmp_path: Path) -> None:
    """Without a time column a row's time is its number by the rate, from start_time, without drift; blank lines do not count."""
    (tmp_path / "a.csv").write_text("u,v\n1,2\n\n" + "3,4\n" * 2)
    found = read(tmp_path, spec_of(2, rate_hz=3), start_time="1970-01-01T00:00:10Z")
    assert [r.event_time_ns for r in found[:-1]] == [10 * S, 10 * S + S // 3, 10 * S + 2 * S // 3]
    assert [r.event_time_ns for r in read(tmp_path, spec_of(2, rate_hz=3), sample_rate_hz=1.0)[:-1]] == [0, S, 2 * S]
    assert read(tmp_path, spec_of(2))[0].event_time_ns is None


# ---------------------------------------------------------------------------------------------------------- jsonl


def test_jsonl_fields(tmp_path: Path) -> None:
    """Objects by configurable names: stream, time, sequence number, end, a frame or a chunk; others refused or ignored."""
    lines = [
        {"dev": "ü", "ts": 1500, "x": [1, 2], "n": 0},
        {"dev": 7, "ts": "1970-01-01T00:00:02Z", "x": [[3, 4], [5, 6]], "n": 5},
        {"dev": "ü", "fin": True},
        {"dev": "ü", "x": [], "fin": True, "ts": None},
        {"dev": "ü", "x": [7, 8], "site": "A"},
    ]
    (tmp_path / "a.jsonl").write_bytes(b"".join(msgspec.json.encode(x) + b"\r\n" for x in lines))
    options: dict[str, Any] = {
        "key_column": "dev", "time_column": "ts", "time_unit": "ms", "value_field": "x", "end_field": "fin", "seq_field": "n",
    }  # fmt: skip
    found = read(tmp_path, spec_of(2, rate_hz=50), **options)
    first, second, third, fourth, fifth, last = found
    assert (first.key, first.event_time_ns, first.seq, first.single) == ("ü", 1500 * 10**6, 0, True)
    assert (second.key, second.event_time_ns, second.seq, second.single, second.frame_ns) == (
        7,
        2 * S,
        5,
        False,
        20 * 10**6,
    )
    assert frames([second]).tolist() == [[3, 4], [5, 6]]
    assert (third.value, third.end) == (None, True)
    assert (len(frames([fourth])), fourth.end) == (0, True)
    assert "has a field 'site'" in reasons([fifth])[0]
    assert fifth.key == ""
    assert last.end_partition
    assert frames(read(tmp_path, spec_of(2), extra_fields="ignore", **options)[4:5]).tolist() == [[7, 8]]


def test_a_key_that_no_option_names(tmp_path: Path) -> None:
    """Lines that name streams, read as one stream, are told which option says so."""
    (tmp_path / "a.jsonl").write_text('{"key": "a", "value": [1, 2]}\n')
    (reason,) = reasons(read(tmp_path, spec_of(2), "a.jsonl"))
    assert "has a field 'key', expected ['value', 'time', 'end', 'seq']" in reason
    assert 'key_column = "key" where it names the stream' in reason


@pytest.mark.parametrize(("line", "message"), [
    (b'{"key": "a"}', "has no 'value'"),
    (b'{"value": [1, 2]}', "has no 'key', so its stream is not known"),
    (b'{"key": 1.5, "value": [1, 2]}', "'key' .the stream."),
    (b'{"key": true, "value": [1, 2]}', "'key' .the stream."),
    (b'{"key": "a", "value": [1]}', r"shape \(1,\) \(a frame\), expected a frame \(2,\)"),
    (b'{"key": "a", "value": [1, 2], "end": 1}', "'end'"),
    (b'{"key": "a", "value": [1, 2], "seq": -1}', "'seq' is -1"),
    (b'{"key": "a", "value": [1, 2], "time": "soon"}', "'time': 'soon' is not a time"),
    (b'{"key": "a", "value": [1, 2], "time": 1e300}', "outside of the years"),
    (b'{"key": "a", "value": [1, 2], "time": [1]}', "is not a time"),
    (b'{"key": "a", "value": [1, 2]', "not a JSON object"),
    (b"[1, 2]", "not a JSON object"),
    (b'{"key": "\xff", "value": [1, 2]}', "utf-8"),
    (b'{"key": "a", "value": [1, 2]} x', "not a JSON object"),
    (b"\x00", "not a JSON object"),
])  # fmt: skip
def test_jsonl_bad_lines(tmp_path: Path, line: bytes, message: str) -> None:
    """A line that cannot be read is a record with its bytes and the reason, and the next line is as ever."""
    (tmp_path / "a.jsonl").write_bytes(line + b'\n{"key": "b", "value": [1, 2]}\n')
    bad, good, _ = read(tmp_path, spec_of(2), key_column="key")
    assert bad.value.payload == line
    with pytest.raises(CodecError, match=message):
        frames_of(bad, None)
    assert good.key == "b"
    assert frames([good]).tolist() == [[1, 2]]


def test_jsonl_bad_payload_of_a_known_stream(tmp_path: Path) -> None:
    """A line whose payload cannot be read is still its stream's, and may end it."""
    (tmp_path / "a.jsonl").write_bytes(b'{"key": "b", "value": [1], "end": true, "seq": 4, "time": 2}\n')
    bad, _ = read(tmp_path, spec_of(2), key_column="key")
    assert (bad.key, bad.end, bad.seq, bad.event_time_ns) == ("b", True, 4, 2 * S)
    assert "shape (1,)" in reasons([bad])[0]


def test_jsonl_of_one_stream(tmp_path: Path) -> None:
    """Where the file is the stream, a line may be the bare payload, of a model with scalar frames a bare number."""
    (tmp_path / "a.jsonl").write_bytes(b'[1, 2]\n\n[[3, 4]]\n{"value": [5, 6], "time": 1}\n')
    assert frames(read(tmp_path, spec_of(2))).tolist() == [[1, 2], [3, 4], [5, 6]]
    (tmp_path / "a.jsonl").write_bytes(b"1\n[2, 3]\n")
    assert frames(read(tmp_path, spec_of())).tolist() == [1, 2, 3]


def test_a_huge_line_takes_no_memory(tmp_path: Path) -> None:
    """A line far over the bound keeps its first KiB, is told by its length, and the line after it is read."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b"[1, 2]\n[")
        for _ in range(40):
            file.write(b"1, " * 100_000)
        file.write(b"1]\n[3, 4]\n")
    found = read(tmp_path, spec_of(2), max_line_bytes=1000)
    assert frames(found).tolist() == [[1, 2], [3, 4]]
    assert "has 12000004 bytes, at most 1000" in reasons(found)[0]
    assert len(found[1].value.payload) <= 1024


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_bound_of_a_line_is_exact(tmp_path: Path, end: bytes, bom: bytes) -> None:
    """A line of as many bytes as allowed is read, one more is not; its end and a byte order mark do not count."""
    for spaces, good in ((58, True), (59, False)):
        (tmp_path / "a.jsonl").write_bytes(bom + b"[1" + b" " * spaces + b",2]" + b"" + end)
        found = read(tmp_path, spec_of(2), max_line_bytes=63)
        assert bool(reasons(found)) is not good


# ------------------------------------------------------------------------------------------------------- npy, wav


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_shapes(tmp_path: Path, shape: tuple[int, ...], order: Any) -> None:
    """Any frame shape, in C or Fortran order, of another dtype that loses no more than precision."""
    rows = np.random.default_rng(0).normal(size=(7, *shape))
    np.save(tmp_path / "a.npy", np.asarray(rows, order=order))
    np.testing.assert_array_equal(frames(read(tmp_path, spec_of(*shape), chunk=3)), rows.astype(np.float32))


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((4, 3), np.float32), r"has shape \(4, 3\), model expects \(T, 2\)"),
    (np.zeros(2, np.float32), "model expects"),
    (np.float32(1), "model expects"),
    (np.zeros((4, 2), complex), "expected numbers"),
    (np.zeros((4, 2), "U3"), "expected numbers"),
])  # fmt: skip
def test_npy_files_that_do_not_fit(tmp_path: Path, array: np.ndarray, message: str) -> None:
    """A file of another shape or dtype stops the run and says both."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ConnectorError, match=message):
        read(tmp_path, spec_of(2))


def test_damaged_array_files(tmp_path: Path) -> None:
    """A cut .npy file, text called .npy and text called .wav are ConnectorErrors that name the file."""
    np.save(tmp_path / "a.npy", np.zeros((4, 2), np.float32))
    whole = (tmp_path / "a.npy").read_bytes()
    for data, message in (
        (whole[:-1], "its header says 160"),
        (whole[:20], "a.npy"),
        (b"hello", "a.npy"),
        (whole + b"x", "says 160"),
    ):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(ConnectorError, match=message):
            read(tmp_path, spec_of(2))
    (tmp_path / "a.wav").write_bytes(b"hello")
    with pytest.raises(ConnectorError, match=r"a\.wav: cannot be read as audio"):
        read(tmp_path, spec_of(2), "a.wav")


def test_wav_frames(tmp_path: Path) -> None:
    """Mono fits (), (1,) and frames of N samples; channels fit (C,); 16-bit samples are 32768ths, exactly."""
    samples = np.array([-32768, -1, 0, 1, 32767, 5, 6], np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_16")
    for shape in ((), (1,)):
        found = frames(read(tmp_path, spec_of(*shape, rate_hz=8000), chunk=4))
        np.testing.assert_array_equal(found.ravel() * 32768, samples)
    cut = read(tmp_path, spec_of(3, rate_hz=8000 / 3), chunk=1)
    np.testing.assert_array_equal(frames(cut) * 32768, samples[:6].reshape(2, 3))
    assert [r.event_time_ns for r in cut] == [0, 375000, None]
    padded = frames(read(tmp_path, spec_of(3), remainder="pad"))
    np.testing.assert_array_equal(padded * 32768, np.append(samples, [0, 0]).reshape(3, 3))
    soundfile.write(tmp_path / "a.wav", samples[:6].reshape(3, 2), 8000, subtype="PCM_16")
    np.testing.assert_array_equal(frames(read(tmp_path, spec_of(2, rate_hz=8000))) * 32768, samples[:6].reshape(3, 2))


def test_wav_files_that_do_not_fit(tmp_path: Path) -> None:
    """Another sample rate, or channels that are no frame, stop the run and say both sides."""
    soundfile.write(tmp_path / "a.wav", np.zeros((4, 2), np.float32), 8000)
    with pytest.raises(ConnectorError, match=r"has 8000 samples a second, the model 16000 \(16000 frames of 1\)"):
        read(tmp_path, spec_of(2, rate_hz=16000))
    with pytest.raises(ConnectorError, match=r"has 2 channels, the model's frame is \(3,\): expected 1 or 3"):
        read(tmp_path, spec_of(3))
    soundfile.write(tmp_path / "a.wav", np.zeros(320, np.float32), 16000)
    with pytest.raises(ConnectorError, match=r"has 16000 samples a second, the model 8000 \(50 frames of 160\)"):
        read(tmp_path, spec_of(160, rate_hz=50))
    with pytest.raises(ConfigError, match="expected floats of shape"):
        read(tmp_path, spec_of(2, dtype="int64"))


# --------------------------------------------------------------------------------------------- what went otherwise


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.npy", "a.wav"])
def test_files_that_change_while_read(tmp_path: Path, name: str) -> None:
    """A file that grows, is cut or is replaced between two records is a ConnectorError, never other frames."""
    rows = np.arange(60, dtype=np.float32).reshape(30, 2) / 64
    path = four_formats(tmp_path, rows)[name]
    whole = path.read_bytes()

    async def change(after: bytes) -> None:
        source = source_of(tmp_path, spec_of(2), name, **({"chunk": 3} if name.endswith(("npy", "wav")) else {}))
        await source.open({})
        assert len(await source.poll(2, 0.0)) == 2
        path.write_bytes(after)
        try:
            while not source.exhausted:
                await source.poll(2, 0.0)
        finally:
            await source.close()
            path.write_bytes(whole)

    for after in (whole + whole, whole[: len(whole) // 2], b""):
        with pytest.raises(ConnectorError, match=name):
            asyncio.run(change(after))


def test_offsets_that_do_not_fit_the_files(tmp_path: Path) -> None:
    """A file shorter than its offset, one in which no line begins there, and one that is gone are told at `open`, or when it is read."""
    (tmp_path / "a.jsonl").write_text("[1, 2]\n[3, 4]\n")
    np.save(tmp_path / "b.npy", np.zeros((4, 2), np.float32))
    with pytest.raises(ConnectorError, match=r"a\.jsonl: was read up to 16, now it ends at 14"):
        drain(source_of(tmp_path, spec_of(2), "a.jsonl"), {"a.jsonl": 16})
    with pytest.raises(ConnectorError, match=r"a\.jsonl: no line begins at byte 3"):
        drain(source_of(tmp_path, spec_of(2), "a.jsonl"), {"a.jsonl": 3})
    with pytest.raises(ConnectorError, match=r"b\.npy: was read up to 6, now it ends at 4"):
        drain(source_of(tmp_path, spec_of(2), "b.npy"), {"b.npy": 6})
    with pytest.raises(ConnectorError, match=r"'c\.npy' was read up to 2 and is not there any more"):
        drain(source_of(tmp_path, spec_of(2), "b.npy"), {"c.npy": 2})


@pytest.mark.parametrize(("path", "options", "message"), [
    ("nothing", {}, "nothing does not exist"),
    ("empty", {}, "has no file of format csv | jsonl | npy | wav"),
    (".", {}, "there are files of"),
    ("a.dat", {}, "does not say it; give format"),
    ("a.csv", {"chunk": 5}, "chunk: is for npy | wav, the files are csv"),
    ("a.npy", {"columns": ("u",)}, "columns: is for csv, the files are npy"),
    ("a.npy", {"key_column": "k"}, "key_column: is for csv | jsonl"),
    ("a.csv", {"remainder": "pad"}, "remainder: is for wav"),
    ("a.npy", {"start_time": "2024-01-01"}, "start_time: needs sample_rate_hz"),
    ("a.npy", {"start_time": "soon", "sample_rate_hz": 1.0}, "start_time: 'soon' is not a time"),
    ("a.csv", {"start_time": "2024-01-01", "sample_rate_hz": 1.0, "time_column": "u"}, "take one of them out"),
    ("a.csv", {"key_column": "u", "sample_rate_hz": 1.0}, "rows of several streams have no common number"),
    ("a.csv", {"columns": ("u", "u")}, "names a column twice"),
    ("a.npy", {"rate": "recorded"}, "rate: 'recorded' needs event times"),
])  # fmt: skip
def test_pipelines_that_cannot_be(tmp_path: Path, path: str, options: dict[str, Any], message: str) -> None:
    """What cannot be read, or says nothing of this format, is refused before anything is read."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("u,v\n")
    (tmp_path / "a.dat").write_text("")
    np.save(tmp_path / "a.npy", np.zeros((4, 2), np.float32))
    with pytest.raises((ConfigError, ConnectorError)) as found:
        source_of(tmp_path, spec_of(2), path, **options)
    assert message in str(found.value)


def test_unknown_keys_are_refused() -> None:
    """The config is read strictly: an unknown key, a wrong type and a value out of range are errors with their path."""
    for given_, message in (
        ({"type": "files", "path": "a", "topik": 1}, "topik"),
        ({"type": "files", "path": "a", "chunk": 0}, r"\$\.chunk"),
        ({"type": "files", "path": "a", "rate": "slow"}, r"\$\.rate"),
        ({"type": "files", "path": "a", "rate": 0}, r"\$\.rate"),
        ({"type": "files"}, "path"),
    ):
        with pytest.raises(msgspec.ValidationError, match=message):
            msgspec.convert(given_, FilesSourceConfig)
    assert msgspec.convert({"type": "files", "path": "a", "rate": 2}, FilesSourceConfig).rate == 2


# ----------------------------------------------------------------------------------------------------------- pace


class Wall:
    """A clock that only a sleep moves on."""

    def __init__(self) -> None:
        self.ns, self.slept = 5 * S, 0

    def clock_ns(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)
        self.slept += 1


def paced(folder: Path, rate: Any, timeout_s: float, **options: Any) -> list[tuple[str, int, float]]:
    """Stream, event time and when it came, in seconds since the start."""
    wall, out = Wall(), []
    config = FilesSourceConfig(".", rate=rate, **options)

    async def run() -> None:
        from undertow.connectors.files_source import FilesSource

        source = FilesSource(config, folder, spec_of(2), wall.clock_ns, wall.sleep)
        await source.open({})
        while not source.exhausted:
            before = wall.ns
            records = await source.poll(10, timeout_s)
            out.extend((r.key, r.event_time_ns, (wall.ns - 5 * S) / 1e9) for r in records)
            assert wall.ns - before <= timeout_s * 1e9 + 1
        await source.close()

    asyncio.run(run())
    return out


@pytest.mark.parametrize(("rate", "speed"), [("recorded", 1.0), (4.0, 4.0), (0.5, 0.5)])
def test_pace(tmp_path: Path, rate: Any, speed: float) -> None:
    """Each record comes when its event time is due by the injected clock, the files merged by time; `poll` keeps its timeout."""
    (tmp_path / "a.csv").write_text("t,u,v\n100,1,1\n102,1,1\n110,1,1\n")
    (tmp_path / "b.csv").write_text("t,u,v\n101,1,1\n102.5,1,1\n")
    found = paced(tmp_path, rate, 0.7, time_column="t")
    timed = [(key, at / 1e9 - 100, came) for key, at, came in found if at is not None]
    assert [(key, at) for key, at, _ in timed] == [("a", 0), ("b", 1), ("a", 2), ("b", 2.5), ("a", 10)]
    for _, at, came in timed:
        assert came == pytest.approx(at / speed, abs=1e-6)


def test_pace_by_sample_rate(tmp_path: Path) -> None:
    """Arrays come chunk by chunk at the sample rate."""
    np.save(tmp_path / "a.npy", np.zeros((6, 2), np.float32))
    found = paced(tmp_path, "recorded", 10.0, sample_rate_hz=2.0, chunk=2)
    assert [came for _, at, came in found if at is not None] == pytest.approx([0, 1, 2])


def test_pace_needs_times(tmp_path: Path) -> None:
    """Lines without a time cannot be paced: an error, not a silent rush."""
    (tmp_path / "a.jsonl").write_text("[1, 2]\n")
    with pytest.raises(ConnectorError, match=r"a\.jsonl/0: has no time"):
        paced(tmp_path, "recorded", 1.0)
