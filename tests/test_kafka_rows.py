"""Changelog rows: what is sealed or packed comes back, plain rows many at once as one by one, and damage is noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.columns import NO_SEQ, NO_TIME
from undertow.connectors.kafka.plain_rows import COLUMNS, has_layout, is_plain, pack, unpack
from undertow.connectors.kafka.rows import Row, seal, unseal
from undertow.connectors.streams import Kept
from undertow.engine.errors import CheckpointError

LAYOUT, SIZE = b"layout 1", 24
KEPT = st.builds(Kept, st.integers(0, 2**62), *(st.none() | st.integers(0, 2**62) for _ in range(3)))


def columns(kept: list[Kept]) -> list[np.ndarray]:
    none = {"seq": NO_SEQ, "last_ns": NO_TIME, "due_ns": NO_TIME}
    values = [[getattr(k, name) for k in kept] for name in COLUMNS]
    return [
        np.array([none[name] if v is None else v for v in some], np.int64)
        for name, some in zip(COLUMNS, values, strict=True)
    ]


@given(st.lists(KEPT, min_size=1, max_size=5), st.integers(0, 2**62))
def test_plain_rows_are_rows(kept: list[Kept], offset: int) -> None:
    """A plain row that is read alone is the row that was written; read many at once it has the same columns and state."""
    states = np.random.default_rng(len(kept)).integers(0, 256, (len(kept), SIZE), np.uint8)
    values = pack(offset, LAYOUT, columns(kept), states)
    assert all(is_plain(v, SIZE) for v in values)
    rows, right = unpack(values, SIZE)
    assert right.all()
    assert has_layout(rows, LAYOUT).all()
    assert not has_layout(rows, b"layout 2").any()
    for value, k, state, row in zip(values, kept, states, rows, strict=True):
        assert unseal(value, Row, "here", b"a") == Row(offset, LAYOUT, k, state.tobytes())
        assert row["offset"] == offset
        assert np.array_equal(row["state"], state)
    assert all(np.array_equal(rows[name], c) for name, c in zip(COLUMNS, columns(kept), strict=True))


@given(st.integers(0, 8 * (64 + SIZE) - 1))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    """Of a plain row every bit counts: read alone it is an error that names the stream, among many it is not right or not plain."""
    (value,) = pack(7, LAYOUT, columns([Kept(3)]), np.zeros((1, SIZE), np.uint8))
    wrong = bytearray(value)
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CheckpointError, match=r"here: stream b'a' is damaged"):
        unseal(bytes(wrong), Row, "here", b"a")
    if is_plain(bytes(wrong), SIZE):
        _, right = unpack([value, bytes(wrong)], SIZE)
        assert right.tolist() == [True, False]


@pytest.mark.parametrize("length", [0, 1, 8, 40, 63, 64, 70])
def test_a_row_cut_short_is_noticed(length: int) -> None:
    """A plain or sealed row of which the end is missing names the stream."""
    (plain,) = pack(7, LAYOUT, columns([Kept(3)]), np.zeros((1, SIZE), np.uint8))
    sealed = seal(Row(7, LAYOUT, Kept(3, quarantined="NaN"), bytes(SIZE)))
    for value in (plain, sealed):
        with pytest.raises(CheckpointError, match=r"here: stream b'a' is damaged"):
            unseal(value[:length], Row, "here", b"a")
