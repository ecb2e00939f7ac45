"""How near to people's ratings: Pearson's correlation, and F1 of the sentences that people are sure of."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from data import Sentence

sys.path.append(str(Path(__file__).resolve().parents[1]))
from packages import wheel

SURE = 0.5  # people's mean rating is at least this far from neutral
VADER = {
    "vaderSentiment/vaderSentiment.py": "25cd814d23000b41c0e242d99960832c6620b3f1b844469173404500ce63206b",
    "vaderSentiment/vader_lexicon.txt": "1ec9c6e9ee19aade328f8beb393a6afa71a5bb3acf7d3cc22d4ef568df374bf5",
    "vaderSentiment/emoji_utf8_lexicon.txt": "b8d54223ae1ce22a3e12c1f745316b71678c328eb5f5d3063a842f37cfbe2823",
}


def scores(chosen: Sequence[Sentence], found: np.ndarray) -> dict[str, float]:
    """correlation, of all and of each kind of text; f1, the mean of that of positive and that of negative."""
    ratings, kinds = np.array([s.rating for s in chosen]), np.array([s.kind for s in chosen])
    result = {"correlation": _pearson(found, ratings)}
    for kind in dict.fromkeys(kinds.tolist()):
        result[f"correlation_{kind}"] = _pearson(found[kinds == kind], ratings[kinds == kind])
    sure = np.abs(ratings) >= SURE
    result["f1"] = (f1(found[sure] > 0, ratings[sure] > 0) + f1(found[sure] < 0, ratings[sure] < 0)) / 2
    return result


def f1(said: np.ndarray, true: np.ndarray) -> float:
    """Twice the hits over all that were said and all that are true, bool (N,) each."""
    return float(2 * (said & true).sum() / max(1, said.sum() + true.sum()))


def vader(chosen: Sequence[Sentence]) -> np.ndarray:
    """VADER's compound score of each, -1 to 1; 0 where it knows no word. Its lexicon and rules are read from its wheel."""
    sys.path.append(str(wheel("vaderSentiment", "3.3.2", VADER)))
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    return np.array([analyser.polarity_scores(s.text)["compound"] for s in chosen])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])
