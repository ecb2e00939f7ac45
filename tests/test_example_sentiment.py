"""The sentiment example: no document and no near-copy on both sides, and streams rate as torch does, live and both ways."""

import io
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "sentiment"
SAID = ["What a wonderful, warm film!", "It is dull.", "I don't hate it :)", "Not good, not bad, and far too long..."]


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


def test_words_are_what_is_said():
    """Contractions stay whole, smileys and exclamation marks are words, entities and fancy quotes are undone."""
    from words import words

    assert words("I don’t  LIKE it!!! :-( &amp; #sad ... <3") == [
        "i",
        "don't",
        "like",
        "it",
        "!!!",
        ":-(",
        "&",
        "#sad",
        "...",
        "<3",
    ]
    assert words("  ") == []


def test_marks_are_of_fixed_number_and_shared_by_like_words():
    """Every word has MARKS ids of the table; words with a common part share ids, and only a word itself has all of its own."""
    from words import MARKS, TABLE, frames, marks

    for word in ("a", "unforgettable", ":-)", "forgettable"):
        assert len(marks(word)) == MARKS
        assert 0 < marks(word)[0] < TABLE
    assert {0} != set(marks("forgettable")) & set(marks("forgetful")) - {0}
    assert marks("forgettable") != marks("forgetful")
    assert frames("It is dull.").shape == (4, MARKS)
    assert frames("").shape == (0, MARKS)


def test_lines_become_streams(monkeypatch, capsys):
    """`words.py` makes a record of each line that has words: its key, its frames, its end."""
    import words

    monkeypatch.setattr(sys, "stdin", io.StringIO("Fine.\n\nNot fine.\n"))
    words.main()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["key"] for r in records] == ["line-1", "line-3"]
    assert np.array_equal(records[1]["value"], words.frames("Not fine."))
    assert all(r["end"] for r in records)


def test_a_document_and_its_near_copies_are_on_one_side():
    """Sentences of one review, those that share six words in a row, and the same words in other dress are in one part."""
    from data import Sentence, groups, split

    made = [
        Sentence(f"product-{i}_{j}", "product", f"product-{i}", f"number {i} {j}", 0.0)
        for i in range(80)
        for j in range(3)
    ]
    made += [Sentence(f"tweet-{i}", "tweet", f"tweet-{i}", f"NUMBER {i}, {i % 3}!!", 0.0) for i in range(80)]
    made += [Sentence(f"film-{i}", "film", f"film-{i}", f"{i} a b c d e f {i}", 0.0) for i in range(5)]
    assert sorted(map(len, groups(made))) == [4] * 80 + [5]
    where = {s.key: part for part, chosen in enumerate(split(made)) for s in chosen}
    assert len(where) == len(made)
    assert all(where[f"product-{i}_{j}"] == where[f"product-{i}_0"] for i in range(80) for j in range(3))
    assert all(where[f"tweet-{i}"] == where[f"product-{i}_0"] for i in range(80))
    assert len({where[f"film-{i}"] for i in range(5)}) == 1
    assert set(where.values()) == {0, 1, 2}


def test_scores_are_what_their_definitions_say():
    """Correlation of a line is 1; F1 counts only sentences that people are sure of, and a score of 0 is neither."""
    from data import Sentence
    from scores import f1, scores

    ratings = [2.0, -1.0, 0.1, 3.0, -2.0]
    made = [Sentence(f"film-{i}", "film", f"film-{i}", "x", r) for i, r in enumerate(ratings)]
    assert scores(made, np.array(ratings) * 2 + 1)["correlation"] == pytest.approx(1)
    found = scores(made, np.array([1.0, 1.0, -1.0, 0.0, -1.0]))
    assert found["f1"] == pytest.approx((2 * 1 / (2 + 2) + 2 * 1 / (1 + 2)) / 2)
    assert f1(np.array([False]), np.array([False])) == 0


def test_a_batch_has_one_length_and_an_epoch_every_sentence():
    """Nothing is padded, and each sentence with words is in exactly one batch."""
    from data import Sentence
    from train import batches, by_length

    made = [Sentence(f"film-{i}", "film", f"film-{i}", "word " * (i % 7), float(i)) for i in range(150)]
    seen = []
    for places, marks, ratings in batches(by_length(made), np.random.default_rng(0)):
        assert len({i % 7 for i in places}) == 1
        assert marks.shape[1] == places[0] % 7
        assert ratings.tolist() == places.tolist()
        seen += places.tolist()
    assert sorted(seen) == [i for i in range(150) if i % 7]


@pytest.mark.parametrize("name", ["LiveSentiment", "WholeSentiment"])
def test_training_lowers_the_loss(name):
    """A few epochs on praise and blame tell them apart, and the best epoch's weights are what is left."""
    import model
    from data import Sentence
    from train import by_length, correlation, live_loss, train, whole_loss

    torch.manual_seed(0)
    texts = [(f"{w} film", r) for w in ("good", "great", "nice") for r in (2.0,)] + [
        (f"{w} film", -2.0) for w in ("bad", "dull", "poor")
    ]
    made = [Sentence(f"film-{i}", "film", f"film-{i}", t, r) for i, (t, r) in enumerate(texts * 60)]
    net = getattr(model, name)(width=8, hidden=8)
    before = correlation(net, by_length(made), len(made))
    train(net, live_loss if name == "LiveSentiment" else whole_loss, made, made, 3, 0)
    assert correlation(net, by_length(made), len(made)) > max(0.95, before)


def test_streams_rate_as_torch_does(tmp_path):
    """Both networks, exported small: the live ratings after every word and the whole sentences' are torch's."""
    from model import LiveSentiment, WholeSentiment
    from streaming import live_scores, torch_scores, whole_scores
    from words import frames

    torch.manual_seed(0)
    live, whole = LiveSentiment(width=8, hidden=12).eval(), WholeSentiment(width=8, hidden=8).eval()
    example = torch.from_numpy(np.stack([frames("a b c d")] * 2))
    ut.export(live, example, tmp_path / "live.onnx")
    ut.export(whole, example, tmp_path / "whole.onnx", lookahead="all")
    texts = [frames(t) for t in SAID]
    after, seconds = live_scores(ut.Engine(tmp_path / "live.onnx", max_streams=8), texts)
    final, _ = whole_scores(ut.Engine(tmp_path / "whole.onnx", max_streams=8), texts)
    torch_after, torch_final = torch_scores(live, whole, texts)
    assert len(seconds) == max(map(len, texts))
    for found, expected in zip(after, torch_after, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(final, torch_final, atol=1e-5)


def test_the_shipped_weights_tell_praise_from_blame():
    """The weights in the repository load without code in them, and both networks put praise above blame."""
    from streaming import torch_scores
    from train import load
    from words import frames

    live, whole = load()
    after, final = torch_scores(live, whole, [frames("A wonderful, moving film."), frames("A dull and stupid film.")])
    assert after[0][-1] > 0.5
    assert after[1][-1] < -0.5
    assert final[0] > 0.5
    assert final[1] < -0.5


def test_the_picture_stands_alone():
    """The picture is well-formed and has every word and both ratings of each sentence."""
    from data import Sentence
    from model import LiveSentiment, WholeSentiment
    from picture import picture

    made = [Sentence("film-1", "film", "film-1", "Slow, but <fine> & true.", 1.5)]
    root = ElementTree.fromstring(picture(LiveSentiment().eval(), WholeSentiment().eval(), made))
    said = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(w in said for w in ("slow", "but", "<", "fine", "&", "true", "people +1.5"))
