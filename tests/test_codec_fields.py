"""Stream end, sequence number and event time from fields of a payload, in JSON, MessagePack and Avro."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.columns import NO_SEQ, NO_TIME, Columns
from undertow.engine.errors import CodecError, ConfigError

from .codec_cases import check_many, codec_of
from .file_cases import spec_of, two_inputs

KEYS = {"value_field": "x", "end_field": "end", "seq_field": "n", "time_field": "at"}
LISTS = {"type": "array", "items": "double"}
AVRO = {
    "type": "record",
    "name": "Message",
    "fields": [
        {"name": "x", "type": ["null", LISTS, {"type": "array", "items": LISTS}]},
        {"name": "end", "type": ["null", "boolean"]},
        {"name": "n", "type": ["null", "long", "string"]},
        {
            "name": "at",
            "type": ["null", "long", "double", "string", {"type": "long", "logicalType": "timestamp-micros"}],
        },
    ],
}
SECOND = 10**9


def reader(name: str, **keys: Any) -> Any:
    more = {"schema": msgspec.json.encode(AVRO).decode()} if name == "avro" else {}
    return codec_of(name, spec_of(2), **(keys or KEYS), **more)


def message(name: str, **fields: Any) -> bytes:
    if name != "avro":
        return getattr(msgspec, name).encode(fields)
    out = BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(AVRO), {"x": None, "end": None, "n": None, "at": None} | fields
    )
    return out.getvalue()


@pytest.mark.parametrize("name", ["json", "msgpack", "avro"])
def test_fields(name: str) -> None:
    """Each field says what a header would; what is left out or null is not known; a message may only end its stream."""
    parts = [
        message(name, x=[1.0, 2.0], n=7, at=3),
        message(name, end=True),
        message(name, x=[[1.0, 2.0], [3.0, 4.0]], end=True, at="1970-01-01T00:00:01.5Z"),
        message(name, x=[[1.0, 2.0]], end=False, at=0.25),
        None,
    ]
    codec = reader(name)
    found = codec.decode_many(parts)
    assert not found.errors
    assert found.frames[0].tolist() == [[1, 2], [1, 2], [3, 4], [1, 2]]
    assert found.counts.tolist() == [1, 0, 2, 1, 0]
    assert found.single.tolist() == [True, False, False, False, False]
    assert found.ends.tolist() == [False, True, True, False, False]
    assert found.seqs.tolist() == [7, NO_SEQ, NO_SEQ, NO_SEQ, NO_SEQ]
    assert found.times_ns.tolist() == [3 * SECOND, NO_TIME, SECOND * 3 // 2, SECOND // 4, NO_TIME]
    check_many(codec, spec_of(2), parts)
    one = codec.decode(parts[1])
    assert (len(one), one.end, one.seq, one.time_ns) == (0, True, None, None)
    one = codec.decode(parts[0])
    assert (len(one), one.end, one.seq, one.time_ns) == (1, False, 7, 3 * SECOND)


@pytest.mark.parametrize("name", ["json", "msgpack", "avro"])
def test_bad_frames_still_end_their_stream(name: str) -> None:
    """What the fields say holds where the frames beside them are bad; where a field is bad itself, nothing of the message does."""
    found = reader(name).decode_many(
        [message(name, x=[1.0], end=True, n=3), message(name, x=[1.0, 2.0], end=True, n="3")]
    )
    assert found.ends.tolist() == [True, False]
    assert found.seqs.tolist() == [3, NO_SEQ]
    assert found.counts.tolist() == [0, 0]
    assert "expected a frame (2,)" in str(found.errors[0])
    assert str(found.errors[1]) == "'n': Expected `int`, got `str`"


def test_columns_are_told() -> None:
    """What a payload says replaces what its record said, an end adds to it; what it does not say leaves it as it was."""
    parts: list[bytes | None] = [b'{"x": [1, 2], "n": 7, "at": 3}', b'{"end": true}', b'{"x": [1, 2]}', None]
    zeros, ends = np.zeros(4, np.int64), np.array([False, False, False, True])
    columns = Columns(
        ["p"], zeros, zeros, zeros, [*"abcd"], [], zeros, np.full(4, 5), zeros, np.full(4, NO_SEQ), ends, ends, {}, parts
    )  # fmt: skip
    codec_of("json", spec_of(2)).decode_many(parts).tell(columns)
    assert columns.seqs.tolist() == [NO_SEQ] * 4
    reader("json").decode_many(parts).tell(columns)
    assert columns.ends.tolist() == [False, True, False, True]
    assert columns.seqs.tolist() == [7, NO_SEQ, NO_SEQ, NO_SEQ]
    assert columns.times_ns.tolist() == [3 * SECOND, 5, 5, 5]


@pytest.mark.parametrize("name", ["msgpack", "avro"])
@given(us=st.integers(-(2**50), 2**50))
def test_timestamps(name: str, us: int) -> None:
    """MessagePack's timestamps and Avro's logical ones keep every microsecond."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    schema = {
        "type": "record",
        "name": "M",
        "fields": [{"name": "value", "type": LISTS}, {"name": "t", "type": AVRO["fields"][3]["type"][4]}],
    }
    if name == "msgpack":
        codec, payload = (
            codec_of(name, spec_of(2), time_field="t"),
            msgspec.msgpack.encode({"value": [1.0, 2.0], "t": at}),
        )
    else:
        codec, out = codec_of(name, spec_of(2), time_field="t", schema=msgspec.json.encode(schema).decode()), BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"value": [1.0, 2.0], "t": at})
        payload = out.getvalue()
    assert codec.decode(payload).time_ns == us * 1000


@pytest.mark.parametrize(
    ("unit", "number"), [("s", "1700000000.123456789"), ("ns", "1700000000123456789"), ("ms", "1700000000123.456789")]
)
def test_no_digit_of_a_time_is_lost(unit: str, number: str) -> None:
    """A JSON number is read as it is written, not as a float; a unit says what it counts."""
    codec = codec_of("json", spec_of(2), time_field="t", time_unit=unit)
    assert codec.decode(b'{"value": [1, 2], "t": %s}' % number.encode()).time_ns == 1700000000123456789


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"[1, 2]", "not a JSON object"),
        (b"{}", r"the payload has no 'x' and does not end its stream \('end': true\)"),
        (b'{"x": null}', "no 'x'"),
        (b'{"x": [1, 2], "n": -1}', "'n' is -1, expected a frame's number"),
        (b'{"x": [1, 2], "end": 1}', "'end': Expected `bool`, got `int`"),
        (b'{"x": [1, 2], "at": "soon"}', "'at': 'soon' is not a time"),
        (b'{"x": [1, 2], "at": [1]}', "is not a time"),
        (b'{"x": [1, 2], "at": 1e300}', "outside of the years"),
        (b'{"x": [1, 2], "y": 1}', r"a field 'y', expected \['x', 'end', 'n', 'at'\]"),
    ],
)
def test_refusals(payload: bytes, message: str) -> None:
    """What does not fit the fields is refused with the field's name, alone and among others."""
    codec = reader("json")
    with pytest.raises(CodecError, match=message):
        codec.decode(payload)
    found = codec.decode_many([b'{"x": [1, 2]}', payload])
    assert found.counts.tolist() == [1, 0]
    assert list(found.errors) == [1]


def test_times_that_are_none() -> None:
    """A value of another kind, or a year that nanoseconds do not reach, is no event time."""
    codec = codec_of("msgpack", spec_of(2), time_field="t")
    for at, message in (
        (True, "got `bool`"),
        ([1], "got `list`"),
        (datetime(2500, 1, 1, tzinfo=UTC), "outside of the years"),
    ):
        with pytest.raises(CodecError, match=message):
            codec.decode(msgspec.msgpack.encode({"value": [1.0, 2.0], "t": at}))


def test_other_fields_may_be_passed_over() -> None:
    """With extra_fields = "ignore" an object may have what nobody named; the value may be named alone, and hold inputs by name."""
    codec = codec_of("json", two_inputs(), value_field="data", extra_fields="ignore")
    found = codec.decode_many([b'{"data": {"b": 7, "a": [1, 2]}, "device": "d-1"}'])
    assert [f.tolist() for f in found.frames] == [[[1, 2]], [7]]
    assert found.ends is found.seqs is found.times_ns is None


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=20),
            st.sampled_from([b'{"x":[1,2]}', b'{"x":[[1,2],[3,4]],"n":1}', b'{"end":true}']),
        ),
        max_size=6,
    )
)
def test_any_payloads(parts: list[bytes | None]) -> None:
    """Any bytes at all, with fields: many are what one by one are."""
    check_many(reader("json"), spec_of(2), parts)


@pytest.mark.parametrize(
    ("keys", "writes", "message"),
    [
        ({"time_unit": "ms"}, False, "time_unit: is for time_field"),
        ({"extra_fields": "ignore"}, False, "extra_fields: no field is named"),
        ({"end_field": "value"}, False, "has a name twice"),
        ({"end_field": "end"}, True, r"\[sink.codec\] end_field: is for payloads that are read"),
    ],
)
def test_keys_that_say_nothing(keys: dict[str, str], writes: bool, message: str) -> None:
    """A key without effect is refused, by every codec that has it."""
    for name in ("json", "msgpack", "avro"):
        with pytest.raises(ConfigError, match=message):
            codec_of(name, spec_of(2), writes, **keys)


def test_codecs_without_fields_have_no_such_keys() -> None:
    """The keys of fields are refused where payloads have none."""
    for name in ("raw", "pcm16", "numpy", "arrow"):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            codec_of(name, spec_of(2), end_field="end")


def test_the_speed_path_takes_frames_of_objects() -> None:
    """A thousand objects of one frame each, some of which only end their stream, keep their places."""
    parts = [b'{"x": [%d, 1], "n": %d}' % (i, i) if i % 3 else b'{"end": true}' for i in range(1000)]
    found = reader("json").decode_many(parts)
    here = [i for i in range(1000) if i % 3]
    assert found.frames[0][:, 0].tolist() == here
    assert found.ends.tolist() == [not i % 3 for i in range(1000)]
    assert found.seqs[here].tolist() == here
    np.testing.assert_array_equal(found.counts, ~found.ends)
