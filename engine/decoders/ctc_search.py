"""Prefix beam search for one more output (Graves 2012, section 7.5.3; Hannun et al. 2014, arXiv:1408.2873).

A prefix is what the outputs may have said so far; its probability is the sum over all alignments, in two parts: those that end
in a blank, and those that end in its last token. Two prefixes are the same where a 64-bit hash of their tokens is. Beside the
sum each part keeps its likeliest alignment, which tells when each token was said.

pyctcdecode, flashlight-text, torchaudio and fast-ctc-decode keep a search in objects of their own, which cannot lie in a stream's
row, be copied, saved and gone on with; and they are called once a stream.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types

from .ctc_alignments import DEPTH, add, hold, release
from .ctc_knowledge import MOST, extend
from .ctc_scores import log_sum
from .inner import inner

# A hypothesis, int64: hash of its tokens, and of those but the last; the last, -1 where there is none; history in the language
# model; node in the trie of words; alignment that ends in a blank, and in the last token, -1 where there is none.
HASH, ABOVE, LAST, HISTORY, NODE, BLANKED, SPOKEN = range(7)
HYPOTHESIS = 7
# float64: log-probability of what ends in a blank, and in the last token; of the likeliest alignment of each; what is gained beside.
P_BLANK, P_SPOKEN, BEST_BLANK, BEST_SPOKEN, GAIN = range(5)
PARTS = 5
EMPTY_HASH = 1


class Bench(NamedTuple):
    """Where a call works. next_*: hypotheses after the output. chosen: int64 (B, 4): from which, token or -1, node, history; parts: float64 (B, 4).

    from_above: int64 (B,), the hypothesis that one is by its last token longer than, or -1. taken: int64 (V,) marks.
    """

    next_hypotheses: np.ndarray
    next_parts: np.ndarray
    chosen: np.ndarray
    parts: np.ndarray
    from_above: np.ndarray
    taken: np.ndarray


I1, I2, F2 = types.int64[::1], types.int64[:, ::1], types.float64[:, ::1]
BENCH = types.NamedTuple((I2, F2, I2, F2, I1, I1), Bench)
SOURCE, ADDED, NEXT_NODE, NEXT_HISTORY = range(4)
SCORE, NEW_BLANK, NEW_SPOKEN, NEW_GAIN = range(4)


@inner
def longer(digest, token):
    """The hash of a prefix with one more token."""
    mixed = (np.uint64(digest) ^ np.uint64(token + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.int64(mixed ^ (mixed >> np.uint64(32)))


@inner
def copy(hypothesis, parts, to_hypothesis, to_parts):
    """One hypothesis in another's place."""
    for k in range(HYPOTHESIS):
        to_hypothesis[k] = hypothesis[k]
    for k in range(PARTS):
        to_parts[k] = parts[k]


@inner
def _choose(bench, count, source, token, node, history, blank, spoken, gain):
    """Puts a candidate among the best so far, behind those that are as good; returns how many there are."""
    score = (log_sum(blank, spoken) if token < 0 else spoken) + gain
    place = count
    while place > 0 and bench.parts[place - 1, SCORE] < score:
        place -= 1
    size = bench.chosen.shape[0]
    if place == size:
        return count
    count = min(count + 1, size)
    for i in range(count - 1, place, -1):
        for k in range(4):
            bench.chosen[i, k], bench.parts[i, k] = bench.chosen[i - 1, k], bench.parts[i - 1, k]
    chosen, parts = bench.chosen[place], bench.parts[place]
    chosen[SOURCE], chosen[ADDED], chosen[NEXT_NODE], chosen[NEXT_HISTORY] = source, token, node, history
    parts[SCORE], parts[NEW_BLANK], parts[NEW_SPOKEN], parts[NEW_GAIN] = score, blank, spoken, gain
    return count


@inner
def _before(hypotheses, parts, i, token, best):
    """The log-probability of hypothesis i where a token is to follow: a repeat needs a blank between. best: of its likeliest alignment."""
    blank, spoken = parts[i, BEST_BLANK if best else P_BLANK], parts[i, BEST_SPOKEN if best else P_SPOKEN]
    if hypotheses[i, LAST] == token:
        return blank
    return max(blank, spoken) if best else log_sum(blank, spoken)


@inner
def _stay(hypotheses, parts, count, logs, blank, bench):
    """Candidates that say no more than before; what reaches them from a hypothesis that is one token shorter is in them."""
    found = 0
    for j in range(count):
        bench.from_above[j] = -1
        last = hypotheses[j, LAST]
        spoken = parts[j, P_SPOKEN] + logs[last] if last >= 0 else -np.inf
        for i in range(count):
            if last >= 0 and hypotheses[i, HASH] == hypotheses[j, ABOVE]:
                bench.from_above[j] = i
                spoken = log_sum(spoken, _before(hypotheses, parts, i, last, False) + logs[last])
        ended = log_sum(parts[j, P_BLANK], parts[j, P_SPOKEN]) + logs[blank]
        node, history = hypotheses[j, NODE], hypotheses[j, HISTORY]
        found = _choose(bench, found, j, -1, node, history, ended, spoken, parts[j, GAIN])
    return found


@inner
def _go_on(hypotheses, parts, count, logs, blank, known, bench, found):
    """Candidates with one more token that no hypothesis has yet."""
    size = bench.chosen.shape[0]
    for i in range(count):
        for j in range(count):
            if bench.from_above[j] == i:
                bench.taken[hypotheses[j, LAST]] = i
        total = log_sum(parts[i, P_BLANK], parts[i, P_SPOKEN])
        for token in range(logs.size):
            if token == blank or bench.taken[token] == i:
                continue
            spoken = logs[token] + (parts[i, P_BLANK] if hypotheses[i, LAST] == token else total)
            most = spoken + (parts[i, GAIN] + known.gains[MOST])
            if spoken == -np.inf or (found == size and most <= bench.parts[size - 1, SCORE]):
                continue
            allowed, node, history, gain = extend(known, hypotheses[i, NODE], hypotheses[i, HISTORY], token)
            if allowed:
                found = _choose(bench, found, i, token, node, history, -np.inf, spoken, parts[i, GAIN] + gain)
    return found


@inner
def likeliest(hypotheses, parts, i):
    """The alignment of hypothesis i that is likeliest."""
    return hypotheses[i, BLANKED] if parts[i, BEST_BLANK] >= parts[i, BEST_SPOKEN] else hypotheses[i, SPOKEN]


@inner
def _spoken_after(hypotheses, parts, i, token, tree, places, peaks, pool, at, log):
    """A new alignment: the token is said now, after the likeliest of hypothesis i that it may follow."""
    before = hypotheses[i, BLANKED] if hypotheses[i, LAST] == token else likeliest(hypotheses, parts, i)
    return add(tree, places, peaks, pool, before, token, at, math.exp(log))


@inner
def _settle_stay(hypotheses, parts, j, logs, blank, tree, places, peaks, pool, at, above, state, values):
    """The likeliest alignments of a hypothesis that stays."""
    last = hypotheses[j, LAST]
    state[BLANKED] = likeliest(hypotheses, parts, j)
    values[BEST_BLANK] = max(parts[j, BEST_BLANK], parts[j, BEST_SPOKEN]) + logs[blank]
    if last < 0:
        return
    values[BEST_SPOKEN] = parts[j, BEST_SPOKEN] + logs[last]
    if above >= 0:
        reached = _before(hypotheses, parts, above, last, True) + logs[last]
        if reached > values[BEST_SPOKEN]:
            values[BEST_SPOKEN] = reached
            state[SPOKEN] = _spoken_after(hypotheses, parts, above, last, tree, places, peaks, pool, at, logs[last])


@inner
def _settle(hypotheses, parts, found, logs, blank, tree, places, peaks, pool, at, bench):
    """The chosen candidates as hypotheses, with their alignments."""
    for k in range(found):
        source, token = bench.chosen[k, SOURCE], bench.chosen[k, ADDED]
        state, values = bench.next_hypotheses[k], bench.next_parts[k]
        copy(hypotheses[source], parts[source], state, values)
        values[P_BLANK], values[P_SPOKEN] = bench.parts[k, NEW_BLANK], bench.parts[k, NEW_SPOKEN]
        if token < 0:
            above = bench.from_above[source]
            _settle_stay(hypotheses, parts, source, logs, blank, tree, places, peaks, pool, at, above, state, values)
        else:
            state[ABOVE], state[HASH] = state[HASH], longer(state[HASH], token)
            state[LAST], state[NODE], state[HISTORY] = token, bench.chosen[k, NEXT_NODE], bench.chosen[k, NEXT_HISTORY]
            values[GAIN] = bench.parts[k, NEW_GAIN]
            values[BEST_BLANK], state[BLANKED] = -np.inf, -1
            values[BEST_SPOKEN] = _before(hypotheses, parts, source, token, True) + logs[token]
            state[SPOKEN] = _spoken_after(hypotheses, parts, source, token, tree, places, peaks, pool, at, logs[token])
        hold(tree, state[BLANKED])
        hold(tree, state[SPOKEN])


@inner
def drop(hypotheses, first, count, tree, pool):
    """These hypotheses let go of their alignments."""
    for j in range(first, count):
        release(tree, pool, hypotheses[j, BLANKED])
        release(tree, pool, hypotheses[j, SPOKEN])


@inner
def _last_longer(hypotheses, count, logs, label, tree, places, peaks, before, at):
    """A token's end moves on while its label is the most probable."""
    for j in range(count):
        node = hypotheses[j, SPOKEN]
        if node > 0 and hypotheses[j, LAST] == label and places[node, 1] == before:
            places[node, 1] = at
            peaks[node] = max(peaks[node], np.float32(math.exp(logs[label])))


@inner
def advance(hypotheses, parts, count, tree, places, peaks, pool, logs, label, blank, before, at, known, bench):
    """The hypotheses after one more output, best first; returns how many there are. label: the most probable; before: the output before's `at`.

    It takes at most two nodes a hypothesis from the pool, before it frees any.
    """
    _last_longer(hypotheses, count, logs, label, tree, places, peaks, before, at)
    for token in range(logs.size):
        bench.taken[token] = -1
    found = _stay(hypotheses, parts, count, logs, blank, bench)
    found = _go_on(hypotheses, parts, count, logs, blank, known, bench, found)
    _settle(hypotheses, parts, found, logs, blank, tree, places, peaks, pool, at, bench)
    drop(hypotheses, 0, count, tree, pool)
    for k in range(found):
        copy(bench.next_hypotheses[k], bench.next_parts[k], hypotheses[k], parts[k])
    return found


@inner
def begin(hypotheses, parts, history):
    """The one hypothesis that nothing was said."""
    first, values = hypotheses[0], parts[0]
    for k in range(HYPOTHESIS):
        first[k] = 0
    for k in range(PARTS):
        values[k] = -np.inf
    first[HASH], first[LAST], first[HISTORY], first[SPOKEN] = EMPTY_HASH, -1, history, -1
    values[P_BLANK], values[BEST_BLANK], values[GAIN] = 0.0, 0.0, 0.0


@inner
def forget(hypotheses, count, tree, depth):
    """The first tokens leave: alignments that had no more are node 0 from now on. Before the tree is cut."""
    for j in range(count):
        for k in (BLANKED, SPOKEN):
            node = hypotheses[j, k]
            if node > 0 and tree[node, DEPTH] <= depth:
                hypotheses[j, k] = 0
