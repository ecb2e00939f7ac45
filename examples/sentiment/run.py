"""The whole way: `python examples/sentiment/run.py --out DIR` trains what is missing, exports, streams, compares, and leaves a pipeline.

DIR gets live.onnx, whole.onnx, pipeline.toml and words.jsonl for `undertow run DIR/pipeline.toml`, result.json and sentiment.svg.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from data import Sentence, sentences, split
from model import LiveSentiment, WholeSentiment
from picture import picture
from placing import place
from scores import scores, vader
from streaming import live_scores, torch_scores, whole_scores
from train import HERE, load
from train import main as train_both
from words import frames, words

import undertow as ut

TOLERANCE = 1e-4  # between the streams' ratings and torch's
IN_PIPELINE = 200  # held-out sentences that the pipeline's input has


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    out: Path = options.parse_args().out
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not all((HERE / f"weights-{name}.pt").exists() for name in ("live", "whole")):
        train_both([])
    live, whole = load()
    _, _, held_out = split(sentences())
    export(live, whole, out)
    result = measured(live, whole, held_out, out)
    lay_out(held_out, out)
    (out / "sentiment.svg").write_text(picture(live, whole, shown(held_out)))
    result |= {"pictures": ["sentiment.svg"], "seconds": round(time.perf_counter() - begin, 1)}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def export(live: LiveSentiment, whole: WholeSentiment, out: Path) -> None:
    """Both artifacts, each with its certificate."""
    example = torch.from_numpy(np.stack([frames("not a bad film, all in all.")] * 2))
    ut.export(live, example, out / "live.onnx")
    ut.export(whole, example, out / "whole.onnx", lookahead="all")


def measured(live: LiveSentiment, whole: WholeSentiment, held_out: list[Sentence], out: Path) -> dict:
    """Both models' streams beside torch, people and VADER. Raises SystemExit where a stream's answer is not torch's."""
    texts = [frames(s.text) for s in held_out]
    engine = ut.Engine(out / "live.onnx", max_streams=len(texts))
    live_scores(engine, texts[:64])  # what is compiled or measured on first use
    after, seconds = live_scores(engine, texts)
    final, whole_seconds = whole_scores(ut.Engine(out / "whole.onnx", max_streams=len(texts)), texts)
    torch_after, torch_final = torch_scores(live, whole, texts)
    worst = {
        "live": max(float(np.abs(a - b).max()) for a, b in zip(after, torch_after, strict=True)),
        "whole": float(np.abs(final - torch_final).max()),
    }
    for name, difference in worst.items():
        if not difference <= TOLERANCE:
            raise SystemExit(
                f"{name}.onnx: a rating differs by {difference} from torch's, expected at most {TOLERANCE}"
            )
    table = {
        "live": scores(held_out, np.array([a[-1] for a in after])),
        "live, torch": scores(held_out, np.array([a[-1] for a in torch_after])),
        "both ways": scores(held_out, final),
        "both ways, torch": scores(held_out, torch_final),
        "VADER": scores(held_out, vader(held_out)),
    }
    steps = sum(map(len, texts))
    return {
        "application": "sentiment",
        "task": f"ratings of {len(held_out):,} held-out sentences, after each word",
        "parameters": sum(p.numel() for p in live.parameters()),
        "state_bytes": engine.spec.state_bytes,
        "metric": "correlation with people's ratings (higher is better)",
        "ours": table["live"]["correlation"],
        "torch": table["live, torch"]["correlation"],
        "baseline": table["VADER"]["correlation"],
        "baseline_name": "VADER",
        "streams": len(texts),
        "steps_per_s": steps / sum(seconds),
        "p99_step_ms": float(np.percentile(seconds, 99)) * 1e3,
        "more": {
            "scores": table,
            "steps": steps,
            "whole_parameters": sum(p.numel() for p in whole.parameters()),
            "whole_sentences_per_s": len(texts) / whole_seconds,
            "worst_difference_from_torch": worst,
            "compared": f"the rating after each of {steps:,} words, and each of {len(texts):,} whole sentences'",
        },
    }


def lay_out(held_out: list[Sentence], out: Path) -> None:
    """The pipeline's file and its input: one line of JSON a sentence."""
    place(HERE / "pipeline.toml", out)
    lines = [{"key": s.key, "value": frames(s.text).tolist(), "end": True} for s in held_out[:IN_PIPELINE]]
    (out / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def shown(held_out: list[Sentence]) -> list[Sentence]:
    """The first film sentences of 10 to 16 words that turn: they have a 'but', and people are sure of them."""
    chosen = [s for s in held_out if s.kind == "film" and 10 <= len(words(s.text)) <= 16 and abs(s.rating) > 1]
    return [s for s in chosen if "but" in words(s.text)[3:]][:3]


if __name__ == "__main__":
    main()
