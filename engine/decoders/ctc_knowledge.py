"""What a search knows beside the model's scores: words, a language model, a bonus a word; asked of one prefix at a time."""

from typing import NamedTuple

import numpy as np
from numba import types

from .ctc_ngram import BEGIN, END, NGRAM, UNKNOWN, Ngram, follow
from .ctc_text import LABELS, Labels
from .ctc_words import WORDS, Words, spell
from .inner import inner


class Knowledge(NamedTuple):
    """tokens: int64 (V,), the language model's number of each label, where it is one of labels. options: int64 (3,), see below.

    gains: float64 (3,): weight of the language model; bonus of a word; the most that one token can gain a prefix.
    """

    labels: Labels
    words: Words
    ngram: Ngram
    tokens: np.ndarray
    options: np.ndarray
    gains: np.ndarray


KNOWLEDGE = types.NamedTuple((LABELS, WORDS, NGRAM, types.int64[::1], types.int64[::1], types.float64[::1]), Knowledge)
PLAIN, ONLY_WORDS, NGRAM_OF = range(
    3
)  # nothing is known; only whole words of the trie are allowed; what the n-grams are of
NOTHING, OF_WORDS, OF_TOKENS = range(3)
WEIGHT, BONUS, MOST = range(3)


@inner
def _complete(known, node, history):
    """A word ends: whether it may, the history after it, and what that gains."""
    word = known.words.ids[node] if node >= 0 else -1
    if word < 0 and known.options[ONLY_WORDS]:
        return False, history, 0.0
    gain = known.gains[BONUS]
    if known.options[NGRAM_OF] == OF_WORDS:
        log, history = follow(known.ngram, history, word if word >= 0 else known.ngram.words[UNKNOWN])
        gain += known.gains[WEIGHT] * log
    return True, history, gain


@inner
def extend(known, node, history, token):
    """One more token: whether it may come, the node in the trie and the history after it, and what that gains."""
    if known.options[PLAIN]:
        return True, node, history, 0.0
    gain = 0.0
    if known.labels.opens[token]:
        if node:
            allowed, history, gain = _complete(known, node, history)
            if not allowed:
                return False, node, history, gain
        node = np.int64(0)
    node = spell(known.words, node, known.labels, token)
    if node < 0 and known.options[ONLY_WORDS]:
        return False, node, history, gain
    if known.options[NGRAM_OF] == OF_TOKENS:
        log, history = follow(known.ngram, history, known.tokens[token])
        gain += known.gains[WEIGHT] * log
    return True, node, history, gain


@inner
def finish(known, node, history):
    """The utterance ends: whether it may, and what that gains."""
    gain = 0.0
    if known.options[PLAIN]:
        return True, gain
    if node:
        allowed, history, gain = _complete(known, node, history)
        if not allowed:
            return False, gain
    if known.options[NGRAM_OF] != NOTHING and known.ngram.words[END] >= 0:
        log, history = follow(known.ngram, history, known.ngram.words[END])
        gain += known.gains[WEIGHT] * log
    return True, gain


@inner
def first_history(known):
    """The history where an utterance begins."""
    return known.ngram.words[BEGIN] + 1
