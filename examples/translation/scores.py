"""How good translations are."""

from collections.abc import Sequence

import sacrebleu
from data import Pair

KINDS = ("name", "message", "unchanged")


def scores(test: Sequence[Pair], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """chrF, BLEU and the share that is the reference letter for letter: of the pairs that change in French, and of each kind."""
    groups = {"changed": KINDS[:2], **{kind: (kind,) for kind in KINDS}}
    return {
        name: _of([(t, p.french) for t, p in zip(texts, test, strict=True) if p.kind in kinds])
        for name, kinds in groups.items()
    }


def _of(chosen: Sequence[tuple[str, str]]) -> dict[str, float]:
    said, meant = [text for text, _ in chosen], [[french for _, french in chosen]]
    return {
        "chrF": round(sacrebleu.corpus_chrf(said, meant).score, 2),
        "BLEU": round(sacrebleu.corpus_bleu(said, meant).score, 2),
        "exact": round(sum(text == french for text, french in chosen) / len(chosen), 4),
    }
