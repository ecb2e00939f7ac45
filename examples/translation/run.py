"""The whole way: `python examples/translation/run.py --out DIR` trains what is missing, exports, translates the held-out sentences
through the engine, and compares with torch and with what needs no network.

DIR gets translation.onnx, pipeline.toml and sentences.jsonl for `undertow run DIR/pipeline.toml`, netra.onnx, held-out.jsonl with what
every method says, attention.svg and result.json.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import netra
import numpy as np
import torch
from baseline import TranslationMemory
from data import Pair, Split, pairs, split
from drafts import Sources
from figure import Looked, draw
from model import Translator
from pieces import END, START
from placing import place
from rich.console import Console
from scores import KINDS, scores
from search import Found, beam_search
from search import greedy as greedy_by_torch
from sentences import record
from streaming import Asked, agreement, attention, greedy, translations
from train import WEIGHTS, load, make

import undertow as ut

HERE = Path(__file__).resolve().parent
ROOM = 96  # pieces of a sentence and its draft
ASKED = Asked(START, END, max_steps=64, beam=4, length_penalty=1.0)  # as in pipeline.toml
TOGETHER = 256  # sentences at once
EXACT = 1e-4  # the worst difference from torch that is taken for the same
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    out: Path = options.parse_args().out
    begin = time.perf_counter()
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    parts = split(pairs())
    if not WEIGHTS.exists():
        make(parts)
    network, how = load()
    export(network, how, out / "translation.onnx")
    result = translated(network, how, parts, out)
    result["more"]["netra"] = transliterated(out)
    result["seconds"] = round(time.perf_counter() - begin, 1)
    (out / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    console.print_json(data=result)


def export(network: Translator, how: Sources, path: Path) -> None:
    """Writes the artifact with its certificate; its labels are the pieces, so that a pipeline can write text."""
    example = torch.tensor([how.encode("Add another page")] * 2)
    report = ut.export_seq2seq(
        network.encoder,
        network.decoder,
        example,
        path,
        max_memory=ROOM,
        start=START,
        stop=END,
        labels=how.pieces.labels,
    )
    console.print(str(report), soft_wrap=True)


def translated(network: Translator, how: Sources, parts: Split, out: Path) -> dict[str, Any]:
    """result.json but for the transliterator; writes the pipeline with its input, what every method says, and the picture."""
    test = parts.test
    sources = [how.encode(pair.english) for pair in test]
    engine = ut.Engine(out / "translation.onnx", max_streams=TOGETHER)
    for answers in (translations, greedy):
        answers(engine, sources[:TOGETHER], ASKED, TOGETHER)  # what is compiled or measured on first use
    begin = time.perf_counter()
    ours = translations(engine, sources, ASKED, TOGETHER)
    between = time.perf_counter()
    theirs = by_torch(network.encoder, network.decoder, sources, ASKED)
    end = time.perf_counter()
    likeliest, steps = greedy(engine, sources, ASKED, TOGETHER)
    short = {"start": START, "stop": END, "max_steps": ASKED.max_steps}
    theirs_likeliest = [greedy_by_torch(network.encoder, network.decoder, torch.tensor(s), **short) for s in sources]
    said = sayings(parts, how, {"ours": ours, "torch": theirs, "torch, greedy": theirs_likeliest})
    table = {name: scores(test, texts) for name, texts in said.items()}
    write(out, test, how, said)
    worst = draw_attention(engine, network, how, [(test[i].english, ours[i]) for i in shown(test, said["ours"])], out)
    same_greedily = sum(a == b.tokens for a, b in zip(likeliest, theirs_likeliest, strict=True))
    if same_greedily != len(test) or not worst <= EXACT:
        raise SystemExit(
            f"translation.onnx: greedily {same_greedily} of {len(test)} sentences are torch's, the attention differs by {worst}; "
            f"expected all, and at most {EXACT}"
        )
    name = max(list(said)[3:], key=lambda n: table[n]["changed"]["chrF"])
    return {
        "application": "translation",
        "task": "English to French: names and messages of software, held out",
        "parameters": sum(p.numel() for p in network.parameters()),
        "state_bytes": ut.read_artifact(out / "translation.onnx").spec.state_bytes,
        "metric": "chrF (higher is better)",
        "ours": table["ours"]["changed"]["chrF"],
        "torch": table["torch"]["changed"]["chrF"],
        "baseline": table[name]["changed"]["chrF"],
        "baseline_name": name,
        "streams": TOGETHER,
        "steps_per_s": round(sum(n for n, _ in steps) / sum(seconds for _, seconds in steps)),
        "p99_step_ms": round(float(np.percentile([seconds for _, seconds in steps], 99)) * 1e3, 3),
        "pictures": ["attention.svg"],
        "more": {
            "scores": table,
            "pairs": sizes(parts),
            "longest_source": max(map(len, sources)),
            "beam_search": agreed("translation.onnx, beam search", ours, theirs),
            "greedy_same": same_greedily,
            "worst_attention_difference": float(f"{worst:.2g}"),
            "sentences_per_s": round(len(test) / (between - begin), 1),
            "sentences_per_s_torch_one_by_one": round(len(test) / (end - between), 1),
        },
    }


def by_torch(
    encoder: torch.nn.Module, decoder: ut.DecoderModule, sources: Sequence[Sequence[int]], asked: Asked
) -> list[Found]:
    return [beam_search(encoder, decoder, torch.tensor(source), **asdict(asked)) for source in sources]


def agreed(what: str, ours: Sequence[Found], theirs: Sequence[Found]) -> dict[str, Any]:
    """The agreement. Raises SystemExit where pieces are others than torch's, or have another log-probability."""
    found = agreement(ours, theirs)
    if found["different"]:
        raise SystemExit(
            f"{what}: {len(found['different'])} of {found['compared']} are not what torch says: {found['different'][:5]}"
        )
    if not found["worst_log_probability_difference"] <= EXACT:
        raise SystemExit(
            f"{what}: a log-probability differs by {found['worst_log_probability_difference']} from torch's, expected at most {EXACT}"
        )
    return found


def sayings(parts: Split, how: Sources, found: dict[str, list[Found]]) -> dict[str, list[str]]:
    """What every method says of the held-out sentences, those that need no network last."""
    english = [pair.english for pair in parts.test]
    memory = TranslationMemory(parts.train)
    return {
        **{name: [how.pieces.decode([t for t in f.tokens if t != END]) for f in each] for name, each in found.items()},
        "translation memory": [memory.translate(text) for text in english],
        "dictionary, word by word": [how.words.translate(text) for text in english],
        "the English itself": english,
    }


def sizes(parts: Split) -> dict[str, dict[str, int]]:
    named = {"train": parts.train, "tune": parts.tune, "test": parts.test}
    return {part: {kind: sum(p.kind == kind for p in chosen) for kind in KINDS} for part, chosen in named.items()}


def write(out: Path, test: Sequence[Pair], how: Sources, said: dict[str, list[str]]) -> None:
    """The pipeline and its input, every held-out sentence; held-out.jsonl: what every method says."""
    place(HERE / "pipeline.toml", out)
    (out / "sentences.jsonl").write_text("".join(record(pair.english, how) + "\n" for pair in test))
    with (out / "held-out.jsonl").open("w") as file:
        for pair, *texts in zip(test, *said.values(), strict=True):
            line = asdict(pair) | dict(zip(said, texts, strict=True))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def shown(test: Sequence[Pair], texts: Sequence[str]) -> list[int]:
    """The first name and the first message, of some length, that are translated as the reference is: a picture is of what works."""
    right = [i for i, pair in enumerate(test) if texts[i] == pair.french and 18 <= len(pair.english) <= 34]
    return [i for kind in KINDS[:2] for i in [i for i in right if test[i].kind == kind][:1]]


def draw_attention(
    engine: ut.Engine, network: Translator, how: Sources, chosen: Sequence[tuple[str, Found]], out: Path
) -> float:
    """Draws where the decoder looked as it said what it found, as the engine says; how far that is from torch's at most."""
    panels, worst = [], 0.0
    for english, found in chosen:
        source, given = how.encode(english), [START, *found.tokens[:-1]]
        looked = attention(engine, source, given)
        with torch.no_grad():
            outs, _ = network.decoder.over(torch.tensor([given]), network.encoder(torch.tensor([source])))
        worst = max(worst, float(np.abs(looked - outs["attention"][0].numpy()).max()))
        names = how.pieces.labels
        panels.append(Looked([names[p] for p in source], [names[p] for p in found.tokens], looked))
    draw(panels, out / "attention.svg")
    return worst


def transliterated(out: Path) -> dict[str, Any]:
    """Netra's transliterator by the same road, beside torch and beside what its own package gives (netra_words.json)."""
    encoder, decoder, letters = netra.load()
    expected = json.loads((HERE / "netra_words.json").read_text())
    package = expected["words"]
    sources = [letters.encode(word) for word in package]
    report = ut.export_seq2seq(
        encoder, decoder, torch.tensor(sources[:2]), out / "netra.onnx",
        max_memory=letters.length, start=letters.start, stop=letters.stop,
    )  # fmt: skip
    console.print(str(report), soft_wrap=True)
    asked = Asked(letters.start, letters.stop, expected["max_steps"], expected["beam"], length_penalty=0.0)
    engine = ut.Engine(out / "netra.onnx", max_streams=TOGETHER)
    ours = translations(engine, sources, asked, TOGETHER)
    likeliest, _ = greedy(engine, sources, asked, TOGETHER)
    own = {word: letters.decode(found.tokens) for word, found in zip(package, ours, strict=True)}
    ended = [word for word in package if package[word]["ended"]]
    apart = [
        abs(found.log_probability - package[word]["log_probability"])
        for word, found in zip(package, ours, strict=True)
        if own[word] == package[word]["khmer"] and word in ended
    ]
    return {
        **agreed("netra.onnx", ours, by_torch(encoder, decoder, sources, asked)),
        "package_greedy_same": sum(
            letters.decode(tokens) == package[word]["greedy"] for word, tokens in zip(package, likeliest, strict=True)
        ),
        "package_beam_ended": len(ended),
        "package_beam_same": len(apart),
        "package_worst_log_probability_difference": float(f"{max(apart):.2g}"),
        "examples": {word: own[word] for word in ("phnom", "penh", "siem", "reap", "battambang", "angkor")},
    }


if __name__ == "__main__":
    main()
