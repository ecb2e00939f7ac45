"""Payload codecs: round trips by every codec, the JSON payload rule, and a refusal for everything that does not fit."""

import math
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from undertow.connectors.codecs import frames_of
from undertow.connectors.npy import npy_bytes
from undertow.connectors.payloads import Frames
from undertow.connectors.records import Record, Unreadable
from undertow.engine.artifact import StepSpec, TensorSpec
from undertow.engine.errors import CodecError, ConfigError

from .codec_cases import codec_of
from .file_cases import answer, spec_of, two_inputs

SHAPES = st.sampled_from([(), (1,), (3,), (2, 3)])
DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")


def values_of(dtype: str) -> Any:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
    return hnp.from_dtype(np.dtype(dtype), **(finite or {}))


@pytest.mark.parametrize("name", ["json", "msgpack", "raw", "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_round_trip(name: Any, dtype: str, data: st.DataObject) -> None:
    """A chunk of any shape and dtype that is encoded as an answer decodes to the same bits."""
    shape = data.draw(SHAPES)
    chunk = data.draw(hnp.arrays(dtype, (data.draw(st.integers(2, 4)), *shape), elements=values_of(dtype)))
    codec = codec_of(name, spec_of(*shape, dtype=dtype))
    found = codec.decode(codec.encode(answer("s", 0, y=chunk)))
    assert not found.single
    assert found.arrays["x"].dtype == dtype
    assert found.arrays["x"].tobytes() == chunk.tobytes()


@pytest.mark.parametrize("name", ["json", "msgpack", "numpy", "raw"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_single_frame(name: Any, shape: tuple[int, ...]) -> None:
    """A payload that is one frame gives (1, *frame) and says that it was one."""
    frame = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    payload = {
        "json": msgspec.json.encode(frame.tolist()),
        "msgpack": msgspec.msgpack.encode(frame.tolist()),
        "numpy": npy_bytes(frame),
        "raw": frame.astype("<f4").tobytes(),
    }[name]
    found = codec_of(name, spec_of(*shape)).decode(payload)
    assert found.single
    assert found.arrays["x"].shape == (1, *shape)
    np.testing.assert_array_equal(found.arrays["x"][0], frame)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_inputs_by_name(name: Any) -> None:
    """A model with several inputs takes an object of them; members missing, unknown or of unequal lengths are refused."""
    encode = getattr(msgspec, name).encode
    codec = codec_of(name, two_inputs())
    found = codec.decode(encode({"b": [7, 8], "a": [[1, 2], [3, 4]]}))
    assert found.arrays["b"].tolist() == [7, 8]
    assert found.arrays["b"].dtype == np.int64
    assert found.arrays["a"].tolist() == [[1, 2], [3, 4]]
    assert codec.decode(encode({"b": 7, "a": [1, 2]})).single
    with pytest.raises(CodecError, match=r"the object has \['a'\], the model has inputs \['a', 'b'\]"):
        codec.decode(encode({"a": [1, 2]}))
    with pytest.raises(CodecError, match="expected as many of each"):
        codec.decode(encode({"b": [7], "a": [[1, 2], [3, 4]]}))
    with pytest.raises(CodecError, match=r"not a .* object"):
        codec.decode(encode([[1, 2]]))


def test_raw_of_several_inputs() -> None:
    """The arrays of several inputs lie one after the other."""
    a, b = np.array([[1, 2], [3, 4]], "<f4"), np.array([7, -8], "<i8")
    found = codec_of("raw", two_inputs()).decode(a.tobytes() + b.tobytes())
    np.testing.assert_array_equal(found.arrays["a"], a)
    np.testing.assert_array_equal(found.arrays["b"], b)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "0 deep"),
        (b"{}", "0 deep"),
        (b"null", "0 deep"),
        (b"[[[1]]]", "3 or more deep"),
        (b"[" * 1_000_000, "3 or more deep"),
        (b"[1, 2]", r"has shape \(2,\) \(a frame\), expected a frame \(3,\)"),
        (b"[[1, 2]]", r"has shape \(1, 2\) \(a chunk\)"),
        (b"[[1, 2, 3], [4]]", "not an even array"),
        (b"[[]]", r"has shape \(1, 0\)"),
        (b"[1, 2, NaN]", "not the JSON of numbers"),
        (b"[1, 2, 1e999]", "not the JSON of numbers"),
        (b"[1, 2, 1e300]", "is not a finite float32"),
        (b"[1, 2, true]", "Expected `float`, got `bool`"),
        (b'[1, 2, "3"]', "Expected `float`, got `str`"),
        (b"[1, 2, null]", "got `null`"),
        (b"[1, 2, 3", "truncated"),
        (b"[1, 2, 3] 4", "trailing"),
        (b"[1, 2, [3, [[[4", "not the JSON of numbers"),
        (b"\xff\xfe", "0 deep"),
    ],
)
def test_json_refusals(payload: bytes, message: str) -> None:
    """What is not finite numbers in the model's shape is refused with what it is and what was expected."""
    with pytest.raises(CodecError, match=message):
        codec_of("json", spec_of(3)).decode(payload)


def test_empty_chunk() -> None:
    """An empty list is a chunk without frames, never a frame."""
    found = codec_of("json", spec_of(3)).decode(b"[]")
    assert len(found) == 0
    assert not found.single
    assert found.arrays["x"].shape == (0, 3)


@pytest.mark.parametrize("value", [300, -129, 2**70, 1.5])
def test_integers_that_do_not_fit(value: Any) -> None:
    """A number that the dtype does not hold is refused, not wrapped around."""
    with pytest.raises(CodecError):
        codec_of("json", spec_of(1, dtype="int8")).decode(
            msgspec.json.encode([value]) if value != 2**70 else b"[%d]" % value
        )


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    """Any bytes at all give frames of the right shape or CodecError, by every codec."""
    for name in ("json", "msgpack", "raw", "pcm16", "numpy"):
        for prefix in (b"", b"[", b"\x92", npy_bytes(np.zeros((1, 2), np.float32))[:60]):
            try:
                found = codec_of(name, spec_of(2)).decode(prefix + payload)
            except CodecError:
                continue
            assert found.arrays["x"].shape[1:] == (2,)


def test_msgpack_claims_are_not_allocated() -> None:
    """A MessagePack header that claims 2**32 items of a few bytes is refused at once."""
    with pytest.raises(CodecError):
        codec_of("msgpack", spec_of(2)).decode(b"\xdd\xff\xff\xff\xff\x92\x01\x02")


def test_npy_claims_are_not_allocated() -> None:
    """A .npy header that claims petabytes is refused by its length, before an array is made."""
    honest = npy_bytes(np.zeros((2, 2), np.float32))
    lie = honest.replace(b"(2, 2), }       ", b"(2000000000, 2)}")
    assert lie != honest
    with pytest.raises(CodecError, match=r"header .* says 16000000128"):
        codec_of("numpy", spec_of(2)).decode(lie)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\), expected \(2,\)"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros(2, complex), "expected numbers"),
        (np.zeros(2, bool), None),
        (np.zeros(2, np.int64), None),
    ],
)
def test_npy_arrays(array: np.ndarray, message: str | None) -> None:
    """Arrays of another shape, of text or of complex numbers are refused; numbers that fit become the model's dtype."""
    codec = codec_of("numpy", spec_of(2))
    if message is None:
        assert codec.decode(npy_bytes(array)).arrays["x"].dtype == np.float32
        return
    with pytest.raises(CodecError, match=message):
        codec.decode(npy_bytes(array))


def test_npy_has_no_pickle() -> None:
    """An array of objects, which only a pickle holds, is refused before anything of it is loaded."""
    from io import BytesIO

    out = BytesIO()
    np.save(out, np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(CodecError, match="expected numbers"):
        codec_of("numpy", spec_of(2)).decode(out.getvalue())


def test_raw_refusals() -> None:
    """Bytes that are no whole number of frames, and bools other than 0 and 1, are refused."""
    with pytest.raises(CodecError, match="has 7 bytes, expected a multiple of 8"):
        codec_of("raw", spec_of(2)).decode(bytes(7))
    with pytest.raises(CodecError, match="has a byte 2, expected 0 or 1"):
        codec_of("raw", spec_of(2, dtype="bool")).decode(b"\x01\x02")
    with pytest.raises(ConfigError, match="have no values"):
        codec_of("raw", spec_of(0))


def test_pcm16() -> None:
    """16-bit samples are floats of 32768ths, exactly; back again they are the same, clipped at the ends."""
    samples = np.array([[-32768, -1], [0, 1], [32767, 2]], "<i2")
    codec = codec_of("pcm16", spec_of(2))
    found = codec.decode(samples.tobytes()).arrays["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found * 32768, samples)
    assert codec.encode(answer("s", 0, y=found)) == samples.tobytes()
    loud = np.float64([2, -2, 1e308, -1e308])
    assert np.frombuffer(codec.encode(answer("s", 0, y=loud)), "<i2").tolist() == [32767, -32768] * 2
    with pytest.raises(CodecError, match="multiple of 4"):
        codec.decode(bytes(6))
    with pytest.raises(CodecError, match="finite"):
        codec.encode(answer("s", 0, y=np.float32([np.nan])))


def test_codecs_that_cannot_carry_the_model() -> None:
    """A codec says at the start that it cannot hold the model's inputs."""
    with pytest.raises(ConfigError, match="expected one of a float dtype"):
        codec_of("pcm16", spec_of(2, dtype="int64"))
    with pytest.raises(ConfigError, match="use json, msgpack or raw"):
        codec_of("numpy", two_inputs())


def test_answers_with_several_values() -> None:
    """Several values are an object by name in json and msgpack; labels are text; codecs of numbers refuse text."""
    labels = answer("s", 0, label=["walk", "run"], confidence=np.array([0.5, 1.0]))
    codec = codec_of("json", spec_of(2))
    assert msgspec.json.decode(codec.encode(labels)) == {"label": ["walk", "run"], "confidence": [0.5, 1.0]}
    for name in ("raw", "numpy", "pcm16"):
        with pytest.raises(CodecError):
            codec_of(name, spec_of(2)).encode(labels)  # pyright: ignore[reportArgumentType]


def test_numbers_that_json_has_not() -> None:
    """An output that is not finite is written as text that says which, not as null."""
    codec = codec_of("json", spec_of(4))
    text = codec.encode(answer("s", 0, y=np.array([[np.nan, np.inf, -np.inf, 1]])))
    assert msgspec.json.decode(text) == [["NaN", "Infinity", "-Infinity", 1.0]]


def test_frames_of_a_record() -> None:
    """Whatever form a record's value has, one call gives its frames or raises CodecError that says where."""
    codec = codec_of("json", spec_of(2))
    arrays = {"x": np.zeros((1, 2), np.float32)}
    assert frames_of(Record("p", 3, 4, "s", None), codec) is None
    assert frames_of(Record("p", 3, 4, "s", arrays, single=True), None) == Frames(arrays, True)
    found = frames_of(Record("p", 3, 4, "s", b"[1, 2]"), codec)
    assert found is not None
    assert found.arrays["x"].tolist() == [[1, 2]]
    for value, message in ((b"[1]", "p/3: input 'x'"), (Unreadable(b"?", "so"), "p/3: so"), (7, "p/3: .* is int")):
        with pytest.raises(CodecError, match=message):
            frames_of(Record("p", 3, 4, "s", value), codec)
    with pytest.raises(CodecError, match="the source has no codec"):
        frames_of(Record("p", 3, 4, "s", b"[1, 2]"), None)


@pytest.mark.skipif(sys.byteorder != "little", reason="compares with this machine's own order")
def test_raw_is_little_endian() -> None:
    """The bytes of a raw payload are the numbers' little-endian bytes."""
    spec = StepSpec((TensorSpec("x", (), "int16"),), (TensorSpec("y", (), "int16"),), ())
    assert codec_of("raw", spec).decode(b"\x02\x01").arrays["x"].tolist() == [258]
    assert codec_of("raw", spec).encode(answer("s", 0, y=np.array([258], ">i2"))) == b"\x02\x01"
