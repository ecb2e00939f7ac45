"""The words that a search knows, as a trie of characters that compiled code walks.

Of characters, not of labels: so a word may be spelled by any labels that make it, as subword models do. marisa-trie and
datrie answer whole look-ups through Python; the search asks for one character at a time inside a compiled call and keeps the
node, a number, in the stream's row.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numba import types

from .ctc_table import TABLE, Table, empty_table, look_up
from .inner import inner


class Words(NamedTuple):
    """table: node from key = node << 21 | code point; node 0 is where words begin. ids: int64, of the word that ends at a node, -1 where none does."""

    table: Table
    ids: np.ndarray


WORDS = types.NamedTuple((TABLE, types.int64[::1]), Words)
NOT_KNOWN = -1  # instead of a node: what was spelled begins no word that is known


@inner
def spell(words, node, labels, token):
    """The node after a label's characters."""
    for k in range(labels.starts[token], labels.starts[token + 1]):
        node = look_up(words.table, node << 21 | np.int64(labels.chars[k])) if node >= 0 else node
    return node


def trie_of(words: Iterable[str], ids: Mapping[str, int], unknown: int) -> tuple[Words, dict[int, int]]:
    """The trie of these words, and what its table, which is empty, is to hold. ids: of each word, `unknown` for others."""
    nodes: dict[int, int] = {}
    ends = [-1]
    for word in words:
        node = 0
        for character in word:
            key = node << 21 | ord(character)
            node = nodes.setdefault(key, len(ends))
            if node == len(ends):
                ends.append(-1)
        if node:
            ends[node] = ids.get(word, unknown)
    return Words(empty_table(len(nodes)), np.array(ends, np.int64)), nodes
