"""The text generation example: pieces are reversible, no near-copy is on both sides, and streams say what torch says."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "textgen"
TEXTS = [
    "A rose is a rose.\n\t\t-- Stein",
    "Roses are red,\nviolets are blue.",
    "The red rose is here.",
    "No.",
    "Are you here?",
]


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


@given(st.text(alphabet=["\n", "\t", *map(chr, range(32, 127))], max_size=80))
def test_pieces_are_reversible(text):
    """Whatever the text: its pieces, put together, are the text again, and none is the end."""
    from pieces import END, Pieces

    pieces = Pieces.load(EXAMPLE / "pieces.json")
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert END not in ids


def test_the_most_frequent_pair_is_merged_first():
    """`learn` merges what a count of pairs, written as plainly as can be, says; and a strange character is named."""
    from pieces import CHARACTERS, WORD, Pieces, learn, merge

    words = [list(w) for t in TEXTS for w in WORD.findall(t)]
    merges = []
    for _ in range(12):
        counts = Counter(pair for w in words for pair in pairwise(w))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [merge(w, best) for w in words]
    assert learn(TEXTS, 1 + len(CHARACTERS) + 12).merges == merges
    with pytest.raises(ValueError, match="has 'é'"):
        Pieces(merges).encode("café")


def test_near_copies_are_on_one_side():
    """Texts with six words in common, signatures aside, are in one part, and those that only share a signature need not be."""
    from data import groups, split

    quotes = [f"{i} is a number, and so is {i + 1} as everybody knows." for i in range(100, 160)]
    copies = [q.upper().replace(",", ";") + "\n\t\t-- Somebody Who Wrote A Very Long Book" for q in quotes]
    other = [f"{w}\n\t\t-- Somebody Who Wrote A Very Long Book" for w in ("Yes, indeed.", "Not at all.")]
    found = groups(quotes + copies + other)
    assert sorted(map(len, found)) == [1, 1, 120]  # "is a number and so is" is in all of them
    own = [f"{i} {i + 1} {i + 2} {i + 3} {i + 4} {i + 5}" for i in range(0, 6000, 10)]
    parts = split(own + [o + "\n-- A" for o in own])
    assert all(len(p) > 60 for p in parts)
    bare = [{t.split("\n")[0] for t in p} for p in parts]
    assert len(set.union(*bare)) == sum(map(len, bare))


def test_texts_are_cleaned():
    """Overstriking, fancy quotes and spaces at ends of lines go; a text that would lose letters is left out."""
    from data import cleaned

    assert cleaned("_\ba_\bb “c”  \n\t-- d\n") == 'ab "c"\n\t-- d'
    assert cleaned("naïve") is None
    assert cleaned(" \n") is None


def test_ngrams_are_what_the_formula_says():
    """Interpolated Kneser-Ney beside a recursion over dictionaries; after any beginning the probabilities sum to 1."""
    from ngram import ALPHABET, NGrams

    order = 3
    model = NGrams(TEXTS, order)
    whole = Counter(tuple(chunk) for t in TEXTS for chunk in _grams(["", "", *t, ""], order))
    tables = {order: whole}
    for n in range(order - 1, 0, -1):
        tables[n] = Counter(gram[1:] for gram in tables[n + 1])
    for text in ("A red rose", "?", "zz", "Are you"):
        codes = ["", "", *text, ""]
        expected = [
            -math.log2(_kneser_ney(tables, tuple(codes[i : i + 2]), codes[i + 2])) for i in range(len(text) + 1)
        ]
        np.testing.assert_allclose(model.bits(text), expected, rtol=1e-9)
    ends = 2.0 ** -model.bits("A r")[-1]
    assert ends + sum(2.0 ** -model.bits("A r" + c)[3] for c in ALPHABET[1:]) == pytest.approx(1)


def _grams(characters, order):
    return [characters[i : i + order] for i in range(len(characters) - order + 1)]


def _kneser_ney(tables, before, character):
    if not before and () not in tables:
        tables = {**tables, (): None}
    n = len(before) + 1
    counts = tables[n]
    once, twice = (sum(c == k for c in counts.values()) for k in (1, 2))
    discount = once / (once + 2 * twice)
    below = _kneser_ney(tables, before[1:], character) if before else 1 / 98
    after = [c for gram, c in counts.items() if gram[:-1] == before]
    if not after:
        return below
    return (max(counts[(*before, character)] - discount, 0) + discount * len(after) * below) / sum(after)


def test_every_piece_is_learnt_once():
    """Over an epoch's windows each piece and each end is a target exactly once, after what is before it in its text."""
    from train import NONE, windows

    generator = np.random.default_rng(0)
    texts = [generator.integers(1, 50, n).tolist() for n in generator.integers(1, 150, 70)]
    targets = Counter()
    for _, ids, after in windows(texts, generator):
        assert torch.equal(ids[:, 1:][after[:, 1:] != NONE], after[:, :-1][after[:, 1:] != NONE])
        targets.update(after[after != NONE].tolist())
    assert targets == Counter(piece for t in texts for piece in [*t, 0])


def test_training_lowers_the_loss():
    """Two dozen steps on a few texts bring the loss down by a lot, through windows whose states are carried."""
    from model import FortuneNet
    from train import run_epoch, windows

    torch.manual_seed(0)
    model, texts = FortuneNet(20, 16, 2, 8), [[1, 2, 3, 4] * 20, [5, 6, 7] * 20] * 2
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    still = torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)
    losses = [run_epoch(model, windows(texts, np.random.default_rng(0)), optimiser, still) for _ in range(10)]
    assert losses[-1] < 0.5 * losses[0]


def test_streams_say_what_torch_says(tmp_path):
    """A small network, exported, gives torch's logits on texts that are stepped together, and the same bits a text."""
    from model import FortuneNet
    from streaming import bits, streamed, worst_difference

    torch.manual_seed(1)
    model = FortuneNet(40, 24, 2, 8).eval()
    ut.export(model, torch.zeros(2, 5, dtype=torch.int64), tmp_path / "small.onnx")
    generator = np.random.default_rng(1)
    texts = [generator.integers(1, 40, n).tolist() for n in (0, 1, 30, 7, 7)]
    found = streamed(ut.Engine(tmp_path / "small.onnx", max_streams=8), texts)
    assert found.frames == sum(len(t) + 1 for t in texts)
    assert len(found.seconds) == 31
    worst, spent = worst_difference(model, texts, found.logits)
    assert worst < 1e-4
    np.testing.assert_allclose(spent, [bits(y, t).sum() for y, t in zip(found.logits, texts, strict=True)], rtol=1e-4)


def test_the_shipped_weights_know_english():
    """The weights in the repository load without code in them, fit their pieces, and find English likelier than its letters shuffled."""
    from train import bits, load

    model, pieces = load()
    assert len(pieces) == model.bias.numel()
    text = "Never put off till tomorrow what you can avoid all together."
    shuffled = "".join(np.random.default_rng(0).permutation(list(text)))
    real, noise = bits(model, [pieces.encode(t) for t in (text, shuffled)])
    assert real / len(text) < 3 < noise / len(text)


def test_the_picture_stands_alone():
    """The picture is well-formed, names the plain method, and has every character that can be seen."""
    from picture import picture
    from pieces import Pieces

    pieces = Pieces.load(EXAMPLE / "pieces.json")
    text = 'He said: "<tags> & more"\n\tto me'
    history = [{"valid_bits_per_character": 2.5}, {"valid_bits_per_character": 2.2}]
    bits = np.linspace(0, 20, len(pieces.encode(text)) + 1)
    root = ElementTree.fromstring(picture(history, {"order 5": 2.3}, [(text, bits)], pieces))
    said = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "order 5: 2.300" in said
    assert "".join(t for t in said if len(t) == 1) == "".join(text.split())
