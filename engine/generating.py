"""Streams whose answers are texts: frames are prompts, or sources that an encoder reads, and tokens are generated from them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from .artifact import Artifact, StepSpec
from .beams import beam_search
from .collected import Collected
from .decoders import Events, Generate
from .decoders.decoder import joined
from .errors import ConfigError, UndertowError
from .generation import Generator
from .generation_call import Call, Generation, Stop, stops_of, stream_seed
from .given import Given
from .index import Key
from .section import Section
from .whole import Gathering

if TYPE_CHECKING:
    from .reading import Reader

_NO_OUTPUTS = ((1, -(2**40), 1, 0),)  # `StepSpec.lengths` of streams whose end gives events alone


def source_spec(artifact: Artifact) -> StepSpec:
    """What goes in and out where texts are generated from the sources of a model with an encoder."""
    assert artifact.encoder is not None
    spec = artifact.spec
    return msgspec.structs.replace(artifact.encoder.spec, outputs=spec.outputs, lengths=_NO_OUTPUTS, labels=spec.labels)


class Texts:
    """Generates as a `Generate` says, and makes events of it. spec: the model's, with its labels."""

    def __init__(self, config: Generate, spec: StepSpec, generator: Generator):
        self.generator, self._config = generator, config
        self._labels, self._goes_on = self._names(config, spec), spec.encoder is None
        self.stops = frozenset(self._tokens("stop", self._said_stops(config, spec)))
        self.after = frozenset(self._tokens("after", config.after or []))
        stop: Stop = sorted(self.stops)
        self.call = Call(
            config.max_steps, config.temperature, config.top_k, config.top_p, config.repetition_penalty, config.min_steps,
            stops_of(stop, generator.voices), config.beam, config.length_penalty,
        )  # fmt: skip
        try:
            self.call.check(generator.voices)
        except ValueError as error:
            raise ConfigError(f"[decode] {error}") from error
        self.sample = generator.sample if config.beam == 1 else partial(beam_search, generator)

    def _names(self, config: Generate, spec: StepSpec) -> list[str] | None:
        size, names = self.generator.voices.sizes[0], config.labels or spec.labels
        if config.labels is not None and (len(self.generator.voices) > 1 or len(config.labels) != size):
            raise ConfigError(
                f"[decode] labels: there are {len(config.labels)}, the model has {size} tokens of one input"
            )
        return list(names) if names and len(names) == size and len(self.generator.voices) == 1 else None

    @staticmethod
    def _said_stops(config: Generate, spec: StepSpec) -> Sequence[int | str]:
        if config.stop is not None:
            return config.stop
        return [spec.encoder.stop] if spec.encoder is not None and spec.encoder.stop is not None else []

    def _tokens(self, key: str, given: Sequence[int | str]) -> list[int]:
        size, found = min(self.generator.voices.limits), []
        for token in given:
            if isinstance(token, str):
                if self._labels is None or token not in self._labels:
                    raise ConfigError(
                        f"[decode] {key}: {token!r} is not among the model's labels; give a label, or a token's number"
                    )
                token = self._labels.index(token)
            if not 0 <= token < size:
                raise ConfigError(f"[decode] {key}: {token} is no token of the model, expected 0 to {size - 1}")
            found.append(token)
        return found

    def start(self, spec: StepSpec) -> int:
        """What a model with an encoder begins with. Raises ConfigError."""
        given = self._config.start
        if given is None and spec.encoder is not None:
            given = spec.encoder.start
        if given is None:
            raise ConfigError(
                "[decode] type = 'generate': the model does not say which token a text begins with; give start"
            )
        return self._tokens("start", [given])[0]

    def seed(self, key: Key) -> int:
        """A stream's own."""
        return stream_seed(self._config.seed, key)

    def events(
        self, streams: np.ndarray, rows: np.ndarray, at: np.ndarray, made: Sequence[Generation | None]
    ) -> Events:
        """made: None where the logits are not finite."""
        tokens, texts = np.empty(len(made), object), np.empty(len(made), object)
        for i, each in enumerate(made):
            tokens[i] = each.tokens.tolist() if each else []
            texts[i] = self._text(tokens[i]) if self._labels else ""
        values: dict[str, Any] = {"tokens": tokens} | ({"text": texts} if self._labels else {})
        values["log_probability"] = np.array([each.log_probability if each else 0.0 for each in made])
        values["finished"] = np.array([each.finished if each else "broken" for each in made], "<U6")
        return Events(streams, rows, values, at)

    def _text(self, tokens: list[int]) -> str:
        assert self._labels is not None
        said = tokens[:-1] if tokens and tokens[-1] in self.stops else tokens
        text = "".join(self._labels[t] for t in said).replace(self._config.word_separator, " ")
        return text if self._goes_on else text.removeprefix(" ")


class Prompted:
    """A model of tokens. The last token that a stream was given waits in its row, so that what is generated begins with it."""

    collected: Collected | None = None

    def __init__(self, spec: StepSpec, texts: Texts, kept: Section):
        self.spec, self.stage = spec, texts.generator.stage
        self.intake = self.stage.intake
        self._texts, self._generator = texts, texts.generator
        self._owed, self._seen = kept.column("decode.owed"), kept.column("decode.seen")

    @property
    def backend(self) -> str:
        return self.stage.backends.name

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        return {}

    def seen(self, slots: np.ndarray) -> np.ndarray:
        return self._seen[slots]

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        arena = self.stage.section.arena
        before = arena.read(slots)
        try:
            given = self._taken(slots, counts, inputs, now, keys)
        except Exception:
            arena.write_many(slots, before)
            raise
        self._seen[slots] += counts
        return given

    def _taken(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        tokens, ends = np.stack([x.astype(np.int64) for x in inputs], -1), np.cumsum(counts)
        marks, parts = np.zeros(len(tokens), np.bool_), []
        cuts = self._cuts(tokens, counts)
        begins = (ends - counts).tolist()
        for turn in range(max(map(len, cuts), default=0)):
            some = np.array([i for i, c in enumerate(cuts) if len(c) > turn], np.int64)
            stops = np.array([cuts[i][turn] for i in some.tolist()], np.int64)
            pieces = [tokens[begins[i] : stop] for i, stop in zip(some.tolist(), stops.tolist(), strict=True)]
            for i, stop in zip(some.tolist(), stops.tolist(), strict=True):
                begins[i] = stop
            asks = np.array([int(p[-1, 0]) in self._texts.after for p in pieces], np.bool_)
            part = self._turn(some, slots, keys, pieces, asks, now)
            part.at = self._seen[slots][part.streams] + stops[part.rows] - (ends - counts)[part.streams] - 1
            part.rows = stops[part.rows] - 1
            marks[part.rows[part.values["finished"] == "broken"]] = True
            parts.append(part)
        none = np.zeros(0, np.int64)
        parts.append(self._texts.events(none, none, none, []))
        return Given([], counts, joined(parts), marks)

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        some = np.flatnonzero(self._owed[slots])
        none = np.zeros((0, len(self._generator.voices)), np.int64)
        events = self._generated(some, slots[some], [keys[i] for i in some.tolist()], [none] * len(some), now)
        events.rows, events.at = np.full(len(events), -1), self._seen[slots[some]] - 1
        return Given([], np.zeros(len(slots), np.int64), events, np.zeros(0, np.bool_)), {}

    def _cuts(self, tokens: np.ndarray, counts: np.ndarray) -> list[list[int]]:
        """Of each stream where its pieces end: behind each token that asks for a text, and at the end."""
        ends = np.cumsum(counts).tolist()
        asks = np.isin(tokens[:, 0], list(self._texts.after)) if self._texts.after else np.zeros(len(tokens), np.bool_)
        where, found = (np.flatnonzero(asks) + 1).tolist(), []
        at = 0
        for end, count in zip(ends, counts.tolist(), strict=True):
            mine = []
            while at < len(where) and where[at] <= end:
                mine.append(where[at])
                at += 1
            found.append(mine if not count or (mine and mine[-1] == end) else [*mine, end])
        return found

    def _turn(
        self,
        some: np.ndarray,
        slots: np.ndarray,
        keys: Sequence[Key],
        pieces: list[np.ndarray],
        asks: np.ndarray,
        now: int,
    ) -> Events:
        """Takes streams over a piece each; `rows` of the events: the place among the pieces."""
        hold, say = np.flatnonzero(~asks), np.flatnonzero(asks)
        if len(hold):
            self._generator.hold(slots[some[hold]], [pieces[i] for i in hold.tolist()], now)
            self._owed[slots[some[hold]]] = 1
        mine = [keys[i] for i in some[say].tolist()]
        events = self._generated(some[say], slots[some[say]], mine, [pieces[i] for i in say.tolist()], now)
        events.rows = say
        self._owed[slots[some[say]]] = 0
        return events

    def _generated(
        self, streams: np.ndarray, slots: np.ndarray, keys: Sequence[Key], prompts: list[np.ndarray], now: int
    ) -> Events:
        seeds = {key: self._texts.seed(key) for key in keys}
        made: Mapping[Key, Generation] = {}
        if len(slots):
            made, _ = self._texts.sample(keys, slots, prompts, self._texts.call, seeds, now)
        return self._texts.events(streams, streams, streams, [made.get(key) for key in keys])


class Translating:
    """A model with an encoder. A stream's frames are collected; when it ends, the encoder reads them, and a text is generated."""

    def __init__(self, spec: StepSpec, reader: "Reader", texts: Texts, collected: Collected):
        self.spec, self.stage = spec, texts.generator.stage
        self.intake, self._frames = reader.intake, collected
        self.collected: Collected | None = collected
        self._reader, self._texts = reader, texts
        self._start = np.full((1, 1), texts.start(self.stage.spec), np.int64)
        self._gather = Gathering(collected, self.stage.section)

    @property
    def backend(self) -> str:
        return self.stage.backends.name

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        found = self._gather.refusals(keys, slots, counts)
        held = np.where(slots >= 0, self.seen(np.maximum(slots, 0)), 0)
        return self._reader.too_long(keys, held + counts) | found

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        self._gather.add(slots, counts, inputs, now)
        none, zeros = np.zeros(0, np.int64), np.zeros_like(counts)
        return Given([], zeros, self._texts.events(none, none, none, []), np.zeros(0, np.bool_))

    def seen(self, slots: np.ndarray) -> np.ndarray:
        return self.stage.section.frames[slots]

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        arena, seen = self.stage.section.arena, self.seen(slots).copy()
        read = np.flatnonzero([self._reader.whole.outputs_of(n) > 0 for n in seen.tolist()])
        before = arena.read(slots[read])
        ends = np.cumsum(seen[read])[:-1]
        sources = [list(s) for s in zip(*(np.split(x, ends) for x in self._frames.read(slots[read])), strict=True)]
        try:
            _, failed = self._reader.fill(sources, slots[read], arena.reset, self.stage.section.column)
            good = np.array([i for i in range(len(read)) if i not in failed], np.int64)
            some = [keys[i] for i in read[good].tolist()]
            seeds, prompts = {key: self._texts.seed(key) for key in some}, [self._start] * len(some)
            made: Mapping[Key, Generation] = {}
            if some:
                made, _ = self._texts.sample(some, slots[read[good]], prompts, self._texts.call, seeds, now)
        except Exception:
            arena.write_many(slots[read], before)
            raise
        bad = np.array(sorted(failed), np.int64)
        arena.write_many(slots[read[bad]], before[bad])
        told = self._texts.events(
            read[good], np.full(len(good), -1), seen[read[good]] - 1, [made.get(key) for key in some]
        )
        rows = np.zeros(len(slots), np.int64)
        return Given([], rows, told, np.zeros(0, np.bool_)), {int(read[i]): error for i, error in failed.items()}
