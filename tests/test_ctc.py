"""CTC decoders: against slow references, and the same events whatever the chunks, the batch and the row."""

import gzip
from collections import deque
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from undertow.engine.errors import ConfigError

from .ctc_streams import ABC, Streams, decoder_of, finals, peaky, whole
from .naive_ctc import (
    Gain,
    Language,
    Prefix,
    arpa_text,
    best_path,
    common,
    every_alignment,
    log_probabilities,
    prefix_beams,
    text_of,
    words_of,
)

KINDS = ("logits", "log-probabilities", "probabilities")
LETTERS = ("a", "b", "c")


def scores_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...], scale: float = 2.0) -> np.ndarray:
    """Random scores of a kind; some probabilities are zero."""
    logits = rng.normal(0, scale, shape).astype(np.float32)
    if kind == "logits":
        return logits
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if kind == "probabilities":
        return np.where(p < 0.01, np.float32(0), p)
    return np.log(p)


def random_language(rng: np.random.Generator, words: tuple[str, ...], order: int, special: bool = True) -> Language:
    """A model that has some of the longer n-grams, each with those before its last word."""
    ngrams: dict[tuple[str, ...], tuple[float, float]] = {}
    for word in (*words, *(("<s>", "</s>", "<unk>") if special else ())):
        ngrams[(word,)] = (float(-rng.uniform(0.2, 3)), float(rng.uniform(-1, 0.2)))
    for n in range(2, order + 1):
        for before in [g for g in ngrams if len(g) == n - 1 and g[-1] != "</s>"]:
            for word in rng.choice([*words, *(["</s>"] if special else [])], 2, replace=False):
                ngrams[(*before, str(word))] = (
                    float(-rng.uniform(0.1, 2)),
                    float(rng.uniform(-1, 0.2)) if n < order else 0.0,
                )
    return Language(ngrams)


def assert_beam(events: list, logs: np.ndarray, beam: int, gain: Gain) -> None:
    """The partial event of each output and the final one are those of the reference."""
    told = {e["row"]: e for e in events if not e["final"]}
    text, stable = "", 0
    for row, hypotheses in enumerate(prefix_beams(logs, 0, beam, gain)):
        best = hypotheses[0][0]
        shared = common([p for p, _ in hypotheses])
        now = text_of(best, ABC)
        whole_words = (
            shared
            if gain.lexicon is None
            else shared[: max((i + 1 for i, k in enumerate(shared) if k == 1), default=0)]
        )
        certain = len(text_of(whole_words, ABC))
        assert (row in told) == ((now, certain) != (text, stable))
        text, stable = now, certain
        if row in told:
            event = told[row]
            assert (event["text"], event["stable"]) == (text, stable)
            assert event["score"] == pytest.approx(hypotheses[0][1].total + gain(best), rel=1e-5)
    assert_final(events, logs, beam, gain, bool(text))


def assert_final(events: list, logs: np.ndarray, beam: int, gain: Gain, said: bool = False) -> None:
    """The one final event is the reference's best hypothesis as a whole utterance."""
    scored = [(p, e, e.total + gain(p, True)) for p, e in deque(prefix_beams(logs, 0, beam, gain), 1)[0]]
    allowed = [s for s in scored if s[2] > -np.inf]
    if allowed:
        best, ends, score = max(allowed, key=lambda s: s[2])
        said_tokens = ends.likeliest.all() if ends.likeliest else []
    else:
        best, ends, score = scored[0]
        score = ends.total + gain(best)
        kept = max((i + 1 for i, k in enumerate(best) if k == 1), default=0)
        best, said_tokens = best[:kept], ends.likeliest.all()[:kept]
    found = finals(events)
    assert [e["text"] for e in found] == ([text_of(best, ABC)] if said or text_of(best, ABC) else [])
    if found:
        assert found[0]["score"] == pytest.approx(score, rel=1e-5)
        assert found[0]["stable"] == len(found[0]["text"])
        expected = words_of(said_tokens, ABC)
        assert [{k: w[k] for k in ("word", "begin", "end")} for w in found[0]["words"]] == [
            {k: w[k] for k in ("word", "begin", "end")} for w in expected
        ]
        assert [w["confidence"] for w in found[0]["words"]] == pytest.approx(
            [w["confidence"] for w in expected], rel=1e-5
        )


def test_best_paths_are_the_references():
    """Text, score, words and times of 600 random streams are those of the plain best path, for each kind of scores."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        decoder = decoder_of(scores=kind, partials=False)
        for _ in range(200):
            scores = scores_of(rng, kind, (int(rng.integers(1, 40)), len(ABC)))
            said, score = best_path(log_probabilities(scores, kind), 0)
            words = words_of(said, ABC)
            events = whole(decoder, scores)
            assert [e["text"] for e in events] == [t for t in [text_of([s.token for s in said], ABC)] if t]
            for event in events:
                assert event["score"] == pytest.approx(score, rel=1e-5)
                assert event["words"] == [w | {"confidence": pytest.approx(w["confidence"], rel=1e-5)} for w in words]
                peaks = [s.peak for s in said if s.token != 1]
                assert event["confidence"] == pytest.approx(sum(peaks) / len(peaks), rel=1e-5)


def test_partial_best_paths_are_those_of_what_came_so_far():
    """With partials at each output the text is told exactly when it grows, and all of it is stable."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = scores_of(rng, "logits", (30, len(ABC)))
        texts = [
            text_of([s.token for s in best_path(log_probabilities(scores[:t], "logits"), 0)[0]], ABC) for t in range(31)
        ]
        told = [(e["row"], e["text"], e["stable"]) for e in whole(decoder_of(), scores) if not e["final"]]
        assert told == [(t - 1, texts[t], len(texts[t])) for t in range(1, 31) if texts[t] != texts[t - 1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam", [2, 5])
def test_beams_are_the_references(kind: str, beam: int):
    """Each partial text, what is stable of it, its score, and the final words with their times are the plain search's, on random matrices."""
    rng = np.random.default_rng(beam)
    decoder = decoder_of(scores=kind, beam=beam)
    for _ in range(25):
        scores = scores_of(rng, kind, (int(rng.integers(1, 14)), len(ABC)), scale=rng.uniform(0.3, 4))
        assert_beam(whole(decoder, scores), log_probabilities(scores, kind), beam, Gain(ABC))


@pytest.mark.parametrize(("beam", "count"), [(2, 800), (4, 800), (8, 400), (16, 200)])
def test_many_final_texts_are_the_references(beam: int, count: int):
    """Final text, score and times of 2,200 random matrices at several beams."""
    rng = np.random.default_rng(100 + beam)
    decoder = decoder_of(beam=beam, partials=False)
    for _ in range(count):
        scores = scores_of(rng, "logits", (int(rng.integers(1, 9)), len(ABC)), scale=rng.uniform(0.3, 4))
        assert_final(whole(decoder, scores), log_probabilities(scores, "logits"), beam, Gain(ABC))


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("of", ["words", "tokens"])
@pytest.mark.parametrize("special", [True, False])
def test_language_models_are_the_references(tmp_path: Path, of: str, special: bool):
    """With a random back-off model of words, or of tokens, with or without <s>, </s>, <unk>, texts, scores and times are the plain search's, which scores each prefix afresh."""
    rng = np.random.default_rng(special)
    for case, order in enumerate((1, 2, 3, 3)):
        vocabulary = ("a", "ab", "b", "cab", "bb") if of == "words" else ("<space>", *LETTERS[: 2 + special])
        language = random_language(rng, vocabulary, order, special)
        weight, bonus = rng.uniform(0.1, 2), rng.uniform(-1, 2)
        gain = Gain(
            ABC, language=language, order=order, of_tokens=of == "tokens", weight=weight, bonus=bonus,
            token_words=("", "<space>", *LETTERS),
        )  # fmt: skip
        path = written(tmp_path, f"{case}.arpa", arpa_text(language.ngrams))
        decoder = decoder_of(beam=6, ngram=path, ngram_of=of, ngram_weight=weight, word_bonus=bonus)
        for _ in range(12):
            scores = scores_of(rng, "logits", (int(rng.integers(1, 12)), len(ABC)))
            assert_beam(whole(decoder, scores), log_probabilities(scores, "logits"), 6, gain)


@pytest.mark.parametrize("with_model", [False, True])
def test_only_words_of_the_lexicon(tmp_path: Path, with_model: bool):
    """Final texts have only words of the list, and are the plain search's; what was stable is in them."""
    rng = np.random.default_rng(7)
    words = frozenset(("a", "ab", "cab", "bcb", "caa"))
    language = random_language(rng, ("a", "ab", "cab"), 2) if with_model else None
    keys = {"ngram": written(tmp_path, "m.arpa", arpa_text(language.ngrams)), "ngram_weight": 0.7} if language else {}
    lexicon = written(tmp_path, "words.txt", "\n".join([*words, "", "déjà"]))
    gain = Gain(ABC, lexicon=words, language=language, order=2, weight=0.7, bonus=0.3)
    for beam in (2, 6):
        decoder = decoder_of(beam=beam, lexicon=lexicon, word_bonus=0.3, **keys)
        for _ in range(40):
            scores = scores_of(rng, "logits", (int(rng.integers(1, 14)), len(ABC)))
            events = whole(decoder, scores)
            assert_beam(events, log_probabilities(scores, "logits"), beam, gain)
            for before, event in pairwise(events):
                assert event["text"].startswith(before["text"][: before["stable"]])
            assert all(words.issuperset(e["text"].split()) for e in finals(events))


def test_wide_beams_sum_over_all_alignments():
    """With room for every prefix the score is the logarithm of the exact probability of the likeliest text, by brute force over all alignments."""
    rng = np.random.default_rng(3)
    decoder = decoder_of(("<b>", "a", "b"), beam=128, max_tokens=2048, partials=False)
    for _ in range(60):
        scores = scores_of(rng, "logits", (int(rng.integers(1, 7)), 3), scale=1.0)
        exact = every_alignment(log_probabilities(scores, "logits"), 0)
        assert sum(exact.values()) == pytest.approx(1)
        best: Prefix = max(exact, key=lambda p: exact[p])
        text = "".join("?ab"[t] for t in best)
        events = whole(decoder, scores)
        assert [e["text"] for e in events] == ([text] if text else [])
        assert all(np.exp(e["score"]) == pytest.approx(exact[best], rel=1e-5) for e in events)


def configurations(folder: Path) -> list[dict]:
    """Decoders of every kind, with a bound that is reached and endpoints that come."""
    rng = np.random.default_rng(11)
    model = written(folder, "chunks.arpa", arpa_text(random_language(rng, ("a", "ab", "b"), 3).ngrams))
    lexicon = written(folder, "chunks.txt", "a\nab\nb\nca\n")
    return [
        {"max_tokens": 16, "endpoint": 4},
        {"partials": 3, "endpoint": 3, "max_tokens": 32},
        {"beam": 3, "max_tokens": 32, "endpoint": 4},
        {"beam": 4, "max_tokens": 32, "partials": 2, "ngram": model, "word_bonus": 0.5},
        {"beam": 4, "max_tokens": 40, "lexicon": lexicon, "ngram": model, "endpoint": 5},
    ]


def long_scores(rng: np.random.Generator, length: int) -> np.ndarray:
    """Noise with silences in it."""
    scores = scores_of(rng, "logits", (length, len(ABC)), scale=3.0)
    for begin in rng.integers(0, length, length // 40):
        scores[begin : begin + int(rng.integers(2, 8)), 0] += 12
    return scores


@pytest.mark.parametrize("case", range(5))
def test_events_do_not_depend_on_chunks_or_batch(tmp_path: Path, case: int):
    """Streams in one batch, cut anywhere, in any slots: the same events and the same bits of state as each alone in one piece."""
    rng = np.random.default_rng(case)
    decoder = decoder_of(**configurations(tmp_path)[case])
    scores = [long_scores(rng, int(rng.integers(150, 400))) for _ in range(6)]
    alone, states = [], []
    for each in scores:
        streams = Streams(decoder, 1)
        events = streams.push({0: each})[0]
        states.append(streams.rows[0].copy())
        alone.append(events + streams.end([0])[0])
    assert any(len(finals(events)) > 2 for events in alone)
    for most in (1, 5, 70):
        streams, slots = Streams(decoder, 20), rng.permutation(20)[:6].tolist()
        got, at = [[] for _ in slots], [0] * 6
        while any(a < len(s) for a, s in zip(at, scores, strict=True)):
            sizes = [int(rng.integers(0, most + 1)) for _ in slots]
            there = [i for i in rng.permutation(6).tolist() if at[i] < len(scores[i])]
            events = streams.push({slots[i]: scores[i][at[i] : at[i] + sizes[i]] for i in there})
            for i in there:
                got[i] += events[slots[i]]
                at[i] += sizes[i]
        for i in range(6):
            np.testing.assert_array_equal(streams.rows[slots[i]], states[i])
        ends = streams.end(slots)
        assert [g + ends[s] for g, s in zip(got, slots, strict=True)] == alone


@pytest.mark.parametrize("case", range(5))
def test_a_copied_row_goes_on_alike(tmp_path: Path, case: int):
    """The row is all of it: copied to another slot of another arena in the middle, the stream goes on with the same events."""
    rng = np.random.default_rng(case + 50)
    keys = configurations(tmp_path)[case]
    scores = long_scores(rng, 300)
    first = Streams(decoder_of(**keys), 2)
    first.push({1: scores[:140]})
    second = Streams(decoder_of(**keys), 5)
    second.push({3: long_scores(rng, 90)})
    second.rows[3], second.seen[3] = first.rows[1], first.seen[1]
    assert second.push({3: scores[140:]})[3] == first.push({1: scores[140:]})[1]
    assert second.end([3])[3] == first.end([1])[1]


def test_endpoints_begin_anew():
    """After the silence that ends an utterance the next is told as if the stream had begun there, in its own places."""
    rng = np.random.default_rng(5)
    for keys in ({}, {"beam": 4}):
        first, second = peaky(rng, [2, 3, 1, 4], len(ABC)), peaky(rng, [4, 4, 2], len(ABC))
        silence = np.zeros((9, len(ABC)), np.float32)
        silence[:, 0] = 12
        apart = [finals(whole(decoder_of(**keys), s))[0] for s in (first, second)]
        events = whole(decoder_of(endpoint=6, **keys), np.concatenate([first, silence, second, silence[:2]]))
        told = finals(events)
        assert [e["text"] for e in told] == [e["text"] for e in apart] == ["ab c", "cca"]
        assert told[0]["row"] == told[0]["at"] == len(first) - 1 + 5  # `peaky` ends with one blank
        shift = len(first) + 9
        for word, other in zip(told[1]["words"], apart[1]["words"], strict=True):
            assert (word["begin"] - shift, word["end"] - shift) == (other["begin"], other["end"])


def test_partials_every_so_many():
    """No two partial events of an utterance are nearer than was asked for, and none is there where none is wanted."""
    scores = peaky(np.random.default_rng(6), [2, 3, 4] * 12, len(ABC))
    for keys in ({}, {"beam": 4}):
        for every in (2, 7):
            rows = [e["row"] for e in whole(decoder_of(partials=every, **keys), scores) if not e["final"]]
            assert len(rows) > 4
            assert min(np.diff(rows)) >= every
        assert [e["final"] for e in whole(decoder_of(partials=False, **keys), scores)] == [True]


@pytest.mark.parametrize("keys", [{"max_tokens": 32}, {"beam": 4, "max_tokens": 64}])
def test_an_utterance_longer_than_its_room_is_told_in_whole_words(keys: dict):
    """A long utterance that is clear comes out in several final events, cut between words, that together are all of it; the row stays as big as it is."""
    rng = np.random.default_rng(8)
    tokens = [t for _ in range(90) for t in [*rng.integers(2, 5, rng.integers(1, 5)).tolist(), 1]]
    scores = peaky(rng, tokens, len(ABC), noise=0.3)
    told = finals(whole(decoder_of(partials=False, **keys), scores))
    assert len(told) > 4
    assert " ".join(e["text"] for e in told) == text_of(tokens, ABC)
    (once,) = finals(whole(decoder_of(partials=False, **keys | {"max_tokens": 4096}), scores))
    assert [w for e in told for w in e["words"]] == once["words"]


@pytest.mark.parametrize("keys", [{"max_tokens": 16}, {"beam": 2, "max_tokens": 16}, {"beam": 8, "max_tokens": 64}])
def test_a_word_without_end_is_cut(keys: dict):
    """A word longer than the room is told in pieces that together are all of it."""
    rng = np.random.default_rng(9)
    tokens = rng.integers(2, 5, 300).tolist()
    told = finals(whole(decoder_of(partials=False, **keys), peaky(rng, tokens, len(ABC), noise=0.3)))
    assert len(told) > 4
    assert "".join(e["text"] for e in told) == text_of(tokens, ABC)


def test_the_tree_holds_what_is_alive(tmp_path: Path):
    """After any outputs the nodes in use are exactly those that hypotheses reach, each counted as often as it is pointed at."""
    rng = np.random.default_rng(10)
    for case in (2, 3, 4):
        decoder = decoder_of(**configurations(tmp_path)[case])
        streams = Streams(decoder, 1)
        for _ in range(60):
            streams.push({0: long_scores(rng, 7)})
            h, m = streams.columns["decode.hypotheses"][0], streams.columns["decode.memory"][0]
            tree, held = streams.columns["decode.tree"][0], {}
            ahead = [int(n) for row in h[: m[4]] for n in row[5:7] if n > 0]
            while ahead:
                node = ahead.pop()
                held[node] = held.get(node, 0) + 1
                if held[node] == 1 and tree[node, 0] > 0:
                    ahead.append(int(tree[node, 0]))
            assert m[2] == len(held)
            assert {n: int(tree[n, 2]) for n in held} == held


def test_subwords_and_other_separators():
    """Labels of several characters, of which some begin a word: text has spaces, words have their times, a lexicon is spelled by any labels."""
    labels = ("▁the", "▁", "th", "e", "<b>", "▁a", "ß")
    rng = np.random.default_rng(12)
    tokens = [0, 5, 6, 1, 2, 3]
    scores = peaky(rng, tokens, len(labels), noise=0.2, blank=4)
    for keys in ({}, {"beam": 6}):
        (event,) = finals(whole(decoder_of(labels, 0.5, blank="<b>", word_separator="▁", **keys), scores))
        assert event["text"] == "the aß the"
        assert [w["word"] for w in event["words"]] == ["the", "aß", "the"]
        assert all(w["begin_s"] == w["begin"] / 2 and w["end_s"] == w["end"] / 2 for w in event["words"])


def test_a_lexicon_is_spelled_by_any_labels(tmp_path: Path):
    """One word of the list is found whichever labels it is said with."""
    labels = ("<b>", "▁", "▁th", "e", "t", "h", "he")
    lexicon = written(tmp_path, "w.txt", "the\n")
    rng = np.random.default_rng(13)
    for tokens in ([2, 3], [1, 4, 5, 3], [4, 6]):
        scores = peaky(rng, tokens, len(labels), noise=0.2)
        (event,) = finals(whole(decoder_of(labels, word_separator="▁", beam=8, lexicon=lexicon), scores))
        assert event["text"] == "the"


def test_rows_are_bounded_and_stated():
    """The bytes of a row follow from beam and max_tokens alone: 24 a token and 64 of the best path, 36 a node, 96 a hypothesis and 72 of a search."""
    for keys, most in (
        ({}, 256),
        ({"max_tokens": 1000}, 1000),
        ({"beam": 8}, 256),
        ({"beam": 32}, 512),
        ({"beam": 32, "max_tokens": 400}, 400),
    ):
        beam = keys.get("beam", 1)
        size = sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in decoder_of(**keys).states)
        assert size == (24 * most + 64 if beam == 1 else 36 * (most + 1) + 96 * beam + 72)


def test_scores_that_are_no_numbers_kill_no_search():
    """NaN and impossible labels count as very improbable, and the search goes on after them."""
    rng = np.random.default_rng(14)
    scores = peaky(rng, [2, 3, 4], len(ABC), noise=0.1)
    bad = np.full((2, len(ABC)), np.nan, np.float32)
    for keys in ({}, {"beam": 4}):
        (event,) = finals(whole(decoder_of(partials=False, **keys), np.concatenate([scores, bad, scores])))
        assert event["text"].startswith("abc")
        assert event["text"].endswith("bc")


WRONG = [
    ({"blank": "zzz"}, "blank"),
    ({"blank": 5}, "blank"),
    ({"labels": ["a", "b"]}, "labels"),
    ({"output": "other"}, "output"),
    ({"lexicon": "w.txt"}, "beam"),
    ({"word_bonus": 1.0}, "word_bonus"),
    ({"ngram_weight": 1.0, "beam": 4}, "ngram_weight"),
    ({"ngram_of": "words", "beam": 4}, "ngram_of"),
    ({"beam": 64, "max_tokens": 256}, "max_tokens"),
    ({"beam": 4, "lexicon": "/nowhere/w.txt"}, "/nowhere/w.txt"),
    ({"beam": 4, "ngram": "/nowhere/m.arpa"}, "/nowhere/m.arpa"),
    ({"labels": ["-", " ", "a", "b b", "c"]}, "'b b'"),
]


@pytest.mark.parametrize(("keys", "named"), WRONG)
def test_what_does_not_fit_is_named(keys: dict, named: str):
    """A wrong configuration is refused with the thing that is wrong."""
    with pytest.raises(ConfigError, match=named) as error:
        decoder_of(**keys)
    assert str(error.value).startswith("[decode]")


GOOD = "\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-1 a -.3\n-1 b\n-2 <unk>\n\n\\2-grams:\n-.5 a b\n\n\\end\\\n"
BROKEN = [
    ("-1 a -.3", "-x a -.3", "line 6"),
    ("-1 b", "-1 a", "twice"),
    ("-.5 a b", "-.5 a d", "'d'"),
    ("-.5 a b", "-.5 a b c d", "fields"),
    ("ngram 2=1", "ngram 2=2", "head"),
    ("\\end\\", "", "no end"),
    ("\\2-grams:", "\\3-grams:", "2-grams"),
    ("-1 a -.3", "-1 z -.3", "'a'"),
]


@pytest.mark.parametrize(("part", "other", "named"), BROKEN)
def test_a_broken_language_model_is_refused(tmp_path: Path, part: str, other: str, named: str):
    """An ARPA file that is damaged or cut off is refused, with the line where there is one."""
    decoder_of(beam=4, ngram=written(tmp_path, "good.arpa", GOOD))
    with pytest.raises(ConfigError, match=named):
        decoder_of(("-", " ", "a"), beam=4, ngram=written(tmp_path, "m.arpa", GOOD.replace(part, other)))


@pytest.mark.parametrize("of", ["words", "tokens"])
def test_a_language_model_of_other_labels_is_refused(tmp_path: Path, of: str):
    """A model none of whose words, or tokens, the labels can say is refused."""
    with pytest.raises(ConfigError, match="none of"):
        decoder_of(("-", " ", "A", "B"), beam=4, ngram=written(tmp_path, "m.arpa", GOOD), ngram_of=of)


def test_files_may_be_compressed(tmp_path: Path):
    """A model and a lexicon in gzip are read as they are without."""
    for name, text in (("m.arpa", GOOD), ("w.txt", "a\nb\n")):
        written(tmp_path, name, text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    scores = scores_of(np.random.default_rng(15), "logits", (30, len(ABC)))
    plain, packed = (
        whole(decoder_of(beam=4, ngram=str(tmp_path / f"m.arpa{end}"), lexicon=str(tmp_path / f"w.txt{end}")), scores)
        for end in ("", ".gz")
    )
    assert plain == packed
    with pytest.raises(ConfigError, match=r"w\.gz"):
        decoder_of(beam=4, lexicon=written(tmp_path, "w.gz", "not gzip"))
