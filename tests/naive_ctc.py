"""CTC decoding the slow way, in plain Python: best path, prefix beam search with words and a language model, the sum over all alignments.

Tokens are indices of labels, prefixes tuples of them. Nothing here is incremental, bounded or shared with the engine.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

FLOOR = -1000.0
Prefix = tuple[int, ...]


def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    top = max(a, b)
    return top if top == -math.inf else top + math.log(math.exp(a - top) + math.exp(b - top))


def log_probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """float64 (T, V)."""
    scores = scores.astype(np.float64)
    if kind == "logits":
        shifted = scores - scores.max(-1, keepdims=True)
        scores = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    elif kind == "probabilities":
        scores = np.array([[math.log(p) if p > 0 else FLOOR for p in row] for row in scores]).reshape(scores.shape)
    return np.maximum(scores, FLOOR)


@dataclass
class Said:
    """A token with the first and the last output of its run, and the greatest probability in it; before: what was said before it."""

    token: int
    begin: int
    end: int
    peak: float
    before: "Said | None" = None

    def all(self) -> list["Said"]:
        return [*(self.before.all() if self.before else []), self]


def best_path(logs: np.ndarray, blank: int) -> tuple[list[Said], float]:
    """The tokens of the most probable label of each output, and the logarithm of that path's probability."""
    said: list[Said] = []
    best = logs.argmax(-1).tolist()
    for at, (label, before) in enumerate(zip(best, [blank, *best], strict=False)):
        p = math.exp(logs[at, label])
        if label == blank:
            continue
        if label == before:
            said[-1].end, said[-1].peak = at, max(said[-1].peak, p)
        else:
            said.append(Said(label, at, at, p))
    return said, float(sum(logs[at, label] for at, label in enumerate(best)))


def text_of(tokens: Sequence[int], names: Sequence[str], separator: str = " ") -> str:
    """Words with one space between, none at either end."""
    return " ".join(word for word in "".join(names[t] for t in tokens).split(separator) if word)


def words_of(said: Sequence[Said], names: Sequence[str], separator: str = " ") -> list[dict]:
    """The words with their times and how sure they are."""
    groups: list[list[Said]] = [[]]
    for one in said:
        if names[one.token].startswith(separator):
            groups.append([])
        if names[one.token].removeprefix(separator):
            groups[-1].append(one)
    return [
        {
            "word": "".join(names[s.token].removeprefix(separator) for s in group),
            "begin": group[0].begin,
            "end": group[-1].end,
            "confidence": sum(s.peak for s in group) / len(group),
        }
        for group in groups
        if group
    ]


@dataclass
class Language:
    """Back-off n-grams: of each n-gram its log10 probability and back-off."""

    ngrams: Mapping[tuple[str, ...], tuple[float, float]]

    def log10(self, history: tuple[str, ...], word: str) -> float:
        """Katz back-off, by its recursive definition."""
        gram = (*history, word)
        if gram in self.ngrams:
            return self.ngrams[gram][0]
        if not history:
            return self.ngrams.get(("<unk>",), (-100.0, 0.0))[0]
        return self.ngrams.get(history, (0.0, 0.0))[1] + self.log10(history[1:], word)

    def sentence(self, words: Sequence[str], end: bool, order: int) -> float:
        """log10 of the probability of words from the beginning of a sentence."""
        known = [w if (w,) in self.ngrams else "<unk>" for w in words]
        known = (
            (["<s>"] if ("<s>",) in self.ngrams else [])
            + known
            + (["</s>"] if end and ("</s>",) in self.ngrams else [])
        )
        first = 1 if ("<s>",) in self.ngrams else 0
        return sum(self.log10(tuple(known[max(0, i - order + 1) : i]), known[i]) for i in range(first, len(known)))


@dataclass
class Gain:
    """What a prefix gains beside the model's probability; minus infinity where it is not allowed. Recomputed from the whole prefix each time."""

    names: Sequence[str]
    separator: str = " "
    lexicon: frozenset[str] | None = None
    language: Language | None = None
    order: int = 3
    of_tokens: bool = False
    weight: float = 0.0
    bonus: float = 0.0
    token_words: Sequence[str] = ()
    beginnings: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.beginnings = {w[:i] for w in self.lexicon or () for i in range(len(w) + 1)}

    def __call__(self, prefix: Prefix, end: bool = False) -> float:
        pieces = "".join(self.names[t] for t in prefix).split(self.separator)
        whole, rest = [w for w in pieces[:-1] if w], pieces[-1]
        if end and rest:
            whole, rest = [*whole, rest], ""
        if self.lexicon is not None and (rest not in self.beginnings or not self.lexicon.issuperset(whole)):
            return -math.inf
        gain = self.bonus * len(whole)
        if self.language is not None:
            words = [self.token_words[t] for t in prefix] if self.of_tokens else whole
            gain += self.weight * math.log(10) * self.language.sentence(words, end, self.order)
        return gain


@dataclass
class Ends:
    """The log-probabilities of a prefix that ends in a blank and in its last token, and the likeliest alignment of each."""

    blank: float = -math.inf
    spoken: float = -math.inf
    best_blank: float = -math.inf
    best_spoken: float = -math.inf
    said_blank: Said | None = None
    said_spoken: Said | None = None

    @property
    def total(self) -> float:
        return log_add(self.blank, self.spoken)

    @property
    def likeliest(self) -> Said | None:
        return self.said_blank if self.best_blank >= self.best_spoken else self.said_spoken

    def before(self, repeats: bool) -> tuple[float, float, Said | None]:
        """What may come before one more token: sum, likeliest alignment's logarithm, and that alignment."""
        if repeats:
            return self.blank, self.best_blank, self.said_blank
        return self.total, max(self.best_blank, self.best_spoken), self.likeliest


Beam = list[tuple[Prefix, Ends]]


def prefix_beams(logs: np.ndarray, blank: int, beam: int, gain: Callable[[Prefix], float]) -> Iterator[Beam]:
    """The best prefixes after each output, best first (Hannun et al. 2014, with what a prefix gains kept beside its probability).

    Alignments are shared with those of the next outputs: when tokens end is right in the last one's.
    """
    hypotheses: Beam = [((), Ends(0.0, best_blank=0.0))]
    for at, row in enumerate(logs.tolist()):
        hypotheses = _next(hypotheses, row, at, blank, beam, gain)
        yield hypotheses


def _next(hypotheses: Beam, row: list[float], at: int, blank: int, beam: int, gain: Callable[[Prefix], float]) -> Beam:
    likely = row.index(max(row))
    after: dict[Prefix, Ends] = {}
    for prefix, ends in hypotheses:
        said = ends.said_spoken
        if said is not None and prefix[-1] == likely and said.end == at - 1:
            said.end, said.peak = at, max(said.peak, math.exp(row[likely]))
    for prefix, ends in hypotheses:
        stay = after.setdefault(prefix, Ends())
        stay.blank = ends.total + row[blank]
        stay.best_blank, stay.said_blank = max(ends.best_blank, ends.best_spoken) + row[blank], ends.likeliest
        if prefix:
            stay.spoken, stay.best_spoken = ends.spoken + row[prefix[-1]], ends.best_spoken + row[prefix[-1]]
            stay.said_spoken = ends.said_spoken
    for prefix, ends in hypotheses:
        for token in range(len(row)):
            if token != blank:
                total, best, said = ends.before(bool(prefix) and prefix[-1] == token)
                longer = after.setdefault((*prefix, token), Ends())
                longer.spoken = log_add(longer.spoken, total + row[token])
                if best + row[token] > longer.best_spoken:
                    longer.best_spoken = best + row[token]
                    longer.said_spoken = Said(token, at, at, math.exp(row[token]), said)
    scored = [(p, e, e.total + gain(p)) for p, e in after.items()]
    chosen = sorted((s for s in scored if s[2] > -math.inf), key=lambda s: -s[2])[:beam]
    return [(p, e) for p, e, _ in chosen]


def common(prefixes: Sequence[Prefix]) -> Prefix:
    """What all of them begin with."""
    count = 0
    for tokens in zip(*prefixes, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return prefixes[0][:count]


def every_alignment(logs: np.ndarray, blank: int) -> dict[Prefix, float]:
    """The probability of everything that so many outputs can say: the sum over all V ** T alignments."""
    found: dict[Prefix, float] = defaultdict(float)
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        said = tuple(label for label, _ in itertools.groupby(path) if label != blank)
        found[said] += math.exp(sum(logs[at, label] for at, label in enumerate(path)))
    return dict(found)


def arpa_text(ngrams: Mapping[tuple[str, ...], tuple[float, float]]) -> str:
    """An ARPA file of these n-grams."""
    order = max(map(len, ngrams))
    by_order = {n: [g for g in ngrams if len(g) == n] for n in range(1, order + 1)}
    lines = ["a comment before the data", "", "\\data\\", *(f"ngram {n}={len(g)}" for n, g in by_order.items()), ""]
    for n, grams in by_order.items():
        lines.append(f"\\{n}-grams:")
        for gram in grams:
            log10, backoff = ngrams[gram]
            lines.append(f"{log10!r}\t{' '.join(gram)}" + (f"\t{backoff!r}" if n < order else ""))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])
