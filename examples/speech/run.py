"""Recognises the held-out prompts live: `python examples/speech/run.py --out speech`, then `undertow run speech/pipeline.toml`.

Exports the model with its certificate, plays the recordings as streams at once, compares with torch on each whole recording and with
pocketsphinx, measures how long after its end a word appears, and leaves in the folder the model, the words that may be heard and what
follows what, the recordings, pipeline.toml, result.json and two pictures.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import NAME, heard_by_pocketsphinx, pronounced
from calls import behind_the_gate, calls, detector
from data import RATE_HZ, Utterance, prompts, record, recorded, split
from model import STEP, Recogniser, outputs_of, padded
from ngram import language, write_arpa
from picture import draw, draw_delays
from placing import place
from rich.console import Console
from scoring import Score, greedy, score
from streaming import Heard, outputs, searched, searching, words
from texts import ALPHABET, LABELS
from timing import delays, said_again
from train import HERE, restored

import undertow as ut

CALLS = 8
TIMES_OVER = 5  # how often each recording is a stream of its own
EXACT = 1e-4  # the worst difference from torch that is taken for the same
Rows = dict[str, np.ndarray]
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("speech"), help="the folder to write")
    given = options.parse_args()
    begin = time.perf_counter()
    torch.set_num_threads(1)
    training, test = split(prompts())
    model = restored(HERE / "weights.pt")
    lay_out(given.out, model, training, test)
    told = result(given.out, model, training, test)
    told["seconds"] = round(time.perf_counter() - begin, 1)
    (given.out / "result.json").write_text(json.dumps(told, indent=1) + "\n")
    console.print_json(data=told)


def lay_out(folder: Path, model: Recogniser, training: list[Utterance], test: list[Utterance]) -> None:
    """speech.onnx, voice.onnx, words.arpa, words.txt, both pipelines, recordings/KEY.wav, calls/KEY.wav and truth.json {KEY: text} in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 8 * STEP)
    console.print(str(ut.export(model, example, folder / "speech.onnx", labels=LABELS, sample_rate_hz=RATE_HZ)))
    write_arpa(language(training, test), folder / "words.arpa")
    (folder / "words.txt").write_text("\n".join(sorted(vocabulary(training))) + "\n")
    console.print(detector(folder / "voice.onnx"))
    for pipeline in ("pipeline.toml", "gated.toml"):
        place(HERE / pipeline, folder)
    record([replace(u, key=stream(u), samples=padded(u.samples)) for u in test], folder / "recordings")
    record(calls(test, CALLS, seed=2), folder / "calls")
    (folder / "truth.json").write_text(json.dumps({stream(u): u.text for u in test}, indent=1) + "\n")


def stream(utterance: Utterance) -> str:
    """A recording's key as a file's name."""
    return utterance.key.replace("/", "-")


def vocabulary(training: list[Utterance]) -> set[str]:
    """Words that may be heard: those of CMU's pronouncing dictionary, which pocketsphinx brings, and of the training prompts."""
    return {w for w in pronounced() if set(w) <= set(ALPHABET)} | {w for u in training for w in u.text.split()}


def result(folder: Path, model: Recogniser, training: list[Utterance], test: list[Utterance]) -> dict[str, Any]:
    """result.json without the time that all took."""
    truth = [u.text for u in test]
    streamed, whole = both(folder, model, test)
    live, speed = spoken_at_once(folder, test)
    best = [greedy(streamed[u.key]) for u in test]
    ours = score(truth, [live[u.key].text for u in test])
    torchs = score(truth, after_torch(folder, whole))
    theirs = score(truth, heard_by_pocketsphinx(test, language(training, test)))
    late = latency(folder, truth)
    pictures(folder, model, test, streamed, live, late)
    return {
        "application": "speech recognition",
        "task": f"the words of {len(test)} telephone prompts that training has not seen, live",
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": ut.read_artifact(folder / "speech.onnx").spec.state_bytes,
        "metric": "word error rate (lower is better)",
        "ours": round(ours.words, 4),
        "torch": round(torchs.words, 4),
        "baseline": round(theirs.words, 4),
        "baseline_name": NAME,
        **speed,
        "pictures": ["heard.png", "delays.png"],
        "more": {
            "ours": rates(ours),
            "ours, best label at every step": rates(score(truth, best)),
            "torch": rates(torchs),
            NAME: rates(theirs),
            "greatest difference from torch's log-probabilities": max(
                float(np.abs(streamed[k] - whole[k]).max()) for k in whole
            ),
            **late_told(late, truth),
            "calls": behind_the_gate(folder, recorded(folder / "calls", calls(test, CALLS, seed=2))),
            "bytes of a stream's snapshot, the search's state included": snapshot_bytes(folder),
        },
    }


def rates(found: Score) -> dict[str, Any]:
    """As result.json has them."""
    return {
        "word error rate": round(found.words, 4),
        "in 95 of 100 draws of the prompts": [round(x, 4) for x in found.between],
        "character error rate": round(found.characters, 4),
    }


def both(folder: Path, model: Recogniser, test: list[Utterance]) -> tuple[Rows, Rows]:
    """(streamed outputs, torch's on whole recordings). Raises SystemExit where they are not the same."""
    streams = {u.key: padded(u.samples) for u in test}
    streamed = outputs(ut.Engine(folder / "speech.onnx"), streams)
    whole = {key: outputs_of(model, samples) for key, samples in streams.items()}
    for key, rows in whole.items():
        worst = float(np.abs(streamed[key] - rows).max())
        if worst > EXACT or greedy(streamed[key]) != greedy(rows):
            raise SystemExit(f"{key}: the streamed outputs are not torch's, they differ by up to {worst}")
    return streamed, whole


def spoken_at_once(folder: Path, test: list[Utterance]) -> tuple[dict[str, Heard], dict[str, Any]]:
    """(what was heard of each recording, speed): each recording is TIMES_OVER streams, all at once."""
    streams = {f"{u.key} {n}": padded(u.samples) for n in range(TIMES_OVER) for u in test}
    found, speed = words(searching(folder), streams)
    told = {
        "streams": speed.streams,
        "steps_per_s": round(speed.steps_per_s),
        "p99_step_ms": round(speed.p99_ms, 3),
    }
    return {u.key: found[f"{u.key} 0"] for u in test}, told


def after_torch(folder: Path, whole: Rows) -> list[str]:
    """The texts that the same search finds in torch's outputs."""
    ut.export(torch.nn.Identity(), torch.zeros(2, 8, len(LABELS)), folder / "scores.onnx", labels=LABELS)
    found = dict(searched(searching(folder, "scores.onnx"), whole))
    (folder / "scores.onnx").unlink()
    return [found[key] for key in whole]


def latency(folder: Path, truth: list[str]) -> list[float]:
    """Of each word that eSpeak NG says and that is heard: ms of the stream from its end until it is in the partial results and stays."""
    again = said_again(truth, seed=1)
    heard, _ = words(searching(folder), {u.key: padded(u.samples) for u in again})
    return [1000 * d for u in again for d in delays(u, heard[u.key].partials)]


def late_told(late: list[float], truth: list[str]) -> dict[str, Any]:
    quantiles = [round(float(q)) for q in np.quantile(late, (0.5, 0.9))]
    return {
        "ms from a word's end to its appearance, median and 9 of 10": quantiles,
        "words that is measured on, of those said": [len(late), sum(len(t.split()) for t in truth)],
    }


def snapshot_bytes(folder: Path) -> int:
    engine = searching(folder)
    engine.push("one", np.zeros(STEP, np.float32))
    return len(engine.snapshot("one"))


def pictures(
    folder: Path,
    model: Recogniser,
    test: list[Utterance],
    streamed: Rows,
    heard: dict[str, Heard],
    late: list[float],
) -> None:
    """heard.png: the held-out prompt of middling length. delays.png: how late words are."""
    chosen = sorted(test, key=lambda u: len(u.samples))[len(test) // 2]
    with torch.no_grad():
        energies = model.features(torch.from_numpy(padded(chosen.samples))[None])[0].numpy()
    draw(folder / "heard.png", energies, streamed[chosen.key], heard[chosen.key].partials, chosen.text)
    draw_delays(folder / "delays.png", late)


if __name__ == "__main__":
    main()
