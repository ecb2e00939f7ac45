"""Prefix beam search over the outputs of many streams: what is said, when it is final, and what happens at the bound."""

from typing import NamedTuple

import numpy as np
from numba import njit, types

from .ctc_alignments import USED, clear, collect, common_depth, cut
from .ctc_knowledge import finish, first_history
from .ctc_scores import log_probabilities, log_sum
from .ctc_search import (
    GAIN,
    HISTORY,
    NODE,
    P_BLANK,
    P_SPOKEN,
    advance,
    begin,
    drop,
    forget,
    likeliest,
)
from .ctc_text import CHARS, ROW, STREAM, confidence, has_room, put_event, put_final, whole_words, write_text
from .inner import inner

# What a stream remembers, int64: the pool of nodes (ctc_alignments); `at` of its last output; hypotheses; outputs in a row whose most
# probable label was the blank; outputs since something was said; hash of the text and stable characters that were said last.
AT, COUNT, SILENT, SINCE, SAID, SAID_STABLE = range(3, 9)
MEMORY = 9
# int64: the blank label, kind of the scores, a partial event every so many outputs, blanks that end an utterance (0: never), characters at
# most, and whether only whole words are stable.
BLANK, KIND, EVERY, ENDPOINT, MAX_CHARS, WHOLE = range(6)


class Trail(NamedTuple):
    """The tokens of one hypothesis, to work on: int32 (N,), int64 (N, 2), float32 (N,)."""

    tokens: np.ndarray
    places: np.ndarray
    peaks: np.ndarray


TRAIL = types.NamedTuple((types.int32[::1], types.int64[:, ::1], types.float32[::1]), Trail)


@inner
def _score(parts, k):
    return log_sum(parts[k, P_BLANK], parts[k, P_SPOKEN]) + parts[k, GAIN]


@inner
def _common(hypotheses, parts, memory, tree, count):
    """How many tokens, at most `count`, all hypotheses have in common."""
    best = likeliest(hypotheses, parts, 0)
    for k in range(1, memory[COUNT]):
        count = common_depth(tree, best, likeliest(hypotheses, parts, k), count)
    return count


@inner
def _say(hypotheses, parts, memory, tree, places, peaks, trail, known, options, told, row):
    """A partial event, where text or what is stable of it changed."""
    count = collect(tree, places, peaks, likeliest(hypotheses, parts, 0), trail.tokens, trail.places, trail.peaks)
    stable = _common(hypotheses, parts, memory, tree, count)
    if options[WHOLE]:
        stable = whole_words(trail.tokens, stable, known.labels)
    first = told.cursor[CHARS]
    end, stable_end = write_text(trail.tokens, count, stable, known.labels, told.chars, first)
    digest = np.uint64(0)
    for k in range(first, end):
        digest = (digest ^ np.uint64(told.chars[k] + 1)) * np.uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> np.uint64(29)
    if np.int64(digest) != memory[SAID] or stable_end - first != memory[SAID_STABLE]:
        memory[SAID], memory[SAID_STABLE], memory[SINCE] = np.int64(digest), stable_end - first, 0
        sure = confidence(trail.tokens, trail.peaks, count, known.labels)
        put_event(told, row, memory[AT], 0, end, stable_end - first, sure, _score(parts, 0))


@inner
def _put(memory, trail, count, known, told, row, score):
    """The final event of the first tokens of the trail; what was said is past."""
    always = memory[SAID] != 0
    put_final(told, trail.tokens, trail.places, trail.peaks, count, known.labels, row, memory[AT], score, always)
    memory[SAID], memory[SAID_STABLE], memory[SINCE] = 0, 0, 0


@inner
def _end(hypotheses, parts, memory, tree, places, peaks, trail, known, told, row):
    """The utterance ends with the hypothesis that is best as a whole one, and the next one begins.

    Where only whole words are allowed and no hypothesis ends in one, the best is taken without its last word.
    """
    best, score = -1, _score(parts, 0)
    for k in range(memory[COUNT]):
        allowed, gain = finish(known, hypotheses[k, NODE], hypotheses[k, HISTORY])
        if allowed and (best < 0 or _score(parts, k) + gain > score):
            best, score = k, _score(parts, k) + gain
    node = likeliest(hypotheses, parts, max(best, 0))
    count = collect(tree, places, peaks, node, trail.tokens, trail.places, trail.peaks)
    if best < 0:
        count = whole_words(trail.tokens, count, known.labels)
    _put(memory, trail, count, known, told, row, score)
    clear(memory)
    begin(hypotheses, parts, first_history(known))
    memory[COUNT], memory[SILENT] = 1, 0


@inner
def _leave(hypotheses, memory, tree, trail, count, known, told, row, score):
    """The first tokens are final and leave."""
    _put(memory, trail, count, known, told, row, score)
    forget(hypotheses, memory[COUNT], tree, count)
    cut(tree, memory, count)


@inner
def _bound(hypotheses, parts, memory, tree, places, peaks, trail, known, told, row):
    """The next output may not fit: whole words that all hypotheses have in common are final and leave.

    Where that does not make room, the best hypothesis goes on alone: its whole words are final and leave, or all its tokens where the
    word that goes on has more than a quarter of the tokens that fit.
    """
    size, nodes = hypotheses.shape[0], tree.shape[0]
    count = collect(tree, places, peaks, likeliest(hypotheses, parts, 0), trail.tokens, trail.places, trail.peaks)
    leaving = whole_words(trail.tokens, _common(hypotheses, parts, memory, tree, count), known.labels)
    if leaving:
        _leave(hypotheses, memory, tree, trail, leaving, known, told, row, _score(parts, 0))
    if memory[USED] + 2 * size < nodes:
        return
    drop(hypotheses, 1, memory[COUNT], tree, memory)
    memory[COUNT] = 1
    count = collect(tree, places, peaks, likeliest(hypotheses, parts, 0), trail.tokens, trail.places, trail.peaks)
    leaving = whole_words(trail.tokens, count, known.labels)
    if count - leaving > (nodes - 1) // 4:
        leaving = count
    _leave(hypotheses, memory, tree, trail, leaving, known, told, row, _score(parts, 0))


@njit(nogil=True)
def search(
    hypotheses, parts, memories, tree, places, peaks, slots, ends, values, at, known, options, logs, bench, trail, told
):
    """Takes rows ends[i - 1]..ends[i] of `values` as the next outputs of slots[i], from the cursor on, until all are taken or events may not fit.

    hypotheses int64 (C, B, HYPOTHESIS), parts float64 (C, B, PARTS), memories int64 (C, MEMORY), tree int32 (C, N + 1, 4),
    places int64 (C, N + 1, 2), peaks float32 (C, N + 1): the streams' states. logs float64 (V,), bench, trail: to work in.
    """
    cursor, size, nodes = told.cursor, hypotheses.shape[1], tree.shape[1]
    while cursor[STREAM] < slots.size:
        s, last = slots[cursor[STREAM]], ends[cursor[STREAM]]
        h, p, m, t, w, k = hypotheses[s], parts[s], memories[s], tree[s], places[s], peaks[s]
        while cursor[ROW] < last:
            if not has_room(told, nodes, options[MAX_CHARS]):
                return
            row = cursor[ROW]
            label = log_probabilities(values[row], options[KIND], logs)
            m[COUNT] = advance(h, p, m[COUNT], t, w, k, m, logs, label, options[BLANK], m[AT], at[row], known, bench)
            m[AT] = at[row]
            m[SILENT] = m[SILENT] + 1 if label == options[BLANK] else 0
            m[SINCE] += 1
            if m[USED] + 2 * size >= nodes:
                _bound(h, p, m, t, w, k, trail, known, told, row)
            if options[ENDPOINT] and m[SILENT] >= options[ENDPOINT]:
                _end(h, p, m, t, w, k, trail, known, told, row)
            elif options[EVERY] and m[SINCE] >= options[EVERY]:
                _say(h, p, m, t, w, k, trail, known, options, told, row)
            cursor[ROW] += 1
        cursor[STREAM] += 1


@njit(nogil=True)
def end_searches(hypotheses, parts, memories, tree, places, peaks, slots, known, options, trail, told):
    """The streams end: the final events of their utterances."""
    cursor = told.cursor
    while cursor[STREAM] < slots.size:
        if not has_room(told, tree.shape[1], options[MAX_CHARS]):
            return
        s = slots[cursor[STREAM]]
        _end(hypotheses[s], parts[s], memories[s], tree[s], places[s], peaks[s], trail, known, told, -1)
        cursor[STREAM] += 1
