"""What a call of the search has told, as events: text, words with their times, how sure, how much of it is final."""

from typing import Any

import numpy as np

from .ctc_text import (
    CHARS,
    EVENT_AT,
    EVENT_ROW,
    EVENT_STREAM,
    EVENTS,
    EVENTS_OF_A_ROW,
    FINAL,
    STABLE,
    TEXT_BEGIN,
    TEXT_END,
    WORDS,
    WORDS_END,
    Told,
)
from .decoder import Events

MOST_EVENTS = 4096  # that room is made for at first


def room(rows: int, max_tokens: int, max_chars: int) -> Told:
    """Empty buffers; more grow where they do not do."""
    events = EVENTS_OF_A_ROW + min(rows, MOST_EVENTS)
    chars, words = EVENTS_OF_A_ROW * max_chars + 32 * events, EVENTS_OF_A_ROW * max_tokens + 8 * events
    return Told(
        np.empty((events, 8), np.int64), np.empty((events, 2), np.float32), np.empty(chars, np.int32),
        np.empty((words, 4), np.int64), np.empty(words, np.float32), np.zeros(5, np.int64),
    )  # fmt: skip


def grown(told: Told) -> Told:
    """With twice the room, and all that is there."""
    events, chars, words = (int(n) for n in told.cursor[[EVENTS, CHARS, WORDS]])
    *buffers, cursor = told
    larger = [np.empty((2 * len(b), *b.shape[1:]), b.dtype) for b in buffers]
    for old, new, used in zip(buffers, larger, (events, events, chars, words, words), strict=True):
        new[:used] = old[:used]
    return Told._make([*larger, cursor])


def events_of(told: Told, program: Any, place_s: float | None) -> Events:
    """The events that were told; program: with `spread_texts`."""
    count = int(told.cursor[EVENTS])
    heads, marks = told.heads[:count], told.marks[:count]
    longest = int((heads[:, TEXT_END] - heads[:, TEXT_BEGIN]).max(initial=1))
    codes = np.empty((count, longest), np.int32)
    program.spread_texts(heads, told.chars[: told.cursor[CHARS]], codes)
    values = {
        "text": codes.view(f"<U{longest}")[:, 0],
        "stable": heads[:, STABLE].copy(),
        "final": heads[:, FINAL].astype(np.bool_),
        "confidence": marks[:, 0].copy(),
        "score": marks[:, 1].copy(),
        "words": _words(told, heads, place_s),
    }
    return Events(heads[:, EVENT_STREAM].copy(), heads[:, EVENT_ROW].copy(), values, heads[:, EVENT_AT].copy())


def _words(told: Told, heads: np.ndarray, place_s: float | None) -> np.ndarray:
    """By event a list of its words; only final ones have any, so this is done once an utterance, not once an output."""
    values = np.empty(len(heads), object)
    values[:] = [[] for _ in heads]
    if not told.cursor[WORDS]:
        return values
    spans, sure = told.spans[: told.cursor[WORDS]].tolist(), told.sure[: told.cursor[WORDS]].tolist()
    first = 0
    for event in np.flatnonzero(heads[:, FINAL]).tolist():
        begin, end, last = heads[event, [TEXT_BEGIN, TEXT_END, WORDS_END]].tolist()
        text = told.chars[begin:end].tobytes().decode("utf-32-le")
        for (a, b, at, until), confidence in zip(spans[first:last], sure[first:last], strict=True):
            word: dict[str, Any] = {"word": text[a:b], "begin": at, "end": until}
            if place_s is not None:
                word |= {"begin_s": at * place_s, "end_s": until * place_s}
            values[event].append(word | {"confidence": confidence})
        first = last
    return values
