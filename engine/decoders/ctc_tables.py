"""From configuration to the arrays of a search: labels, words, language model."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from ..cache import load_static
from ..errors import ConfigError
from .ctc_knowledge import NOTHING, OF_TOKENS, OF_WORDS, Knowledge
from .ctc_ngram import UNKNOWN, Ngram, arrays_of, entries_of, open_text, read_arpa
from .ctc_table import TABLE, empty_table, fill
from .ctc_text import Labels
from .ctc_words import Words, trie_of

SPACES = ("<space>", "|", "▁")  # how files of tokens between spaces write a space


def labels_of(names: Sequence[str], blank: int, separator: str) -> Labels:
    """The labels' characters. Raises ConfigError where one has the separator elsewhere than at its beginning."""
    opens, parts = np.zeros(len(names), np.bool_), []
    for i, name in enumerate(names):
        opens[i] = i != blank and name.startswith(separator)
        rest = "" if i == blank else name.removeprefix(separator)
        if separator in rest:
            raise ConfigError(
                f"[decode] label {name!r} has the word separator {separator!r} elsewhere than once at its beginning; "
                "give another word_separator"
            )
        parts.append(np.array([ord(c) for c in rest], np.int32))
    starts = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return Labels(opens, starts, np.concatenate([*parts, np.zeros(1, np.int32)]))


def knowledge_of(
    labels: Labels,
    names: Sequence[str],
    blank: int,
    separator: str,
    max_tokens: int,
    bonus: float,
    *,
    lexicon: Path | None,
    ngram: Path | None,
    ngram_of: str,
    weight: float,
) -> Knowledge:
    """What a beam search knows. Raises ConfigError where a file is wrong, or is about other labels."""
    vocabulary, model, most = _ngram(ngram)
    numbers = {word: i for i, word in enumerate(vocabulary)}
    of_words = ngram is not None and ngram_of == "words"
    words = _words(
        labels, lexicon, numbers if of_words else {}, int(model.words[UNKNOWN]) if of_words else 0, max_tokens
    )
    kind = NOTHING if ngram is None else OF_WORDS if of_words else OF_TOKENS
    tokens = _tokens(ngram, names, blank, separator, numbers) if kind == OF_TOKENS else np.zeros(len(names), np.int64)
    plain = ngram is None and lexicon is None and bonus == 0
    options = np.array([plain, lexicon is not None, kind], np.int64)
    return Knowledge(labels, words, model, tokens, options, np.array([weight, bonus, max(0.0, bonus) + weight * most]))


def _ngram(path: Path | None) -> tuple[list[str], Ngram, float]:
    """The words, the arrays, and the most that the logarithm of one word's probability can be, if more than 0."""
    if path is None:
        none = np.zeros(1)
        nowhere = np.zeros(1, np.int64)
        return [], Ngram(empty_table(0), none, none, nowhere, nowhere, np.array([1, -1, -1, -1], np.int64)), 0.0
    vocabulary, model = read_arpa(path)
    arrays = arrays_of(vocabulary, model)
    compiled().fill(arrays.table, *entries_of(model.entries))
    orders = np.array(model.orders)
    gained = sum(
        arrays.backoffs[orders == order].max()
        for order in range(1, model.order)
        if (arrays.backoffs[orders == order] > 0).any()
    )
    return vocabulary, arrays, max(0.0, float(arrays.logs[1:].max() + gained))


def _words(labels: Labels, lexicon: Path | None, numbers: Mapping[str, int], unknown: int, max_tokens: int) -> Words:
    listed = [word for line in open_text(lexicon) if (word := line.strip())] if lexicon else list(numbers)
    alphabet = {chr(c) for c in labels.chars[:-1].tolist()}
    spelled = [word for word in listed if alphabet.issuperset(word)]
    if not spelled and (lexicon or numbers):
        raise ConfigError(
            f"[decode] {lexicon or 'ngram'}: none of its {len(listed)} words ({', '.join(map(repr, listed[:3]))}, ..) can be "
            f"spelled with the labels' characters {''.join(sorted(alphabet))!r}; is its spelling, upper or lower case, the labels'?"
        )
    longest = max(spelled, key=len, default="")
    if lexicon and len(longest) > max_tokens // 4:
        raise ConfigError(
            f"[decode] max_tokens = {max_tokens}: the lexicon has {longest!r}; expected at least 4 times the longest word, {4 * len(longest)}"
        )
    words, nodes = trie_of(spelled, numbers, unknown)
    compiled().fill(words.table, *entries_of(nodes))
    return words


def _tokens(
    path: Path | None, names: Sequence[str], blank: int, separator: str, numbers: Mapping[str, int]
) -> np.ndarray:
    """The language model's number of each label."""
    spellings = [(name, *SPACES) if name == separator else (name,) for name in names]
    found = [next((numbers[s] for s in each if s in numbers), -1) for each in spellings]
    found[blank] = -1
    if max(found) < 0:
        raise ConfigError(
            f"[decode] ngram: {path}: none of the labels is among its 1-grams ({', '.join(map(repr, list(numbers)[:5]))}, ..); "
            'if it is of words, give ngram_of = "words"'
        )
    return np.array([numbers["<unk>"] if n < 0 else n for n in found], np.int64)


@cache
def compiled() -> Any:
    """`fill`, compiled once a process."""
    whole = types.int64[::1]
    return load_static([fill], {"fill": [(TABLE, whole, whole)]})
