"""Several step graphs, one behind the other, at rates of their own; some of them behind a gate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .artifact import StepSpec
from .collected import Collected
from .decoders import Events
from .decoders.decoder import joined, no_events
from .errors import UndertowError
from .frames import Intake
from .gating import Gating
from .given import Given, not_finite
from .index import Key
from .ragged import ranges, starts_of
from .section import Section
from .single import Decoded, outputs_of
from .stage import Stage, hidden_rows

FRAMES = -1  # the source of a node that takes the stream's own frames


@dataclass(frozen=True, slots=True)
class Node:
    """A stage in its place. source: the node that feeds it, or FRAMES. picks: which of that one's outputs each input takes."""

    stage: Stage
    source: int
    picks: tuple[int, ...]
    gated: bool


@dataclass(slots=True)
class Flow:
    """What a node gave: rows[i] rows of each output for stream i. places: int64 (R,), the frame of the stream that each answers; known: the frame with which it came."""

    rows: np.ndarray
    outputs: list[np.ndarray]
    places: np.ndarray
    known: np.ndarray


@dataclass(frozen=True, slots=True)
class Watch:
    """What moves a chain's gate: a value, by its place, of an output of a node."""

    gating: Gating
    node: int
    output: int
    value: int


class Chain:
    """Steps a chain's stages; the last one's outputs, or what a decoder makes of them, are events.

    spec: frames in, and an event at most with each of them. An event's `at` is the frame that it is about.
    """

    collected: Collected | None = None

    def __init__(
        self, spec: StepSpec, intake: Intake, nodes: Sequence[Node], watch: Watch | None, decoded: Decoded | None
    ):
        self.spec, self.intake = spec, intake
        self._nodes, self._watch, self._decoded = nodes, watch, decoded
        self._free = [i for i, node in enumerate(nodes) if not node.gated]
        self._gated = [i for i, node in enumerate(nodes) if node.gated]
        specs, sources = [node.stage.spec for node in nodes], [node.source for node in nodes]
        self._paths = [path_to(i, specs, sources) for i in range(len(nodes))]
        self._counter = nodes[0].stage.section

    @property
    def backend(self) -> str:
        return ", ".join(dict.fromkeys(node.stage.backends.name for node in self._nodes))

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        return {}

    def seen(self, slots: np.ndarray) -> np.ndarray:
        return self._counter.frames[slots]

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        seen, starts = self.seen(slots), starts_of(counts)
        flows: dict[int, Flow] = {}
        self._through(self._free, slots, counts, inputs, np.zeros_like(seen), now, flows)
        marks = np.zeros(int(counts.sum()), np.bool_)
        streams = np.arange(len(slots))
        if self._watch is None:
            events = self._said(flows, streams, slots)
        else:
            events = self._passed(flows, slots, counts, seen, starts, inputs, now, marks)
            self._watch.gating.hold(slots, counts, seen, inputs)
        for flow in flows.values():
            self._mark(marks, flow, streams, starts - seen)
        events.rows = events.rows + (starts - seen)[events.streams]
        return Given([], counts, events, marks)

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        seen, none, streams = self.seen(slots), np.zeros(len(slots), np.int64), np.arange(len(slots))
        last = np.maximum(seen - 1, 0)
        flows = self._flushed(self._free, slots, none, last, now)
        if self._watch is None:
            events = joined([self._said(flows, streams, slots), self._finished(streams, slots, last)])
        else:
            room = [np.zeros((0, *t.shape), t.dtype) for t in self.spec.inputs]
            parts = [self._passed(flows, slots, none, seen, none, room, now, np.zeros(0, np.bool_))]
            is_open, since = self._watch.gating.open(slots)
            still = np.flatnonzero(is_open)
            parts += self._closed(still, slots[still], since[still], last[still], now)
            events = joined(parts)
        events.rows = np.full(len(events), -1)
        return Given([], none, events, np.zeros(0, np.bool_)), {}

    # ---------------------------------------------------------------------------------------------- stepping

    def _through(
        self,
        nodes: Sequence[int],
        slots: np.ndarray,
        counts: np.ndarray,
        inputs: list[np.ndarray],
        since: np.ndarray,
        now: int,
        flows: dict[int, Flow],
    ) -> None:
        """Steps these nodes over the frames; since: the frame that is the first of each stream's present stretch."""
        for i in nodes:
            node = self._nodes[i]
            if node.source == FRAMES:
                given, each = inputs, counts
            else:
                given, each = [flows[node.source].outputs[p] for p in node.picks], flows[node.source].rows
            outputs, rows = node.stage.advance(slots, each, given, now)
            before = node.stage.ready(node.stage.section.frames[slots]) - rows
            flows[i] = self._flow(i, rows, outputs, before, since)

    def _flow(self, i: int, rows: np.ndarray, outputs: list[np.ndarray], before: np.ndarray, since: np.ndarray) -> Flow:
        index, shift = ranges(before, rows), np.repeat(since, rows)
        path = self._paths[i]
        return Flow(rows, outputs, answered_frames(path, index) + shift, known_frames(path, index) + shift)

    def _flushed(
        self, nodes: Sequence[int], slots: np.ndarray, since: np.ndarray, last: np.ndarray, now: int
    ) -> dict[int, Flow]:
        """What these nodes still give, each after what those before it still gave; known with the frame `last`."""
        flows: dict[int, Flow] = {}
        for i in nodes:
            stage, source = self._nodes[i].stage, flows.get(self._nodes[i].source)
            before, parts = stage.ready(stage.section.frames[slots]), []
            if source is not None:
                given = [source.outputs[p] for p in self._nodes[i].picks]
                outputs, rows = stage.advance(slots, source.rows, given, now)
                cuts = np.cumsum(rows)[:-1]
                parts = [list(p) for p in zip(*(np.split(y, cuts) for y in outputs), strict=True)]
            tails = [stage.flush(slot, now) for slot in slots.tolist()]
            whole = (
                [[np.concatenate(y) for y in zip(a, b, strict=True)] for a, b in zip(parts, tails, strict=True)]
                if parts
                else tails
            )
            rows = np.array([len(tail[0]) for tail in whole], np.int64)
            outputs = [np.concatenate(y) for y in zip(*whole, strict=True)] if whole else stage.nothing()
            flows[i] = self._flow(i, rows, outputs, before, since)
            flows[i].known = np.repeat(last, rows)
        return flows

    # ---------------------------------------------------------------------------------------------- behind the gate

    def _passed(
        self,
        flows: dict[int, Flow],
        slots: np.ndarray,
        counts: np.ndarray,
        seen: np.ndarray,
        starts: np.ndarray,
        inputs: list[np.ndarray],
        now: int,
        marks: np.ndarray,
    ) -> Events:
        """Steps the gated nodes over what passes, the first passages of all streams together, then the second ones."""
        watch = self._watch
        assert watch is not None
        flow = flows[watch.node]
        given = flow.outputs[watch.output]
        scores = given.reshape(len(given), math.prod(given.shape[1:]))[:, watch.value]
        found = watch.gating.passages(
            np.ascontiguousarray(slots), np.ascontiguousarray(counts), seen, np.ascontiguousarray(flow.rows),
            np.ascontiguousarray(scores), flow.places, np.minimum(flow.known, np.repeat(np.maximum(seen + counts - 1, 0), flow.rows)),
        )  # fmt: skip
        turns = np.arange(len(found.streams)) - np.searchsorted(found.streams, found.streams)
        parts = []
        for turn in range(int(turns.max(initial=0)) + 1):
            some = found.chosen(np.flatnonzero(turns == turn))
            own: dict[int, Flow] = {}
            mine, lengths = slots[some.streams], some.stop - some.first
            frames = watch.gating.frames(some, slots, seen, starts, inputs)
            self._through(self._gated, mine, lengths, frames, some.since, now, own)
            for flow in own.values():
                flow.known = np.maximum(flow.known, np.repeat(some.known, flow.rows))
                self._mark(marks, flow, some.streams, starts - seen)
            parts.append(self._said(own, some.streams, mine))
            ends = np.flatnonzero(some.ends)
            parts += self._closed(some.streams[ends], mine[ends], some.since[ends], some.stop[ends] - 1, now)
        return joined(parts)

    def _closed(
        self, streams: np.ndarray, slots: np.ndarray, since: np.ndarray, last: np.ndarray, now: int
    ) -> list[Events]:
        """Ends the gated nodes' stretches, and what decodes them; they begin anew."""
        if not len(slots):
            return []
        flows = self._flushed(self._gated, slots, since, last, now)
        parts = [self._said(flows, streams, slots), self._finished(streams, slots, last)]
        for section in self._gated_sections():
            section.reset(slots)
        return parts

    def _gated_sections(self) -> list[Section]:
        stages = [self._nodes[i].stage.section for i in self._gated]
        return [*stages, *([self._decoded.section] if self._decoded else [])]

    # ---------------------------------------------------------------------------------------------- events

    def _said(self, flows: dict[int, Flow], streams: np.ndarray, slots: np.ndarray) -> Events:
        """Of the last node's outputs. `rows` of the events: the frame with which each became known."""
        flow, spec = flows[len(self._nodes) - 1], self._nodes[-1].stage.spec
        if self._decoded is None:
            values = {t.name: y for t, y in zip(spec.outputs, flow.outputs, strict=True)}
            return Events(np.repeat(streams, flow.rows), flow.known, values, flow.places)
        given = outputs_of(spec, slots, flow.rows, flow.outputs, flow.places, {}, self._nodes[-1].stage)
        events = self._decoded.decoder.events(self._decoded.columns, given)
        events.at, events.rows, events.streams = (
            flow.places[events.rows],
            flow.known[events.rows],
            streams[events.streams],
        )
        return events

    def _finished(self, streams: np.ndarray, slots: np.ndarray, last: np.ndarray) -> Events:
        """What the decoder still says of streams, or stretches, that end with the frame `last`."""
        if self._decoded is None:
            return no_events({t.name: (t.shape, t.dtype) for t in self.spec.outputs})
        events = self._decoded.decoder.finish(self._decoded.columns, np.ascontiguousarray(slots))
        events.at, events.rows = last[events.streams], last[events.streams]
        events.streams = streams[events.streams]
        return events

    @staticmethod
    def _mark(marks: np.ndarray, flow: Flow, streams: np.ndarray, shift: np.ndarray) -> None:
        """Marks the frames with which something came that is not finite. shift: from a stream's frames to the batch's."""
        bad = not_finite(flow.outputs, len(flow.places))
        if bad.any():
            rows = (flow.known + np.repeat(shift[streams], flow.rows))[bad]
            marks[np.clip(rows, 0, len(marks) - 1)] = True


def path_to(i: int, specs: Sequence[StepSpec], sources: Sequence[int]) -> list[StepSpec]:
    """The spec of node i, and those of what feeds it, up to the frames."""
    return [specs[i], *([] if sources[i] == FRAMES else path_to(sources[i], specs, sources))]


def answered_frames(path: Sequence[StepSpec], outputs: np.ndarray) -> np.ndarray:
    """The frame of the stream that each of these outputs answers. path: the stage that gives them, and those that feed it."""
    for spec in path:
        outputs = outputs * spec.frames_per_step // spec.outputs_per_step
    return outputs


def known_frames(path: Sequence[StepSpec], outputs: np.ndarray) -> np.ndarray:
    """The frame with which each of these outputs comes."""
    for spec in path:
        steps = (outputs + hidden_rows(spec)) // spec.outputs_per_step
        outputs = (steps + 1) * spec.frames_per_step - 1
    return outputs
