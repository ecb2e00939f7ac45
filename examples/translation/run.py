"""Translates all held-out sentences through the engine and holds them against torch and the baselines: `python examples/translation/run.py --out DIR`.

In DIR: both models, the sentences and their translations, the picture of the attention, and result.json.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netra
import numpy as np
import sacrebleu
import torch
from baseline import Dictionary, TranslationMemory
from data import Pair, Split, pairs, split
from figure import Looked, draw
from model import Translator
from pieces import END, START, Pieces
from rich.console import Console
from search import Found, beam_search, greedy
from streaming import Times, translate
from train import load, make

import undertow as ut

HERE = Path(__file__).resolve().parent
ROOM, LONGEST, BEAM, PENALTY = (
    64,
    64,
    4,
    1.0,
)  # pieces of a source, pieces of a translation, hypotheses, Wu et al.'s power
TOGETHER = 256  # sentences at once, each with BEAM hypotheses
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Model:
    """A pair of modules, and how its sentences are searched."""

    encoder: torch.nn.Module
    decoder: ut.DecoderModule
    search: dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("translation"), help="the folder to write")
    given = options.parse_args()
    begin = time.perf_counter()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if not (HERE / "weights.pt").exists():
        make()
    result = {**translated(given.out, split(pairs())), "seconds": 0.0}
    result["more"]["netra"] = transliterated(given.out)
    result["seconds"] = round(time.perf_counter() - begin, 1)
    (given.out / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    console.print_json(data=result)


def translated(folder: Path, parts: Split) -> dict[str, Any]:
    """result.json but for the transliterator; writes the model, the sentences with their translations, and the picture."""
    network, pieces = load()
    test = [pair for pair in parts.test if pair.kind != "unchanged"]
    sources = [pieces.encode(pair.english) for pair in test]
    report = exported(network, sources, folder / "translation.onnx")
    model = Model(network.encoder, network.decoder, searching(START, END, LONGEST, BEAM, PENALTY))
    engine = ut.Engine(folder / "translation.onnx", max_streams=2 * TOGETHER * BEAM)
    times = Times()
    ours = streamed(engine, model, sources, times)
    theirs, seconds = by_torch(model, sources)
    one = [
        greedy(model.encoder, model.decoder, torch.tensor(s), start=START, stop=END, max_steps=LONGEST) for s in sources
    ]
    memory, words = TranslationMemory(parts.train), Dictionary(parts.train)
    said = {
        "ours": [text(pieces, f) for f in ours],
        "torch": [text(pieces, f) for f in theirs],
        "torch, greedy": [text(pieces, f) for f in one],
        "dictionary, word by word": [words.translate(pair.english) for pair in test],
        "translation memory": [memory.translate(pair.english) for pair in test],
        "the English itself": [pair.english for pair in test],
    }
    table = {name: scores(test, texts) for name, texts in said.items()}
    written(folder / "translations.jsonl", test, said)
    draw(
        [looked(engine, pieces, test[i].english, ours[i]) for i in shown(test, said["ours"])], folder / "attention.svg"
    )
    steps, p99 = times.report()
    name = max(list(said)[3:], key=lambda n: table[n]["all"]["chrF"])
    return {
        "application": "translation",
        "task": "English to French: names and messages of software",
        "parameters": sum(p.numel() for p in network.parameters()),
        "state_bytes": report.spec.state_bytes,
        "metric": "chrF (higher is better)",
        "ours": table["ours"]["all"]["chrF"],
        "torch": table["torch"]["all"]["chrF"],
        "baseline": table[name]["all"]["chrF"],
        "baseline_name": name,
        "streams": TOGETHER * BEAM,
        "steps_per_s": round(steps),
        "p99_step_ms": round(p99, 3),
        "pictures": ["attention.svg"],
        "more": {"scores": table, **agreement(ours, theirs), "torch_seconds": round(seconds, 1), "sizes": sizes(parts)},
    }


def searching(start: int, stop: int, max_steps: int, beam: int, length_penalty: float) -> dict[str, Any]:
    return {"start": start, "stop": stop, "max_steps": max_steps, "beam": beam, "length_penalty": length_penalty}


def exported(network: Translator, sources: Sequence[Sequence[int]], path: Path) -> ut.ExportReport:
    longest = [s for s in sources if len(s) >= 8][:2]
    example = torch.tensor([s[:8] for s in longest])
    report = ut.export_seq2seq(network.encoder, network.decoder, example, path, max_memory=ROOM, start=START, stop=END)
    console.print(report)
    return report


def streamed(engine: ut.Engine, model: Model, sources: Sequence[Sequence[int]], times: Times) -> list[Found]:
    """Every source's translation, TOGETHER at a time."""
    found: dict[str, Found] = {}
    for first in range(0, len(sources), TOGETHER):
        group = {f"sentence {first + i}": s for i, s in enumerate(sources[first : first + TOGETHER])}
        found |= translate(engine, group, times=times, **model.search)
    return [found[f"sentence {i}"] for i in range(len(sources))]


def by_torch(model: Model, sources: Sequence[Sequence[int]]) -> tuple[list[Found], float]:
    begin = time.perf_counter()
    found = [beam_search(model.encoder, model.decoder, torch.tensor(source), **model.search) for source in sources]
    return found, time.perf_counter() - begin


def text(pieces: Pieces, found: Found) -> str:
    return pieces.decode([token for token in found.tokens if token != END])


def scores(test: Sequence[Pair], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """chrF, BLEU and the share that is letter for letter the reference: of all pairs, of names, of messages."""
    found = {}
    for kind in ("all", "name", "message"):
        chosen = [(t, pair.french) for t, pair in zip(texts, test, strict=True) if kind in ("all", pair.kind)]
        said, meant = [t for t, _ in chosen], [[french for _, french in chosen]]
        found[kind] = {
            "chrF": round(sacrebleu.corpus_chrf(said, meant).score, 2),
            "BLEU": round(sacrebleu.corpus_bleu(said, meant).score, 2),
            "exact": round(sum(t == french for t, french in chosen) / len(chosen), 4),
        }
    return found


def agreement(ours: Sequence[Found], theirs: Sequence[Found]) -> dict[str, Any]:
    """How many sentences came out piece for piece the same, and how far their log-probabilities are apart at most."""
    same = [a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True)]
    apart = max(abs(a.log_probability - b.log_probability) for a, b in zip(ours, theirs, strict=True))
    return {
        "sentences": len(same),
        "same_as_torch": sum(same),
        "worst_log_probability_difference": float(f"{apart:.2g}"),
    }


def sizes(parts: Split) -> dict[str, dict[str, int]]:
    kinds = ("name", "message", "unchanged")
    named = {"train": parts.train, "tune": parts.tune, "test": parts.test}
    return {part: {kind: sum(p.kind == kind for p in chosen) for kind in kinds} for part, chosen in named.items()}


def written(path: Path, test: Sequence[Pair], said: dict[str, list[str]]) -> None:
    with path.open("w") as file:
        for i, pair in enumerate(test):
            line = {"english": pair.english, "french": pair.french, **{name: texts[i] for name, texts in said.items()}}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def shown(test: Sequence[Pair], texts: Sequence[str], count: int = 4) -> list[int]:
    """The first held-out pairs that are translated as the reference is, of some length, two of each kind: a picture is of what works."""
    found: list[int] = []
    for kind in ("name", "message"):
        right = [
            i for i, p in enumerate(test) if p.kind == kind and texts[i] == p.french and 18 <= len(p.english) <= 34
        ]
        found += right[: count // 2]
    return found


def looked(engine: ut.Engine, pieces: Pieces, english: str, found: Found) -> Looked:
    """Where the decoder looked as it said what was found: the attention that the engine gives for the same tokens."""
    source = pieces.encode(english)
    engine.read("shown", np.array(source))
    given = engine.push("shown", np.array([START, *found.tokens[:-1]]))
    engine.drop("shown")
    attention = given["attention"][:, : len(source)]
    return Looked(pieces.written(source), pieces.written(found.tokens), attention)


def transliterated(folder: Path) -> dict[str, Any]:
    """Netra's transliterator by the same road, beside torch and beside what its own package gives (netra_words.json)."""
    encoder, decoder, letters = netra.load()
    expected = json.loads((HERE / "netra_words.json").read_text())
    words = list(expected["words"])
    example = torch.tensor([letters.encode(word) for word in words[:2]])
    report = ut.export_seq2seq(
        encoder,
        decoder,
        example,
        folder / "netra.onnx",
        max_memory=letters.length,
        start=letters.start,
        stop=letters.stop,
    )
    console.print(report)
    model = Model(
        encoder, decoder, searching(letters.start, letters.stop, expected["max_steps"], expected["beam"], 0.0)
    )
    engine = ut.Engine(folder / "netra.onnx", max_streams=2 * TOGETHER * expected["beam"])
    sources = [letters.encode(word) for word in words]
    ours, (theirs, _) = streamed(engine, model, sources, Times()), by_torch(model, sources)
    whole = [word for word in words if expected["words"][word]["ended"]]
    own = {word: letters.decode(found.tokens) for word, found in zip(words, ours, strict=True)}
    return {
        **agreement(ours, theirs),
        "package_ended": len(whole),
        "same_as_package": sum(own[word] == expected["words"][word]["khmer"] for word in whole),
        "examples": {word: own[word] for word in ("phnom", "penh", "siem", "reap", "battambang", "angkor")},
    }


if __name__ == "__main__":
    main()
