"""Arrow IPC streams: columns by inputs' names, rows as frames, and what is refused."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from undertow.engine.errors import CodecError, ConfigError

from .codec_cases import check_many, codec_of
from .file_cases import answer, spec_of, two_inputs


def stream(*batches: Any, **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue().to_pybytes()


def lists(array: np.ndarray) -> Any:
    column = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def batch(**columns: Any) -> Any:
    return pa.record_batch(list(columns.values()), names=list(columns))


FRAMES = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def test_shaped_frames() -> None:
    """Lists in lists, a tensor, slices of them, several batches and compressed ones: the same frames."""
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(FRAMES)
    longer = lists(np.concatenate([FRAMES[:1], FRAMES, FRAMES]))
    halves = [batch(x=lists(FRAMES[:1])), batch(x=lists(FRAMES[1:]))]
    for payload in (
        stream(batch(x=lists(FRAMES))),
        stream(batch(x=tensor)),
        stream(batch(x=longer[1:3])),
        stream(*halves),
        stream(batch(x=lists(FRAMES)), compression="lz4"),
        stream(batch(x=lists(FRAMES)), compression="zstd"),
        stream(batch(x=lists(FRAMES.astype(np.float64)))),
    ):
        found = codec_of("arrow", spec_of(2, 3)).decode(payload)
        np.testing.assert_array_equal(found.arrays["x"], FRAMES)
        assert found.arrays["x"].dtype == np.float32
        assert not found.single


def test_rows_and_columns() -> None:
    """One row is one frame, none is an empty chunk; inputs are columns in any order; bools are bools."""
    codec = codec_of("arrow", two_inputs())
    b, a = pa.array([7], pa.int64()), lists(np.float32([[1, 2]]))
    found = codec.decode(stream(batch(b=b, a=a)))
    assert found.single
    assert [found.arrays["a"].tolist(), found.arrays["b"].tolist()] == [[[1, 2]], [7]]
    empty = codec.decode(stream(batch(b=b[:0], a=a[:0])))
    assert (len(empty), empty.single) == (0, False)
    bools = codec_of("arrow", spec_of(3, dtype="bool")).decode(
        stream(batch(x=lists(np.array([[True, False, True]] * 3)))[1:])
    )
    assert bools.arrays["x"].tolist() == [[True, False, True]] * 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": lists(FRAMES)}, r"the columns are \['y'\], the model has inputs \['x'\]"),
        ({"x": lists(FRAMES), "z": pa.array([1, 2])}, "the columns are"),
        ({"x": lists(FRAMES[:, :, :2])}, r"fixed_size_list.*expected numbers of shape \(2, 3\)"),
        ({"x": pa.array([1.0, 2.0])}, "column 'x' is double, expected"),
        ({"x": pa.array(FRAMES.reshape(2, 6).tolist())}, "column 'x' is list<"),
        ({"x": lists(np.array([["a", "b", "c"]] * 4).reshape(2, 2, 3))}, "string"),
        ({"x": pa.array([None, [[0.0] * 3] * 2], lists(FRAMES).type)}, "has 1 nulls"),
        ({"x": pa.array([[[None] * 3] * 2], lists(FRAMES).type)}, "has 6 nulls"),
        ({"x": lists(FRAMES.astype(np.int64))}, None),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Any], message: str | None) -> None:
    """Other names, shapes and types, and nulls, are refused with the column's type; integers are floats."""
    codec, payload = codec_of("arrow", spec_of(2, 3)), stream(batch(**columns))
    if message is None:
        assert codec.decode(payload).arrays["x"].tolist() == FRAMES.tolist()
        return
    with pytest.raises(CodecError, match=message):
        codec.decode(payload)


def test_floats_are_no_integers() -> None:
    """A column of floats is refused where the model takes integers."""
    with pytest.raises(CodecError, match="the array is float64, model expects int64"):
        codec_of("arrow", spec_of(dtype="int64")).decode(stream(batch(x=pa.array([1.0]))))


def test_a_permuted_tensor() -> None:
    """A tensor whose axes are stored in another order is refused, not mixed up."""
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3), permutation=[1, 0])
    tensor = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(FRAMES.reshape(-1)), 6))
    with pytest.raises(CodecError, match="without a permutation"):
        codec_of("arrow", spec_of(2, 3)).decode(stream(batch(x=tensor)))


def test_streams_that_are_none() -> None:
    """No stream, half a stream, and one with something behind it."""
    codec, good = codec_of("arrow", spec_of(2, 3)), stream(batch(x=lists(FRAMES)))
    for payload in (b"", b"ARROW1", good[:100], good[:-20]):
        with pytest.raises(CodecError, match="not an Arrow IPC stream"):
            codec.decode(payload)
    with pytest.raises(CodecError, match=f"has {len(good) + 4} bytes, its Arrow IPC stream ends at {len(good)}"):
        codec.decode(good + b"more")


def test_unlike_streams_beside_each_other() -> None:
    """Streams of several schemas, bad ones among them: many are what one by one are."""
    parts = [
        stream(batch(x=lists(FRAMES))),
        stream(batch(x=pa.FixedShapeTensorArray.from_numpy_ndarray(FRAMES[:1]))),
        stream(batch(x=pa.array([1.0]))),
        b"?",
        None,
    ]
    codec = codec_of("arrow", spec_of(2, 3))
    check_many(codec, spec_of(2, 3), parts)
    check_many(codec, spec_of(2, 3), parts[:1] * 3 + [b"?", None])
    check_many(codec, spec_of(2, 3), [b"?", None])


@given(place=st.integers(0, 300), byte=st.integers(0, 255))
@example(place=0, byte=0)
def test_a_changed_byte(place: int, byte: int) -> None:
    """A stream of which any one byte is another gives frames of the right shape or CodecError, alone and among others."""
    good = stream(batch(x=lists(FRAMES)))
    place %= len(good)
    codec = codec_of("arrow", spec_of(2, 3))
    check_many(codec, spec_of(2, 3), [good, good[:place] + bytes([byte]) + good[place + 1 :]])


def test_outputs() -> None:
    """Answers are streams of one batch: text, numbers and shaped outputs as columns, the same type in every answer."""
    codec = codec_of("arrow", spec_of(2), writes=True)
    values = {
        "label": np.array(["walk", "run"]),
        "y": FRAMES,
        "n": np.array([1, 2], ">i4"),
        "ok": np.array([True, False]),
    }
    table = pa.ipc.open_stream(codec.encode(answer("s", 0, **values))).read_all()
    assert table.to_pydict() == {name: array.tolist() for name, array in values.items()}
    empty = pa.ipc.open_stream(codec.encode(answer("s", 0, **{n: a[:0] for n, a in values.items()}))).read_all()
    assert empty.schema == table.schema
    with pytest.raises(CodecError, match="at least one a row"):
        codec.encode_many({"y": np.zeros((1, 0))}, np.array([1]))


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed the pipeline is refused with what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'undertow\[arrow\]'"):
        codec_of("arrow", spec_of(2))
