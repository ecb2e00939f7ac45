"""N-gram language models from ARPA files, as arrays that a search in compiled code walks.

KenLM is the well-kept library for them, but it is asked a word at a time through Python or C++ and keeps its state in an object
of its own; here the state must be a number in the stream's row, and thousands of streams are scored inside one compiled call.
The reader on PyPI (`arpa`) has not been touched since 2018 and gives a Python object per n-gram.
"""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import types

from ..errors import ConfigError
from .ctc_table import TABLE, Table, empty_table, look_up
from .inner import inner

UNKNOWN_LOG10 = -100.0  # of a word that a model without <unk> does not have, as KenLM has it


class Ngram(NamedTuple):
    """Entry 0 is the empty history, w + 1 the word w alone, then the longer ones.

    table: entry of a history and next word from key = history * words + word. logs, backoffs: float64, natural logarithms.
    shorter: int64, the entry of a history less its first word. follows: int64, the history that stays after an n-gram.
    words: int64 (4,): how many there are; <unk>, <s> and </s>, -1 where the model does not have it.
    """

    table: Table
    logs: np.ndarray
    backoffs: np.ndarray
    shorter: np.ndarray
    follows: np.ndarray
    words: np.ndarray


NGRAM = types.NamedTuple(
    (TABLE, types.float64[::1], types.float64[::1], types.int64[::1], types.int64[::1], types.int64[::1]), Ngram
)
SIZE, UNKNOWN, BEGIN, END = range(4)


@inner
def follow(ngram, history, word):
    """The log-probability of a word after a history, and the history after it (Katz 1987: the longest n-gram that is there, backing off)."""
    total = 0.0
    while history:
        entry = look_up(ngram.table, history * ngram.words[SIZE] + word)
        if entry >= 0:
            return total + ngram.logs[entry], ngram.follows[entry]
        total += ngram.backoffs[history]
        history = ngram.shorter[history]
    return total + ngram.logs[word + 1], ngram.follows[word + 1]


def open_text(path: Path) -> Iterator[str]:
    """The lines of a text file, gzip or not."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"[decode] {path}: {error}; expected a text file in UTF-8, or one that ends in .gz"
        ) from error


def read_arpa(path: Path) -> tuple[list[str], "ArpaModel"]:
    """The words of an ARPA file, by number, and its n-grams. Raises ConfigError with the line."""
    reader = _ArpaReader(path)
    for number, line in enumerate(open_text(path), 1):
        reader.line(number, line.split())
    return reader.result()


class ArpaModel(NamedTuple):
    """entries: of key = history * size + word, of n-grams of two words and more. order: of the longest n-grams. Lists by entry, as in `Ngram`."""

    entries: dict[int, int]
    order: int
    logs: list[float]
    backoffs: list[float]
    shorter: list[int]
    orders: list[int]


class _ArpaReader:
    """Takes the lines one by one."""

    def __init__(self, path: Path):
        self.path, self.numbers = path, dict[str, int]()
        self.model = ArpaModel({}, 0, [0.0], [0.0], [0], [0])
        self.promised: dict[int, int] = {}
        self.section, self.ended = -1, False  # -1 before \data\, 0 in it, then the order

    def line(self, number: int, fields: list[str]) -> None:
        if not fields or self.ended:
            return
        try:
            if fields[0].startswith("\\") and len(fields) == 1:
                self._section(fields[0])
            elif self.section == 0 and fields[0] == "ngram":
                order, count = " ".join(fields[1:]).split("=")
                self.promised[int(order)] = int(count)
            elif self.section > 0:
                self._ngram(fields)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"[decode] ngram: {self.path}, line {number}: {error.args[0]}; expected an ARPA file"
            ) from error

    def _section(self, name: str) -> None:
        if name == "\\data\\":
            self.section = 0
        elif name == "\\end\\":
            self.ended = True
        elif self.section >= 0:
            if name != f"\\{self.section + 1}-grams:":
                raise ValueError(f"section {name!r} comes where \\{self.section + 1}-grams: would")
            if self.section == 1:
                self._close_words()
            self.section += 1

    def _ngram(self, fields: list[str]) -> None:
        if not 0 <= len(fields) - 1 - self.section <= 1:
            raise ValueError(f"{len(fields)} fields in section {self.section}-grams")
        log, words = float(fields[0]), fields[1 : self.section + 1]
        backoff = float(fields[-1]) if len(fields) == self.section + 2 else 0.0
        if self.section == 1:
            if words[0] in self.numbers:
                raise ValueError(f"word {words[0]!r} comes twice")
            self.numbers[words[0]] = len(self.numbers)
            self._put(log, backoff, 0)
        else:
            self._longer(words, log, backoff)

    def _longer(self, words: list[str], log: float, backoff: float) -> None:
        entries, shorter, size = self.model.entries, self.model.shorter, len(self.numbers)
        *before, word = [self.numbers[w] if w in self.numbers else self._missing(w) for w in words]
        history = before[0] + 1
        for w in before[1:]:
            if history * size + w not in entries:
                raise ValueError(f"n-gram {' '.join(words)!r} is there, but not the one before its last word")
            history = entries[history * size + w]
        if history * size + word in entries:
            raise ValueError(f"n-gram {' '.join(words)!r} comes twice")
        rest = shorter[history]
        while rest and rest * size + word not in entries:
            rest = shorter[rest]
        entries[history * size + word] = len(shorter)
        self._put(log, backoff, entries[rest * size + word] if rest else word + 1)

    def _missing(self, word: str) -> int:
        raise ValueError(f"word {word!r} is not among the 1-grams")

    def _put(self, log: float, backoff: float, shorter: int) -> None:
        for values, value in (
            (self.model.logs, log * math.log(10)),
            (self.model.backoffs, backoff * math.log(10)),
            (self.model.shorter, shorter),
            (self.model.orders, self.section),
        ):
            values.append(value)  # pyright: ignore[reportArgumentType]

    def _close_words(self) -> None:
        if "<unk>" not in self.numbers:
            self.numbers["<unk>"] = len(self.numbers)
            self._put(UNKNOWN_LOG10, 0.0, 0)
            self.promised[1] = self.promised.get(1, 0) + 1

    def result(self) -> tuple[list[str], ArpaModel]:
        if self.section == 1:
            self._close_words()
        found = {order: self.model.orders.count(order) for order in range(1, self.section + 1)}
        if not self.ended or not found or found != self.promised:
            raise ConfigError(
                f"[decode] ngram: {self.path}: has {found or 'no'} n-grams by order, its head says {self.promised}"
                f"{'' if self.ended else ', and it has no end'}; expected a whole ARPA file"
            )
        return list(self.numbers), self.model._replace(order=self.section)


def arrays_of(words: list[str], model: ArpaModel) -> Ngram:
    """The arrays of a model, with an empty table."""
    shorter, orders = np.array(model.shorter, np.int64), np.array(model.orders)
    special = [words.index(w) if w in words else -1 for w in ("<unk>", "<s>", "</s>")]
    return Ngram(
        empty_table(len(model.entries)),
        np.array(model.logs),
        np.array(model.backoffs),
        shorter,
        np.where(orders < model.order, np.arange(len(shorter)), shorter),
        np.array([len(words), *special], np.int64),
    )


def entries_of(entries: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values for a table."""
    return np.fromiter(entries.keys(), np.int64, len(entries)), np.fromiter(entries.values(), np.int64, len(entries))
