"""From tokens to text and words, and the buffers that a call's events are written to.

Text is the labels one after the other, with one space for each run of separators between words and none at either end: so
the text of a prefix is a prefix of the text.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types

from .inner import inner


class Labels(NamedTuple):
    """opens: bool (V,), the label begins with the word separator. starts: int64 (V + 1,) into chars: int32, the labels' code points after it."""

    opens: np.ndarray
    starts: np.ndarray
    chars: np.ndarray


class Told(NamedTuple):
    """heads: int64 (E, 8), see below. marks: float32 (E, 2): confidence, score. chars: int32, the texts one after the other.

    spans: int64 (W, 4), of each word: begin and end in its text, `at` of its first and its last output. sure: float32 (W,), its
    confidence. cursor: int64 (5,), see below: where the call has come to.
    """

    heads: np.ndarray
    marks: np.ndarray
    chars: np.ndarray
    spans: np.ndarray
    sure: np.ndarray
    cursor: np.ndarray


EVENT_STREAM, EVENT_ROW, EVENT_AT, FINAL, STABLE, TEXT_BEGIN, TEXT_END, WORDS_END = range(8)
STREAM, ROW, EVENTS, CHARS, WORDS = range(5)
EVENTS_OF_A_ROW = 4  # at most: two at the bound, a partial or a final one, and one to spare

LABELS = types.NamedTuple((types.bool_[::1], types.int64[::1], types.int32[::1]), Labels)
TOLD = types.NamedTuple(
    (types.int64[:, ::1], types.float32[:, ::1], types.int32[::1], types.int64[:, ::1], types.float32[::1], types.int64[::1]), Told
)  # fmt: skip


@inner
def write_text(tokens, count, stable, labels, chars, begin):
    """Writes the text of the first tokens to chars[begin:]; returns its end, and the end of what the first `stable` ones make."""
    at, stable_end, gap = begin, begin, False
    for i in range(count):
        if i == stable:
            stable_end = at
        token = tokens[i]
        if labels.opens[token] and at > begin:
            gap = True
        for k in range(labels.starts[token], labels.starts[token + 1]):
            if gap:
                chars[at] = 32
                at += 1
                gap = False
            chars[at] = labels.chars[k]
            at += 1
    return at, at if stable >= count else stable_end


@inner
def write_words(tokens, places, peaks, count, labels, told):
    """Writes the words of the first tokens behind those that are there."""
    at, place, inside, total, parts = told.cursor[WORDS], 0, False, 0.0, 0
    for i in range(count):
        token = tokens[i]
        if labels.opens[token]:
            inside = False
        length = labels.starts[token + 1] - labels.starts[token]
        if length == 0:
            continue
        if not inside:
            place += 1 if place else 0
            told.spans[at, 0], told.spans[at, 2] = place, places[i, 0]
            at, inside, total, parts = at + 1, True, 0.0, 0
        place, total, parts = place + length, total + peaks[i], parts + 1
        told.spans[at - 1, 1], told.spans[at - 1, 3] = place, places[i, 1]
        told.sure[at - 1] = total / parts
    told.cursor[WORDS] = at


@inner
def confidence(tokens, peaks, count, labels):
    """The mean of the tokens' greatest probabilities, bare separators left out; 0 without tokens."""
    total, parts = 0.0, 0
    for i in range(count):
        if labels.starts[tokens[i] + 1] > labels.starts[tokens[i]]:
            total, parts = total + peaks[i], parts + 1
    return total / parts if parts else 0.0


@inner
def whole_words(tokens, count, labels):
    """How many of the first tokens are whole words, those before the last that opens a word (and it, where it is the bare separator)."""
    for i in range(count - 1, -1, -1):
        if labels.opens[tokens[i]]:
            bare = labels.starts[tokens[i] + 1] == labels.starts[tokens[i]]
            return i + 1 if bare else i
    return 0


@inner
def has_room(told, max_tokens, max_chars):
    """Whether the events of one more row fit surely."""
    cursor = told.cursor
    return (
        cursor[EVENTS] + EVENTS_OF_A_ROW <= told.heads.shape[0]
        and cursor[CHARS] + EVENTS_OF_A_ROW * max_chars <= told.chars.size
        and cursor[WORDS] + EVENTS_OF_A_ROW * max_tokens <= told.sure.size
    )


@inner
def put_event(told, row, at, final, end, stable, sure, score):
    """Puts down an event whose text was written to chars[cursor[CHARS]:end] and whose words, if any, are written."""
    cursor = told.cursor
    head = told.heads[cursor[EVENTS]]
    head[EVENT_STREAM], head[EVENT_ROW], head[EVENT_AT] = cursor[STREAM], row, at
    head[FINAL], head[STABLE] = final, stable
    head[TEXT_BEGIN], head[TEXT_END], head[WORDS_END] = cursor[CHARS], end, cursor[WORDS]
    told.marks[cursor[EVENTS], 0], told.marks[cursor[EVENTS], 1] = sure, score
    cursor[EVENTS] += 1
    cursor[CHARS] = end


@inner
def put_final(told, tokens, places, peaks, count, labels, row, at, score, always):
    """Puts down the final event of the first tokens; nothing where they have no text, unless `always`."""
    end, _ = write_text(tokens, count, count, labels, told.chars, told.cursor[CHARS])
    length = end - told.cursor[CHARS]
    if length or always:
        write_words(tokens, places, peaks, count, labels, told)
        put_event(told, row, at, 1, end, length, confidence(tokens, peaks, count, labels), score)


@njit(nogil=True)
def spread_texts(heads, chars, out):
    """out[e] = the code points of event e's text, the rest 0; out int32 (E, longest)."""
    for e in range(out.shape[0]):
        begin = heads[e, TEXT_BEGIN]
        length = heads[e, TEXT_END] - begin
        for k in range(out.shape[1]):
            out[e, k] = chars[begin + k] if k < length else 0
