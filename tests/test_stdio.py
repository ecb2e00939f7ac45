"""Standard input and output: lines as they come, without blocking the loop; nothing lost, nothing silently cut."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.files_config import StdinConfig, StdoutConfig
from undertow.connectors.records import Record
from undertow.connectors.stdio import LineCutter, StdinSource, StdoutSink
from undertow.engine.errors import ConfigError, ConnectorError

from .file_cases import answer, drain, frames, reasons, spec_of


def fed(data: bytes, offsets: dict[str, int] | None = None, max_records: int = 3, **options: Any) -> list[Record]:
    """What a source makes of these bytes on a pipe."""
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return drain(StdinSource(StdinConfig(**options), Path(), spec_of(2), reader), offsets, max_records)
    finally:
        thread.join()
        os.close(reader)


def test_lines() -> None:
    """Each line is a record of the stream that it names; the end of the input ends every stream."""
    found = fed(
        b'\xef\xbb\xbf{"key": "\xc3\xa9", "value": [1, 2]}\r\n\n{"key": 2, "value": [[3, 4]], "time": 1.5, "end": true}'
    )
    first, second, end = found
    assert (first.key, first.offset, first.next_offset, first.single) == ("é", 0, 1, True)
    assert (second.key, second.event_time_ns, second.end, second.offset) == (2, 1_500_000_000, True, 1)
    assert (end.end_partition, end.value, end.offset, end.next_offset) == (True, None, 2, 3)
    assert frames(found).tolist() == [[1, 2], [3, 4]]


def test_one_stream() -> None:
    """With `stream` the lines are of that stream, bare payloads too."""
    found = fed(b'[1, 2]\n{"value": [3, 4]}\n', stream="mic")
    assert [r.key for r in found[:2]] == ["mic", "mic"]
    assert frames(found).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ConfigError, match="stream, key_column"):
        StdinSource(StdinConfig(stream="a", key_column="k"), Path(), spec_of(2))


def test_offsets_count_on() -> None:
    """A resumed run numbers its first line by the offset that it was given, and skips nothing."""
    line = b'{"key": "a", "value": [1, 2]}\n'
    assert [r.offset for r in fed(line * 2, {"stdin": 40})] == [40, 41, 42]
    assert not StdinSource.rewindable


def test_the_end_need_not_end_streams() -> None:
    """With end_at_eof = false the input's end leaves the streams as they are."""
    assert len(fed(b'{"key": "a", "value": [1, 2]}\n', end_at_eof=False)) == 1
    assert fed(b"") [0].end_partition  # fmt: skip


def test_bad_lines() -> None:
    """What cannot be read is a record with its bytes and the reason; a huge line keeps its first KiB."""
    huge = b"[" + b"1, " * 500_000 + b"1]"
    found = fed(b"nonsense\n\xff\xfe\n" + huge + b'\n{"key": "a", "value": [1, 2]}\n', max_line_bytes=1000)
    assert ["not a JSON object" in r for r in reasons(found)] == [True, True, False]
    assert f"has {len(huge)} bytes, at most 1000" in reasons(found)[2]
    assert len(found[2].value.payload) == 1024
    assert frames(found).tolist() == [[1, 2]]


@given(st.lists(st.binary(max_size=150), max_size=6), st.lists(st.integers(1, 90), max_size=12))
def test_however_the_bytes_arrive(texts: list[bytes], cuts: list[int]) -> None:
    """Lines, and the lengths of those that are too long, do not depend on how the input was cut into reads."""
    data = b"\n".join(texts)
    whole, parts = LineCutter(64), LineCutter(64)
    whole.feed(data)
    place = 0
    for size in cuts:
        if data[place : place + size]:
            parts.feed(data[place : place + size])
        place += size
    if data[place:]:
        parts.feed(data[place:])
    for cutter in (whole, parts):
        cutter.feed(b"")
    assert parts.take(99) == whole.take(99)


def within(seconds: float, done: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_reading_does_not_block_the_loop() -> None:
    """While standard input is silent, `poll` comes back in its time and other tasks run; a line that comes is given at once."""
    reader, writer = os.pipe()

    async def run() -> None:
        source = StdinSource(StdinConfig(), Path(), spec_of(2), reader)
        await source.open({})
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        assert await source.poll(10, 0.2) == []
        assert ticks > 5
        os.write(writer, b'{"key": "a", "va')
        assert await source.poll(10, 0.01) == []
        os.write(writer, b'lue": [1, 2]}\n' * 2)
        assert len(await source.poll(10, 30.0)) == 2
        ticking.cancel()
        assert not source.exhausted
        os.close(writer)
        assert (await source.poll(10, 30.0))[0].end_partition
        assert source.exhausted
        await source.close()

    asyncio.run(run())
    os.close(reader)


def test_standard_output() -> None:
    """Lines come out as in a file, complete at once; a pipe that is full makes the writer wait, not lose."""
    reader, writer = os.pipe()
    got = bytearray()

    def collect() -> None:
        while data := os.read(reader, 65536):
            got.extend(data)

    thread = threading.Thread(target=collect)
    thread.start()

    async def run() -> None:
        sink = StdoutSink(StdoutConfig(), Path(), spec_of(2), writer)
        await sink.open({"whatever": 3})
        await sink.write([answer("é", 4, y=[[1.0, 2.0]])])
        assert await sink.flush() == {}
        within(10.0, lambda: got.endswith(b"\n"))
        await sink.write([answer("b", i, y=[[0.0, 0.0]]) for i in range(5000)])
        await sink.close()

    asyncio.run(run())
    os.close(writer)
    thread.join()
    os.close(reader)
    lines = [msgspec.json.decode(line) for line in got.splitlines()]
    assert lines[0] == {"stream": "é", "step": 4, "source": "in/0", "y": [1.0, 2.0]}
    assert [line["step"] for line in lines[1:]] == list(range(5000))
    assert not StdoutSink.truncatable


def test_a_reader_that_has_gone() -> None:
    """Standard output that nobody reads any more is a ConnectorError."""
    reader, writer = os.pipe()
    os.close(reader)

    async def run() -> None:
        sink = StdoutSink(StdoutConfig(), Path(), spec_of(2), writer)
        await sink.open({})
        await sink.write([answer("a", 0, y=[[1.0, 2.0]])])

    with pytest.raises(ConnectorError, match="standard output cannot be written"):
        asyncio.run(run())
    os.close(writer)


def test_unknown_keys_are_refused() -> None:
    """Both tables are read strictly."""
    with pytest.raises(msgspec.ValidationError, match="path"):
        msgspec.convert({"type": "stdout", "path": "x"}, StdoutConfig)
    with pytest.raises(msgspec.ValidationError, match="keys"):
        msgspec.convert({"type": "stdin", "keys": "x"}, StdinConfig)
