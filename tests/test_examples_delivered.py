"""What the examples' page says of deliveries rests on: a difference is found, and an earlier run leaves nothing behind."""

import copy
from pathlib import Path

import pytest

from .example_modules import importable

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXPECTED = {
    "a": [{"label": "walk", "confidence": 0.5}, {"label": "run", "words": [{"word": "x", "begin_s": 1.5}]}],
    "b": [{"y": [1000.0, -2.0]}],
}


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLES):
        yield


CHANGES = {
    "another value": lambda answers: answers["a"][0].update(label="sit"),
    "another number": lambda answers: answers["a"][0].update(confidence=0.51),
    "another word": lambda answers: answers["a"][1]["words"][0].update(word="y"),
    "a missing answer": lambda answers: answers["a"].pop(),
    "an answer twice": lambda answers: answers["b"].append(answers["b"][0]),
    "another order": lambda answers: answers["a"].reverse(),
    "a field more": lambda answers: answers["b"][0].update(z=1),
    "a foreign stream": lambda answers: answers.update(c=[]),
    "a missing stream": lambda answers: answers.pop("b"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("apart", [0.0, 1e-5])
def test_a_difference_is_found(change, apart):
    """Whatever is other than expected ends the comparison, also where numbers may be a little apart."""
    from delivery import same

    same("", copy.deepcopy(EXPECTED), EXPECTED, apart)
    got = copy.deepcopy(EXPECTED)
    CHANGES[change](got)
    with pytest.raises(SystemExit):
        same("files", got, EXPECTED, apart)


def test_numbers_may_be_apart_only_where_it_is_said():
    """With 0 they are the same to the last bit; otherwise no further apart than that, or that part of large ones."""
    from delivery import alike

    assert not alike([0.5], [0.5 + 1e-12], 0.0)
    assert alike([0.5, 1000.0], [0.500009, 1000.009], 1e-5)
    assert not alike([0.5], [0.50002], 1e-5)
    assert not alike([1000.0], [1000.02], 1e-5)
    assert not alike([3], [4], 1e-5)


def test_an_earlier_run_leaves_nothing(tmp_path):
    """A pipeline that is placed again begins anew: its store and its answers are gone, the file is the new one, its input stays."""
    from placing import place

    for folder in ("p.state", "others"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data").write_text("old")
    for file in ("out.jsonl", "in.jsonl", "p.toml"):
        (tmp_path / file).write_text("old")
    new = tmp_path / "others" / "p.toml"
    new.write_text('name = "p"\nsink = { type = "files", path = "out.jsonl" }\n')
    place(new, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "others", "p.toml"]
    assert (tmp_path / "p.toml").read_text() == new.read_text()
    place(new, tmp_path)


def test_a_delivery_in_words():
    """What was killed, and where numbers may be apart, is said."""
    from page import told

    found = {"streams": 1, "answers": 2000, "killed": 2, "killed_on_kafka": 3, "apart": 0.0}
    assert (
        told("x/p.toml", found)
        == "x/p.toml: 2,000 answers of 1 stream, the same after 2 kill -9 and from Kafka after 3 more"
    )
    never = told("x/p.toml", {"streams": 2, "answers": 2, "killed": 0, "apart": 1e-5})
    assert "2 streams" in never
    assert "before it could be killed" in never
    assert "numbers to 1e-05" in never
