"""`[decode] type = "ctc"`: text and words from a model trained with connectionist temporal classification."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numba import types

from ..artifact import StateSpec
from ..cache import load_static
from ..errors import ConfigError
from . import ctc_beam, ctc_greedy, ctc_search
from .choosing import chosen_labels, chosen_output
from .ctc_knowledge import KNOWLEDGE, Knowledge, first_history
from .ctc_search import BENCH, Bench
from .ctc_tables import knowledge_of, labels_of
from .ctc_text import LABELS, STREAM, TOLD, Told, spread_texts
from .ctc_told import events_of, grown, room
from .decoder import About, Decoder, Events, Outputs

Text = Annotated[str, msgspec.Meta(min_length=1)]
KINDS = ("logits", "log-probabilities", "probabilities")
NGRAMS = ("words", "tokens")


class Ctc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="ctc"):
    """Events with `text`, of an utterance: partial ones while it goes on, and a `final` one.

    text: words with one space between. stable: how many characters at its beginning will not change any more. final: bool.
    confidence: the mean over the tokens of the greatest probability that the model gave each. score: log-probability of the best
    path (beam = 1), else of the best hypothesis, with what language model and bonus add; since the utterance began.
    words: of final events, a list of {"word", "begin", "end", "confidence"}: `at` of its first and its last output, and
    "begin_s", "end_s" where the model's rate is known; "confidence" as above.

    output: which one, where the model has several. labels: in place of the artifact's. blank: its index or its label.
    scores: what the output holds; a probability of zero counts as exp(-1000).
    beam: 1 is the best path; more, prefix beam search with so many prefixes.
    lexicon: a file with a word a line (gzip where it ends in .gz); nothing else is recognised then. A word with characters that no label has never is.
    ngram: an ARPA file (likewise), of words or of tokens (`ngram_of`; the separator is then written as its label, <space>, | or ▁).
    ngram_weight: its logarithms count so much (0.5 by default). word_bonus: what each word adds to the logarithm.
    word_separator: a label that is it, or begins with it, begins a word.
    partials: a partial event where text or `stable` changed: at each output, at most every so many outputs, or never.
    endpoint: so many outputs in a row whose likeliest label is the blank end the utterance; nothing was said before the next.
    max_tokens: what is kept of an utterance that is not final, 256, or 16 a hypothesis of a beam above 16, if not given: the tokens of all hypotheses, what they share counted once; two a
        hypothesis stay free. At the bound the whole words that all hypotheses share are told as final and leave. Where that is not
        enough, the best hypothesis goes on alone, and its whole words are final and leave; all of it does where its last word has
        more than a quarter of max_tokens. Best path: when it has so many tokens, likewise. Language model and search go on.
        Final events of one utterance share no text; each partial is of what is not yet final.
    """

    output: Text | None = None
    labels: list[str] | None = None
    blank: Annotated[int, msgspec.Meta(ge=0)] | str = 0
    scores: Literal["logits", "log-probabilities", "probabilities"] = "logits"
    beam: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    lexicon: Text | None = None
    ngram: Text | None = None
    ngram_of: Literal["words", "tokens"] | None = None
    ngram_weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] | None = None
    word_bonus: Annotated[float, msgspec.Meta(ge=-1000, le=1000)] = 0.0
    word_separator: Text = " "
    partials: bool | Annotated[int, msgspec.Meta(ge=1)] = True
    endpoint: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=16, le=2**20)] | None = None

    @property
    def room(self) -> int:
        """`max_tokens`, or what it is if not given."""
        return self.max_tokens or max(256, 16 * self.beam)

    def decoder(self, about: About) -> Decoder:
        """Raises ConfigError where the model, or a file, has not what it needs."""
        output = chosen_output("ctc", about.spec, self.output)
        names = chosen_labels("ctc", about.spec, output, self.labels)
        if output.shape != (len(names),):
            raise ConfigError(
                f"[decode] type = 'ctc': output '{output.name}' has shape {output.shape}, expected ({len(names)},)"
            )
        self._check()
        blank = self.blank if isinstance(self.blank, int) else names.index(self.blank) if self.blank in names else -1
        if not 0 <= blank < len(names):
            raise ConfigError(
                f"[decode] blank = {self.blank!r}: not one of the {len(names)} labels, nor the index of one"
            )
        return (BestPath if self.beam == 1 else BeamSearch)(self, output.name, names, blank, about.place_s)

    def _check(self) -> None:
        if self.beam == 1:
            for name, given in (("lexicon", self.lexicon), ("ngram", self.ngram), ("word_bonus", self.word_bonus)):
                if given:
                    raise ConfigError(
                        f"[decode] {name}: the best path (beam = 1) takes none; give beam, 8 for instance"
                    )
        if self.ngram is None:
            for name, given in (("ngram_of", self.ngram_of), ("ngram_weight", self.ngram_weight)):
                if given is not None:
                    raise ConfigError(
                        f"[decode] {name}: there is no ngram that it is about; give ngram, or leave it out"
                    )
        if self.room < 8 * self.beam and self.beam > 1:
            raise ConfigError(
                f"[decode] max_tokens = {self.room} with beam = {self.beam}: expected at least 8 a hypothesis, {8 * self.beam}"
            )


class _Searching(ABC):
    """What both have in common: options, the loop that makes room, and events."""

    states: tuple[StateSpec, ...]
    spare = 0

    def __init__(self, config: Ctc, output: str, names: Sequence[str], blank: int, place_s: float | None):
        self._output, self._place_s, self._max_tokens = output, place_s, config.room
        self._max_chars = config.room * (1 + max(len(name) for name in names))
        every = 0 if config.partials is False else int(config.partials)
        self._options = np.array(
            [blank, KINDS.index(config.scores), every, config.endpoint or 0, self._max_chars, 0], np.int64
        )
        self._labels = labels_of(names, blank, config.word_separator)
        self._logs = np.empty(len(names))
        self._program = compiled_path() if config.beam == 1 else compiled_search()

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        values, ends = outputs.values[self._output], outputs.counts.cumsum()
        given = [*self._columns(columns), outputs.slots, ends, values, outputs.at]
        return self._tell(len(ends), len(values), partial(self._take, given))

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        return self._tell(len(slots), 0, partial(self._end, [*self._columns(columns), slots]))

    @abstractmethod
    def _take(self, given: Sequence[np.ndarray], told: Told) -> None:
        """The search over outputs: the states, slots, where each stream's outputs end, scores, places."""

    @abstractmethod
    def _end(self, given: Sequence[np.ndarray], told: Told) -> None:
        """The search at streams' ends: the states, slots."""

    def _columns(self, columns: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [columns[s.name] for s in self.states]

    def _tell(self, streams: int, rows: int, take: Callable[[Told], None]) -> Events:
        told = room(max(streams, rows), self._max_tokens + 1, self._max_chars)
        while True:
            take(told)
            if told.cursor[STREAM] == streams:
                return events_of(told, self._program, self._place_s)
            told = grown(told)


class BestPath(_Searching):
    """The best path; its tokens are kept until they are final."""

    def __init__(self, config: Ctc, output: str, names: Sequence[str], blank: int, place_s: float | None):
        super().__init__(config, output, names, blank, place_s)
        size, memory = config.room, np.zeros(ctc_greedy.MEMORY, "<i8")
        memory[[ctc_greedy.AT, ctc_greedy.LAST]] = -1
        self.states = (
            _state("memory", memory),
            _state("score", np.zeros((), "<f8")),
            _state("tokens", np.zeros(size, "<i4")),
            _state("places", np.zeros((size, 2), "<i8")),
            _state("peaks", np.zeros(size, "<f4")),
        )

    def _take(self, given: Sequence[np.ndarray], told: Told) -> None:
        self._program.best_paths(*given, self._labels, self._options, self._logs, told)

    def _end(self, given: Sequence[np.ndarray], told: Told) -> None:
        self._program.end_paths(*given, self._labels, self._options, told)


class BeamSearch(_Searching):
    """Prefix beam search; the tokens of all hypotheses are kept in a tree."""

    def __init__(self, config: Ctc, output: str, names: Sequence[str], blank: int, place_s: float | None):
        super().__init__(config, output, names, blank, place_s)
        self._options[ctc_beam.WHOLE] = config.lexicon is not None
        self._known: Knowledge = knowledge_of(
            self._labels, names, blank, config.word_separator, config.room, config.word_bonus,
            lexicon=None if config.lexicon is None else Path(config.lexicon),
            ngram=None if config.ngram is None else Path(config.ngram),
            ngram_of=config.ngram_of or "words", weight=0.5 if config.ngram_weight is None else config.ngram_weight,
        )  # fmt: skip
        beam, nodes = config.beam, config.room + 1
        self._bench = Bench(
            np.empty((beam, ctc_search.HYPOTHESIS), np.int64), np.empty((beam, ctc_search.PARTS)),
            np.empty((beam, 4), np.int64), np.empty((beam, 4)), np.empty(beam, np.int64), np.empty(len(names), np.int64),
        )  # fmt: skip
        self._trail = ctc_beam.Trail(
            np.empty(nodes, np.int32), np.empty((nodes, 2), np.int64), np.empty(nodes, np.float32)
        )
        self.states = self._first_states(beam, nodes)

    def _first_states(self, beam: int, nodes: int) -> tuple[StateSpec, ...]:
        memory = np.zeros(ctc_beam.MEMORY, "<i8")
        hypotheses, parts = np.zeros((beam, ctc_search.HYPOTHESIS), "<i8"), np.zeros((beam, ctc_search.PARTS), "<f8")
        ctc_search.begin.py_func(hypotheses, parts, first_history.py_func(self._known))
        ctc_beam.clear.py_func(memory)
        memory[ctc_beam.AT], memory[ctc_beam.COUNT] = -1, 1
        return (
            _state("hypotheses", hypotheses),
            _state("parts", parts),
            _state("memory", memory),
            _state("tree", np.zeros((nodes, 4), "<i4")),
            _state("places", np.zeros((nodes, 2), "<i8")),
            _state("peaks", np.zeros(nodes, "<f4")),
        )

    def _take(self, given: Sequence[np.ndarray], told: Told) -> None:
        self._program.search(*given, self._known, self._options, self._logs, self._bench, self._trail, told)

    def _end(self, given: Sequence[np.ndarray], told: Told) -> None:
        self._program.end_searches(*given, self._known, self._options, self._trail, told)


def _state(name: str, initial: np.ndarray) -> StateSpec:
    """A state of this name, kept from one output to the next."""
    zero = not initial.any()
    name = f"decode.{name}"
    return StateSpec(name, name, initial.shape, initial.dtype.name, 0.0 if zero else initial.tobytes())  # pyright: ignore[reportArgumentType]


def _column(kind: Any, rank: int) -> types.Array:
    return types.Array(kind, rank, "A")


_I4, _I8, _F4, _F8 = types.int32, types.int64, types.float32, types.float64
_OUTPUTS = (_I8[::1], _I8[::1], _F4[:, ::1], _I8[::1])
_TEXTS = [(_I8[:, ::1], _I4[::1], _I4[:, ::1])]


@cache
def compiled_path() -> Any:
    """The loops of the best path, compiled once a process."""
    path = (_column(_I8, 2), _column(_F8, 1), _column(_I4, 2), _column(_I8, 3), _column(_F4, 2))
    signatures = {
        "best_paths": [(*path, *_OUTPUTS, LABELS, _I8[::1], _F8[::1], TOLD)],
        "end_paths": [(*path, _I8[::1], LABELS, _I8[::1], TOLD)],
        "spread_texts": _TEXTS,
    }
    return load_static([ctc_greedy.best_paths, ctc_greedy.end_paths, spread_texts], signatures)


@cache
def compiled_search() -> Any:
    """The loops of the beam search, compiled once a process."""
    beam = (_column(_I8, 3), _column(_F8, 3), _column(_I8, 2), _column(_I4, 3), _column(_I8, 3), _column(_F4, 2))
    signatures = {
        "search": [(*beam, *_OUTPUTS, KNOWLEDGE, _I8[::1], _F8[::1], BENCH, ctc_beam.TRAIL, TOLD)],
        "end_searches": [(*beam, _I8[::1], KNOWLEDGE, _I8[::1], ctc_beam.TRAIL, TOLD)],
        "spread_texts": _TEXTS,
    }
    return load_static([ctc_beam.search, ctc_beam.end_searches, spread_texts], signatures)
