"""Answers that are a decoder's events: each event one answer, at the output that made it known.

Where each output of an answer has one event, these stay one answer: so a record gives the same answers whatever came with it.
"""

from dataclasses import replace

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.decoders import Events
from .columns import NO_TIME, Answers

DROPPED = -1  # the place of an output that nobody is told of


def event_answers(answers: Answers, events: Events, places: np.ndarray, spec: StepSpec) -> Answers:
    """The events in place of the outputs.

    events: in any order; `rows` is not read. places: of each event, int64 (E,): the index among the outputs of all answers
    end to end; of what a stream's end made known `len + a`, where `answers` has len outputs and a is its last answer;
    DROPPED where it is not told. An answer that ends its stream stays, without values where nothing is left to say.
    """
    total = int(answers.rows.sum())
    if len(events) == total and (places == np.arange(total)).all():
        return replace(answers, values=events.values)
    told = np.flatnonzero(places != DROPPED)
    stops = np.cumsum(answers.rows)
    at_end = places[told] >= total
    of = np.where(at_end, places[told] - total, np.searchsorted(stops, places[told], side="right"))
    offset = np.where(at_end, answers.rows[of], places[told] - (stops - answers.rows)[of])
    order = np.lexsort((offset, of))
    told, of, offset = told[order], of[order], offset[order]
    silent = np.setdiff1d(np.flatnonzero(answers.ends), of)
    return _merged(answers, events, spec, (told, of, offset), silent)


def _merged(
    answers: Answers,
    events: Events,
    spec: StepSpec,
    chosen: tuple[np.ndarray, np.ndarray, np.ndarray],
    silent: np.ndarray,
) -> Answers:
    """chosen: the events, the answers that they are of, and how many outputs into those. silent: answers that only end a stream."""
    told, of, offset = chosen
    begins = np.flatnonzero(_separate(of, offset, answers.rows))
    each = np.diff(np.append(begins, len(of)))
    of, offset = of[begins], offset[begins]
    last = np.append(of[1:] != of[:-1], True)[: len(of)]  # of its answer
    whole = np.concatenate([of, silent])
    rows = np.concatenate([each, np.zeros(len(silent), np.int64)])
    ends = np.concatenate([answers.ends[of] & last, np.ones(len(silent), np.bool_)])
    steps = np.concatenate([_steps(answers, of, offset), answers.steps[silent]])
    times = np.concatenate([_times(answers, of, offset, spec), answers.times_ns[silent]])
    order = np.argsort(whole, kind="stable")
    return Answers(
        answers.columns,
        answers.records[whole][order],
        [answers.keys[i] for i in whole[order].tolist()],
        steps[order],
        rows[order],
        times[order],
        answers.frame_ns[whole][order],
        ends[order],
        {name: array[told] for name, array in events.values.items()},
    )


def _separate(of: np.ndarray, offset: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether each event begins an answer of its own: the first of its answer, and all where not each output has one."""
    first = np.append(True, of[1:] != of[:-1])[: len(of)]
    place = np.arange(len(of)) - np.maximum.accumulate(np.where(first, np.arange(len(of)), 0))
    odd = np.bincount(of, offset != place, len(rows)) > 0
    full = ~odd & (np.bincount(of, minlength=len(rows)) == rows)
    return first | ~full[of]


def _steps(answers: Answers, of: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The output that made each known; of a stream's end its last one."""
    return np.maximum(answers.steps[of] + np.minimum(offset, answers.rows[of] - 1), 0)


def _times(answers: Answers, of: np.ndarray, offset: np.ndarray, spec: StepSpec) -> np.ndarray:
    """When that was: outputs are K frames apart for every M of them."""
    begin, gap = answers.times_ns[of], answers.frame_ns[of]
    since = (
        np.clip(offset, 0, np.maximum(answers.rows[of] - 1, 0)) * spec.frames_per_step * gap // spec.outputs_per_step
    )
    known = (begin != NO_TIME) & ((gap != 0) | (offset == 0))
    return np.where(known, begin + since, NO_TIME)
