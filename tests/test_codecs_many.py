"""Many payloads at once give what they give one by one, by every codec, whatever stands beside them."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from undertow.connectors.array_codecs import pcm16
from undertow.connectors.codec_config import CodecConfig
from undertow.connectors.codecs import CODECS
from undertow.connectors.npy import npy_bytes
from undertow.engine.artifact import StepSpec, TensorSpec
from undertow.engine.errors import CodecError

from .codec_cases import NAMES, check_many, chunks_schema, codec_of
from .file_cases import answer, spec_of, two_inputs

SHAPES = st.sampled_from([(), (1,), (3,), (2, 3)])
DTYPES = ("float32", "float64", "float16", "int8", "int64", "uint8", "bool")
BYTES = st.one_of(st.none(), st.just(b""), st.just(b"null"), st.just(b"[]"), st.binary(max_size=30))


def written(name: str, spec: StepSpec, arrays: dict[str, np.ndarray], single: bool) -> bytes:
    """A payload with the rows of each input; single: their first one, as a frame."""
    first = next(iter(arrays.values()))
    if name == "numpy":
        return npy_bytes(first[0] if single else first)
    if name == "pcm16":
        return np.ascontiguousarray(pcm16("x", first[:1] if single else first)).tobytes()
    if single and name in ("json", "msgpack", "avro"):
        return tree_bytes(name, spec, {n: a[0].tolist() for n, a in arrays.items()})
    if name == "avro":
        return tree_bytes(name, spec, {n: a.tolist() for n, a in arrays.items()})
    rows = {n: a[:1] if single else a for n, a in arrays.items()}
    return codec_of(name, spec, writes=True).encode(answer("s", 0, **rows))


def tree_bytes(name: str, spec: StepSpec, values: dict[str, Any]) -> bytes:
    if name == "avro":
        from io import BytesIO

        import fastavro

        out = BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(chunks_schema(spec.inputs)), values)
        return out.getvalue()
    only = next(iter(values.values()))
    return getattr(msgspec, name).encode(only if len(values) == 1 else values)


def elements(dtype: str, special: bool) -> Any:
    """special: floats that are not finite too."""
    given = {"allow_nan": special, "allow_infinity": special} if dtype.startswith("float") else {}
    return hnp.from_dtype(np.dtype(dtype), **given)


@st.composite
def payloads(draw: st.DrawFn, name: str, spec: StepSpec) -> list[bytes | None]:
    """Frames, chunks, cut and changed ones, anything, and none."""
    found: list[bytes | None] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["frame", "frame", "frame", "chunk", "cut", "changed", "bytes"]))
        if kind == "bytes":
            found.append(draw(BYTES))
            continue
        rows, special = (1 if kind == "frame" else draw(st.integers(0, 3))), name in ("raw", "numpy", "arrow")
        arrays = {
            t.name: draw(hnp.arrays(t.dtype, (rows, *t.shape), elements=elements(t.dtype, special)))
            for t in spec.inputs
        }
        payload = written(name, spec, arrays, kind == "frame")
        if kind == "cut":
            payload = payload[: draw(st.integers(0, len(payload)))]
        if kind == "changed" and payload and name != "arrow":
            place = draw(st.integers(0, len(payload) - 1))
            payload = payload[:place] + bytes([draw(st.integers(0, 255))]) + payload[place + 1 :]
        found.append(payload)
    return found


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_decode_many_is_decode_of_each(name: str, data: st.DataObject) -> None:
    """Any mixture of payloads: the same rows, counts, single frames and errors as one after the other."""
    dtypes = ("float32", "float64", "float16") if name == "pcm16" else DTYPES
    spec = spec_of(*data.draw(SHAPES), dtype=data.draw(st.sampled_from(dtypes)))
    check_many(codec_of(name, spec), spec, data.draw(payloads(name, spec)))


@pytest.mark.parametrize("name", ["json", "msgpack", "avro", "raw", "arrow"])
@settings(deadline=None)
@given(data=st.data())
def test_decode_many_of_several_inputs(name: str, data: st.DataObject) -> None:
    """The same of a model with two inputs, one of them bool, that is: of payloads that hold one behind the other, or by name."""
    inputs = (TensorSpec("a", (2,), "float32"), TensorSpec("b", (), data.draw(st.sampled_from(["int64", "bool"]))))
    spec = StepSpec(inputs, (TensorSpec("y", (2,), "float32"),), ())
    check_many(codec_of(name, spec), spec, data.draw(payloads(name, spec)))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_encode_many_is_encode_of_each(name: str, data: st.DataObject) -> None:
    """Answers of any lengths, none among them: byte for byte what each gives alone."""
    dtype = "float32" if name == "pcm16" else data.draw(st.sampled_from(DTYPES))
    counts = data.draw(st.lists(st.integers(0, 3), max_size=5))
    shape, special = data.draw(SHAPES), name != "pcm16"
    names = ["y"] if name in ("pcm16", "numpy") else data.draw(st.sampled_from([["y"], ["y", "z"]]))
    values = {n: data.draw(hnp.arrays(dtype, (sum(counts), *shape), elements=elements(dtype, special))) for n in names}
    codec, stops = codec_of(name, spec_of(2), writes=True), np.cumsum(counts).tolist()
    each = [
        codec.encode(answer("s", 0, **{n: a[stop - count : stop] for n, a in values.items()}))
        for stop, count in zip(stops, counts, strict=True)
    ]
    assert codec.encode_many(values, np.array(counts, np.int64)) == each


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_payload_harms_no_other(name: str) -> None:
    """Of a thousand frames, one of which is cut short, 999 are there, each in its place."""
    spec, rows = spec_of(3), np.arange(3000, dtype=np.float32).reshape(1000, 3) / 4096
    parts = [written(name, spec, {"x": rows[i : i + 1]}, True) for i in range(1000)]
    parts[500] = parts[500][:-1]
    found = codec_of(name, spec).decode_many(parts)
    assert list(found.errors) == [500]
    assert found.counts.sum() == found.single.sum() == 999
    np.testing.assert_array_equal(found.frames[0], np.delete(rows, 500, axis=0))


def test_frames_of_numbers_too_large() -> None:
    """A number that is no finite float32 spoils its own frame alone; one that no int8 holds, likewise."""
    found = codec_of("json", spec_of(2)).decode_many([b"[1, 2]", b"[1, 1e300]", b"[3, 4]"])
    assert found.frames[0].tolist() == [[1, 2], [3, 4]]
    assert "1e+300 is not a finite float32" in str(found.errors[1])
    found = codec_of("json", spec_of(1, dtype="int8")).decode_many([b"[1]", b"[300]", b"[3]"])
    assert found.frames[0].tolist() == [[1], [3]]
    assert list(found.errors) == [1]


def test_bools_of_raw_payloads() -> None:
    """A byte that is no bool spoils its own payload alone."""
    found = codec_of("raw", spec_of(2, dtype="bool")).decode_many([b"\0\1", b"\0\2", None, b"\1\1\1\0"])
    assert found.frames[0].tolist() == [[False, True], [True, True], [True, False]]
    assert found.counts.tolist() == [1, 0, 0, 2]
    assert list(found.errors) == [1]


def test_npy_payloads_unlike_the_first() -> None:
    """Other dtypes, orders and lengths than the first one's are read too; where the first is bad, the rest is not."""
    frame = np.arange(6, dtype=np.float32).reshape(2, 3)
    unlike = [np.float64(frame), np.asfortranarray(frame), frame[None], frame.astype(">f4"), frame]
    out = [np.lib.format.header_data_from_array_1_0(a) for a in unlike]
    assert out[1]["fortran_order"]
    parts = [npy_bytes(a) for a in unlike]
    parts[1] = parts[1].replace(b"'fortran_order': False", b"'fortran_order': True ")[:-24] + frame.T.tobytes()
    for first in (b"\x93NUMPY", parts[1], npy_bytes(frame.astype(complex).real), npy_bytes(frame)):
        found = codec_of("numpy", spec_of(2, 3)).decode_many([first, *parts])
        assert list(found.errors) == ([0] if len(first) < 10 else [])
        assert all(row.tolist() == frame.tolist() for row in found.frames[0])


def test_what_is_decoded_may_be_written() -> None:
    """The frames belong to whoever asked: writing in them changes no payload."""
    payload = np.float32([1, 2]).tobytes()
    found = codec_of("raw", spec_of(2)).decode_many([payload])
    found.frames[0][:] = 7
    assert payload == np.float32([1, 2]).tobytes()


@pytest.mark.parametrize("name", ["raw", "pcm16", "numpy", "arrow", "avro"])
def test_answers_that_are_no_numbers(name: str) -> None:
    """What a codec cannot carry is refused, naming the output."""
    codec, lists = codec_of(name, spec_of(2), writes=True), np.empty(1, object)
    lists[0] = [{"word": "walk"}]
    with pytest.raises(CodecError, match=r"output 'y' is lists.* use json or msgpack"):
        codec.encode_many({"y": lists}, np.array([1]))
    if name not in ("arrow", "avro"):
        with pytest.raises(CodecError, match="output 'y' is <U4"):
            codec.encode_many({"y": np.array(["walk"])}, np.array([1]))
    if name == "pcm16":
        with pytest.raises(CodecError, match="finite"):
            codec.encode_many({"y": np.float32([np.nan])}, np.array([1]))


def test_every_codec_of_a_pipeline_can_be_made() -> None:
    """The pipeline file's codecs and the table of makers name the same ones, and so do the tests."""
    assert set(CODECS) == set(CodecConfig.__args__)
    assert sorted(kind.__struct_config__.tag for kind in CODECS) == sorted(NAMES)


def test_no_payloads() -> None:
    """Nothing at all gives arrays without rows, of the model's inputs."""
    for name in ("json", "msgpack", "avro", "raw", "arrow"):
        found = codec_of(name, two_inputs()).decode_many([])
        assert [f.shape for f in found.frames] == [(0, 2), (0,)]
        assert found.counts.shape == found.single.shape == (0,)
        assert found.ends is found.seqs is found.times_ns is None
