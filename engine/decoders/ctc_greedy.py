"""The best path: the most probable label of each output, repeats and blanks dropped (Graves et al. 2006, section 3.2)."""

import math

import numpy as np
from numba import njit

from .ctc_scores import log_probabilities
from .ctc_text import CHARS, ROW, STREAM, confidence, has_room, put_event, put_final, whole_words, write_text
from .inner import inner

# What a stream remembers, int64: `at` of its last output; its label, -1 after a blank; tokens kept; outputs in a row that were
# blank; outputs since something was said; tokens and characters that were said last.
AT, LAST, COUNT, SILENT, SINCE, SAID, SAID_CHARS = range(7)
MEMORY = 7
# int64: the blank label, kind of the scores, a partial event every so many outputs, blanks that end an utterance (0: never), characters at most.
BLANK, KIND, EVERY, ENDPOINT, MAX_CHARS = range(5)


@inner
def _take(memory, tokens, places, peaks, label, probability, at, blank):
    """One more output."""
    if label == blank:
        memory[SILENT] += 1
        memory[LAST] = -1
    else:
        last = memory[COUNT] - 1
        if label != memory[LAST]:
            last = memory[COUNT]
            memory[COUNT] += 1
            tokens[last], places[last, 0], peaks[last] = label, at, 0.0
        if last >= 0:
            places[last, 1] = at
            peaks[last] = max(peaks[last], np.float32(probability))
        memory[SILENT], memory[LAST] = 0, label
    memory[AT] = at


@inner
def _leave(memory, tokens, places, peaks, count):
    """The first tokens leave."""
    for i in range(count, memory[COUNT]):
        tokens[i - count], peaks[i - count] = tokens[i], peaks[i]
        places[i - count, 0], places[i - count, 1] = places[i, 0], places[i, 1]
    memory[COUNT] -= count
    memory[SAID], memory[SAID_CHARS] = 0, 0


@inner
def _say(memory, tokens, places, peaks, score, labels, told, row):
    """A partial event, where there is more text than was said."""
    count = memory[COUNT]
    end, _ = write_text(tokens, count, count, labels, told.chars, told.cursor[CHARS])
    length = end - told.cursor[CHARS]
    if length != memory[SAID_CHARS]:
        put_event(told, row, memory[AT], 0, end, length, confidence(tokens, peaks, count, labels), score)
        memory[SINCE], memory[SAID_CHARS] = 0, length
    memory[SAID] = count


@inner
def _end(memory, scores, slot, tokens, places, peaks, labels, told, row):
    """The utterance ends, and the next one begins."""
    put_final(told, tokens, places, peaks, memory[COUNT], labels, row, memory[AT], scores[slot], memory[SAID_CHARS] > 0)
    memory[COUNT], memory[LAST], memory[SILENT] = 0, -1, 0
    memory[SINCE], memory[SAID], memory[SAID_CHARS] = 0, 0, 0
    scores[slot] = 0.0


@inner
def _bound(memory, tokens, places, peaks, score, labels, told, row):
    """The buffer is full: whole words are final and leave, or all tokens where the word that goes on has more than a quarter of them."""
    count = whole_words(tokens, memory[COUNT], labels)
    if memory[COUNT] - count > tokens.size // 4:
        count = memory[COUNT]
    put_final(told, tokens, places, peaks, count, labels, row, memory[AT], score, memory[SAID_CHARS] > 0)
    _leave(memory, tokens, places, peaks, count)


@njit(nogil=True)
def best_paths(memories, scores, tokens, places, peaks, slots, ends, values, at, labels, options, logs, told):
    """Takes rows ends[i - 1]..ends[i] of `values` as the next outputs of slots[i], from the cursor on, until all are taken or events may not fit.

    memories int64 (C, MEMORY), scores float64 (C,), tokens int32 (C, N), places int64 (C, N, 2), peaks float32 (C, N): the
    streams' states. logs: float64 (V,), to work in.
    """
    cursor = told.cursor
    while cursor[STREAM] < slots.size:
        slot, last = slots[cursor[STREAM]], ends[cursor[STREAM]]
        memory, words = memories[slot], tokens[slot]
        while cursor[ROW] < last:
            if not has_room(told, words.size, options[MAX_CHARS]):
                return
            row = cursor[ROW]
            label = log_probabilities(values[row], options[KIND], logs)
            scores[slot] += logs[label]
            _take(memory, words, places[slot], peaks[slot], label, math.exp(logs[label]), at[row], options[BLANK])
            memory[SINCE] += 1
            if memory[COUNT] == words.size:
                _bound(memory, words, places[slot], peaks[slot], scores[slot], labels, told, row)
            if options[ENDPOINT] and memory[SILENT] >= options[ENDPOINT]:
                _end(memory, scores, slot, words, places[slot], peaks[slot], labels, told, row)
            elif options[EVERY] and memory[SINCE] >= options[EVERY] and memory[COUNT] != memory[SAID]:
                _say(memory, words, places[slot], peaks[slot], scores[slot], labels, told, row)
            cursor[ROW] += 1
        cursor[STREAM] += 1


@njit(nogil=True)
def end_paths(memories, scores, tokens, places, peaks, slots, labels, options, told):
    """The streams end: the final events of their utterances."""
    cursor = told.cursor
    while cursor[STREAM] < slots.size:
        if not has_room(told, tokens.shape[1], options[MAX_CHARS]):
            return
        slot = slots[cursor[STREAM]]
        _end(memories[slot], scores, slot, tokens[slot], places[slot], peaks[slot], labels, told, -1)
        cursor[STREAM] += 1
