"""Avro: datums bare and framed, schemas given, derived, fetched and registered, and what is refused."""

import base64
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest

from undertow.connectors.codecs import make_codec
from undertow.connectors.payloads import Codec, Use
from undertow.connectors.schema_registry import SchemaRegistry
from undertow.connectors.secret import Secret, hidden
from undertow.engine.errors import CodecError, ConfigError, ConnectorError

from .codec_cases import check_many, codec_of, config_of
from .file_cases import answer, spec_of, two_inputs
from .registry import Registry, running

FLOATS = {"type": "array", "items": "float"}
FRAME = {"type": "record", "name": "Frame", "fields": [{"name": "x", "type": FLOATS}]}


def text(schema: Any) -> str:
    return msgspec.json.encode(schema).decode()


def datum(schema: Any, value: Any, id: int | None = None) -> bytes:
    out = BytesIO(b"" if id is None else b"\0" + id.to_bytes(4, "big"))
    out.seek(0, 2)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def reader(registry: Registry, **keys: Any) -> Codec:
    return codec_of("avro", spec_of(2), registry=f"http://{registry.host}", **keys)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running() as found:
        yield found


def test_bare_datums(tmp_path: Path) -> None:
    """The schema may be a file beside the pipeline or stand in it; a record by inputs' names, or the array of the only one."""
    (tmp_path / "frame.avsc").write_text(text(FRAME))
    for keys in ({"schema": "frame.avsc", "folder": tmp_path}, {"schema": text(FRAME)}):
        found = codec_of("avro", spec_of(2), **keys).decode(datum(FRAME, {"x": [1, 2]}))
        assert found.single
        assert found.arrays["x"].tolist() == [[1, 2]]
    assert codec_of("avro", spec_of(2), schema=text(FLOATS)).decode(datum(FLOATS, [3, 4])).arrays["x"].tolist() == [
        [3, 4]
    ]
    both = {"type": "record", "name": "M", "fields": [{"name": "b", "type": "long"}, {"name": "a", "type": FLOATS}]}
    found = codec_of("avro", two_inputs(), schema=text(both)).decode(datum(both, {"b": 7, "a": [1, 2]}))
    assert [found.arrays["a"].tolist(), found.arrays["b"].tolist()] == [[[1, 2]], [7]]


def test_union_of_a_record_and_an_array() -> None:
    """Datums of one schema may differ in form, and stand beside each other."""
    either, spec = [FRAME, FLOATS], spec_of(2)
    parts = [datum(either, {"x": [1, 2]}), datum(either, [3, 4]), b"", datum(either, [3])]
    codec = codec_of("avro", spec, schema=text(either))
    check_many(codec, spec, parts)
    assert codec.decode_many(parts).frames[0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (FRAME, {"x": [1]}, r"shape \(1,\) \(a frame\), expected a frame \(2,\)"),
        (FRAME, {"x": [1, float("nan")]}, "nan is not a finite float32"),
        ({**FRAME, "fields": [{"name": "z", "type": FLOATS}]}, {"z": [1, 2]}, r"the object has \['z'\], the model has inputs \['x'\]"),
        ("string", "[1, 2]", "lists 0 deep"),
        ({"type": "array", "items": "string"}, ["1", "2"], "Expected `float`, got `str`"),
        ({"type": "array", "items": "boolean"}, [True, False], "Expected `float`, got `bool`"),
        ({"type": "array", "items": ["null", "float"]}, [1.0, None], "got `null`"),
        ("null", None, "lists 0 deep"),
    ],
)  # fmt: skip
def test_datums_that_do_not_fit(schema: Any, value: Any, message: str) -> None:
    """What is not finite numbers of the model's shape is refused like a JSON payload."""
    with pytest.raises(CodecError, match=message):
        codec_of("avro", spec_of(2), schema=text(schema)).decode(datum(schema, value))


def test_integers_stay_integers() -> None:
    """Doubles are no integers; integers are floats; and what an int8 does not hold is refused."""
    doubles, longs = {"type": "array", "items": "double"}, {"type": "array", "items": "long"}
    for dtype, schema, good in (("int64", doubles, False), ("int64", longs, True), ("float32", longs, True)):
        codec = codec_of("avro", spec_of(2, dtype=dtype), schema=text(schema))
        if good:
            assert codec.decode(datum(schema, [1, 2])).arrays["x"].dtype == dtype
        else:
            with pytest.raises(CodecError, match="Expected `int`, got `float`"):
                codec.decode(datum(schema, [1, 2]))
    with pytest.raises(CodecError, match="not an even array of int8"):
        codec_of("avro", spec_of(1, dtype="int8"), schema=text(longs)).decode(datum(longs, [300]))


def test_damaged_datums() -> None:
    """Bytes that end too early, go on after the datum, or say no schema's id are refused with their length."""
    codec, good = codec_of("avro", spec_of(2), schema=text(FRAME)), datum(FRAME, {"x": [1, 2]})
    with pytest.raises(CodecError, match=r"has 5 bytes and ends before"):
        codec.decode(good[:5])
    with pytest.raises(CodecError, match="has 12 bytes, its Avro datum ends 2 before the end"):
        codec.decode(good + b"\0\0")
    with pytest.raises(CodecError, match="not an Avro datum of its schema"):
        codec_of("avro", spec_of(2), schema=text(["null", "long"])).decode(b"\x7e")


def test_arrays_of_nothing_are_refused() -> None:
    """A schema by which a few bytes could claim any number of items is refused before a payload is read."""
    empty = {"type": "record", "name": "E", "fields": []}
    for items in (
        "null",
        empty,
        {"type": "fixed", "name": "F", "size": 0},
        {**empty, "fields": [{"name": "a", "type": "null"}]},
    ):
        with pytest.raises(ConfigError, match="not bounded by the payload's"):
            codec_of("avro", spec_of(2), schema=text({"type": "array", "items": items}))
    tree = {"type": "record", "name": "T", "fields": [{"name": "sub", "type": {"type": "array", "items": "T"}}]}
    codec_of("avro", spec_of(2), schema=text(tree))


@pytest.mark.parametrize(
    ("keys", "writes", "message"),
    [
        ({}, False, "give schema or registry"),
        ({"schema": "none.avsc"}, False, r"schema .*none\.avsc: cannot be read"),
        ({"schema": '{"type": "arra"}'}, False, "is not an Avro schema"),
        ({"schema": "{"}, False, "truncated"),
        ({"schema": '"float"', "subject": "s"}, False, "subject: is for payloads that are written"),
        ({"subject": "s"}, True, "subject: is for a registry"),
        ({"registry": "http://127.0.0.1:1"}, True, "give subject"),
        ({"registry": "ftp://127.0.0.1:1"}, False, "is not an address"),
        ({"registry": "http://user:secret@host:port"}, False, "is not an address"),
        ({"registry": "http://user:secret@host"}, False, "user and password are keys of their own"),
        ({"registry_user": "me"}, True, "registry_user: is for a registry, which is not given"),
        ({"registry": "http://host", "registry_user": "me"}, False, "one is given without the other"),
        ({"registry": "http://host", "registry_password": "secret"}, False, "one is given without the other"),
        (
            {"registry": "http://host", "registry_password": "secret", "registry_password_file": "p"},
            False,
            "both are given",
        ),
        (
            {"registry": "http://host", "registry_user": "me", "registry_password_file": "none"},
            False,
            "none cannot be read",
        ),
    ],
)
def test_settings_that_do_not_fit(keys: dict[str, str], writes: bool, message: str) -> None:
    """Wrong and useless keys are refused when the pipeline is opened; a password in them is not shown."""
    config = config_of("avro", **keys)
    with pytest.raises(ConfigError, match=message) as raised:
        make_codec(config, spec_of(2), Use(writes=writes))
    assert "secret" not in str(raised.value)


def test_framed_datums(registry: Registry) -> None:
    """The writer's schema is that of the id, asked for once, with user and password."""
    registry.add(7, FRAME)
    codec = codec_of(
        "avro", spec_of(2), registry=f"http://{registry.host}/", registry_user="me", registry_password="p@ss"
    )
    parts = [datum(FRAME, {"x": [i, 2]}, 7) for i in range(100)]
    assert codec.decode_many(parts).frames[0][:, 0].tolist() == list(range(100))
    assert codec.decode(parts[5]).arrays["x"].tolist() == [[5, 2]]
    user = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert registry.asked == [("GET", "/schemas/ids/7", user)]


def test_a_password_from_a_file(registry: Registry, tmp_path: Path) -> None:
    """The password may be in a file beside the pipeline; no settings that are printed show it."""
    registry.add(7, FRAME)
    (tmp_path / "password").write_text("from-a-file\n")
    keys = {"registry": f"http://{registry.host}", "registry_user": "me", "registry_password_file": "password"}
    codec_of("avro", spec_of(2), folder=tmp_path, **keys).decode(datum(FRAME, {"x": [1, 2]}, 7))
    assert registry.asked[0][2] == "Basic " + base64.b64encode(b"me:from-a-file").decode()
    shown = config_of("avro", registry="http://host", registry_user="me", registry_password="hush")
    assert "hush" not in f"{shown}{msgspec.to_builtins(shown, enc_hook=hidden)}"


def test_a_reader_schema_resolves(registry: Registry) -> None:
    """With both a registry and a schema, what was written by another version is read as the given one: fields dropped, defaults filled in."""
    old = {**FRAME, "fields": [{"name": "device", "type": "string"}, *FRAME["fields"]]}
    registry.add(1, old)
    registry.add(2, FRAME)
    codec = reader(registry, schema=text(FRAME))
    parts = [datum(old, {"device": "d", "x": [1, 2]}, 1), datum(FRAME, {"x": [3, 4]}, 2)]
    assert codec.decode_many(parts).frames[0].tolist() == [[1, 2], [3, 4]]
    registry.add(3, "string")
    with pytest.raises(CodecError, match="not an Avro datum of its schema"):
        codec.decode(datum("string", "a", 3))


def test_references(registry: Registry) -> None:
    """A schema that names others in the registry is read with them; one that names itself is refused."""
    part = {"type": "record", "name": "Part", "fields": [{"name": "x", "type": FLOATS}]}
    registry.replies["/subjects/part%2Fs/versions/3"] = {"schema": text(part)}
    refers = [{"name": "Part", "subject": "part/s", "version": 3}]
    whole = {"type": "record", "name": "Whole", "fields": [{"name": "value", "type": "Part"}]}
    registry.add(9, whole, references=refers)
    full = {**whole, "fields": [{"name": "value", "type": part}]}
    codec = reader(registry, value_field="value")
    assert codec.decode(datum(full, {"value": {"x": [1, 2]}}, 9)).arrays["x"].tolist() == [[1, 2]]
    registry.replies["/subjects/part%2Fs/versions/3"]["references"] = refers
    registry.add(10, whole, references=refers)
    with pytest.raises(CodecError, match="refers to itself"):
        codec.decode(datum(full, {"value": {"x": [1, 2]}}, 10))


def test_unknown_schemas_are_the_payloads_fault(registry: Registry) -> None:
    """An id that the registry does not know, or knows as something else, spoils its payloads and is asked for once."""
    registry.add(1, FRAME)
    registry.add(2, FRAME, schemaType="PROTOBUF")
    registry.add(3, {"type": "arra"})
    good = datum(FRAME, {"x": [1, 2]}, 1)
    parts = [datum(FRAME, {"x": [1, 2]}, id) for id in (5, 2, 3, 5)] + [good, b"\1" + good[1:], b"\0\0", b""]
    codec = reader(registry)
    found = codec.decode_many(parts)
    assert found.counts.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    said = [
        "has no schema 5",
        "as PROTOBUF",
        "not an Avro schema",
        "has no schema 5",
        "begins with 01",
        "begins with 0000",
        "begins with ",
    ]
    for error, words in zip(found.errors.values(), said, strict=True):
        assert words in str(error)
    check_many(codec, spec_of(2), parts)
    assert [path for _, path, _ in registry.asked].count("/schemas/ids/5") == 1


def test_a_registry_that_fails(registry: Registry) -> None:
    """A failure that passes is tried again; one that stays is the registry's, not the payload's, and shows no password."""
    registry.add(1, FRAME)
    pauses: list[float] = []
    made = SchemaRegistry(f"http://{registry.host}", "me", Secret("secret"), pauses.append)
    registry.failures = [503, 429]
    assert made.schemas(1) == [FRAME]
    assert pauses == [0.2, 1.0]
    registry.replies["/schemas/ids/4"] = b"<html>"
    for failures, id, message in (
        ([500] * 3, 2, "HTTP 500"),
        ([401], 3, "HTTP 401.*told to fail"),
        ([], 4, "not a registry's reply"),
    ):
        registry.failures = failures
        with pytest.raises(ConnectorError, match=message) as raised:
            made.schemas(id)
        assert "secret" not in str(raised.value)
        assert registry.host in str(raised.value)
    with pytest.raises(ConnectorError, match="cannot be reached"):
        SchemaRegistry("http://127.0.0.1:1", sleep=pauses.append).schemas(1)


def test_outputs_have_a_schema_of_their_own() -> None:
    """Without a schema it is derived: a record of the outputs by name, each an array of its rows, labels as text."""
    values = {
        "label": np.array(["walk", "run"]),
        "y": np.float32([[1, np.inf], [3, 4]]),
        "n": np.int8([1, 2]),
        "ok": np.array([True, False]),
    }
    payload = codec_of("avro", spec_of(2), writes=True).encode(answer("s", 0, **values))
    fields = [("label", "string"), ("y", FLOATS), ("n", "int"), ("ok", "boolean")]
    schema = {
        "type": "record", "name": "Outputs", "namespace": "undertow",
        "fields": [{"name": n, "type": {"type": "array", "items": kind}} for n, kind in fields],
    }  # fmt: skip
    found = fastavro.schemaless_reader(BytesIO(payload), fastavro.parse_schema(schema), None)
    assert found == {n: a.tolist() for n, a in values.items()}
    with pytest.raises(CodecError, match="output '/head/out' is no Avro name"):
        codec_of("avro", spec_of(2), writes=True).encode_many({"/head/out": np.zeros(1)}, np.array([1]))


def test_outputs_are_registered(registry: Registry) -> None:
    """With a registry the schema is registered once under the topic's name or the given subject, and its id goes before each datum."""
    config = config_of("avro", registry=f"http://{registry.host}")
    for use, keys, subject in (
        (Use(topic="out puts", writes=True), {}, "out%20puts-value"),
        (Use(writes=True), {"subject": "s"}, "s"),
    ):
        codec = make_codec(msgspec.structs.replace(config, **keys), spec_of(2), use)
        for _ in range(2):
            payloads = codec.encode_many({"x": np.float32([[1, 2], [3, 4], [5, 6]])}, np.array([1, 2]))
        assert registry.registered[-1][0] == f"/subjects/{subject}/versions"
        assert reader(registry).decode_many(payloads).frames[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [method for method, _, _ in registry.asked].count("POST") == 2
    registry.failures = [409]
    with pytest.raises(ConnectorError, match="HTTP 409"):
        codec.encode_many({"x": np.float64([1])}, np.array([1]))


def test_given_schemas_of_outputs() -> None:
    """A given schema may have unions, defaults and enums, or be the array of the only output; what it would lose is refused."""
    rows = {"type": "array", "items": FLOATS}
    label = {"type": "enum", "name": "L", "symbols": ["walk", "run"]}
    fields = [
        {"name": "y", "type": ["null", rows]},
        {"name": "label", "type": {"type": "array", "items": label}},
        {"name": "site", "type": "string", "default": "a"},
    ]
    schema = {"type": "record", "name": "R", "fields": fields}
    codec = codec_of("avro", spec_of(2), True, schema=text(schema))
    values = {"y": np.float64([[1, 2]]), "label": np.array(["run"])}
    found = fastavro.schemaless_reader(
        BytesIO(codec.encode(answer("s", 0, **values))), fastavro.parse_schema(schema), None
    )
    assert found == {"y": [[1, 2]], "label": ["run"], "site": "a"}
    only = codec_of("avro", spec_of(2), True, schema=text(rows))
    assert only.encode(answer("s", 0, y=values["y"])) == datum(rows, [[1, 2]])
    bad = [
        (codec, {**values, "z": np.zeros(1)}, "no field for output 'z', it has"),
        (codec, {**values, "y": np.zeros(1)}, "for output 'y', which is float64 in arrays 1 deep"),
        (codec, {**values, "y": np.zeros((1, 2), int)}, "float in arrays 2 deep for output 'y', which is int64"),
        (codec, {**values, "label": np.array(["fly"])}, "does not fit the Avro schema"),
        (codec, {"y": values["y"]}, "does not fit the Avro schema"),
        (only, values, "no field for output 'label'"),
    ]
    for one, given, message in bad:
        with pytest.raises(CodecError, match=message):
            one.encode_many(given, np.array([1]))


def test_without_fastavro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed the pipeline is refused with what to install."""
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(ConfigError, match=r"pip install 'undertow\[avro\]'"):
        codec_of("avro", spec_of(2))
