"""The whole way: `python examples/textgen/run.py --out DIR` trains what is missing, exports, streams, compares, and leaves a pipeline.

DIR gets textgen.onnx, pipeline.toml and prompts.jsonl for `undertow run DIR/pipeline.toml`, texts.txt, result.json and textgen.svg.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from data import fortunes, split
from generating import speeds, written
from model import FortuneNet
from ngram import NGrams
from picture import picture
from pieces import Pieces
from placing import place
from prompts import line_of
from streaming import bits, streamed, worst_difference
from train import HERE, load
from train import main as train

import undertow as ut

TOLERANCE = 1e-3  # between the streams' logits and torch's, which reach 20
ORDER, LONGER = 5, 8  # of the plain method, and of the same with the length that suits it best
WRITERS, IN_PIPELINE = 2000, 500  # streams that write at once, and those of the pipeline's input
PROMPTS = ("Love is", "The trouble with", "Q:\tWhy did", "Never", "Computers", "Murphy's Law:\n\t", "A man walks into")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    out: Path = options.parse_args().out
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not (HERE / "weights.pt").exists():
        train([])
    model, pieces = load()
    ut.export(model, torch.arange(40).reshape(2, 20), out / "textgen.onnx", labels=pieces.names)
    engine = ut.Engine(out / "textgen.onnx", max_streams=4096)
    result = scored(engine, model, pieces, out)
    result["more"] |= generated(engine, model, pieces, out)
    result |= {"pictures": ["textgen.svg"], "seconds": round(time.perf_counter() - begin, 1)}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def scored(engine: ut.Engine, model: FortuneNet, pieces: Pieces, out: Path) -> dict:
    """Bits per character of the held-out fortunes. Raises SystemExit where a stream's logits are not torch's."""
    train_texts, valid_texts, held_out = split(fortunes())
    texts = [pieces.encode(t) for t in held_out]
    streamed(engine, texts[:64])  # what is compiled or measured on first use
    found = streamed(engine, texts)
    worst, torch_bits = worst_difference(model, texts, found.logits)
    if not worst <= TOLERANCE:
        raise SystemExit(f"textgen.onnx: a logit differs by {worst} from torch's, expected at most {TOLERANCE}")
    spent = [bits(y, t) for y, t in zip(found.logits, texts, strict=True)]
    plain = {n: NGrams(train_texts, n) for n in (ORDER, LONGER)}
    characters = sum(len(t) + 1 for t in held_out)
    levels = {n: sum(float(g.bits(t).sum()) for t in held_out) / characters for n, g in plain.items()}
    draw(model, plain, valid_texts, list(zip(held_out, spent, strict=True)), pieces, out)
    return {
        "application": "text generation",
        "task": f"what comes next in {len(held_out):,} held-out fortunes, {characters:,} characters",
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": engine.spec.state_bytes,
        "metric": "bits per character (lower is better)",
        "ours": float(sum(s.sum() for s in spent) / characters),
        "torch": float(sum(torch_bits) / characters),
        "baseline": levels[ORDER],
        "baseline_name": f"interpolated Kneser-Ney of order {ORDER}",
        "streams": len(texts),
        "steps_per_s": found.frames / sum(found.seconds),
        "p99_step_ms": float(np.percentile(found.seconds, 99)) * 1e3,
        "more": {
            f"order_{LONGER}": levels[LONGER],
            "pieces_per_character": found.frames / characters,
            "worst_difference_from_torch": worst,
            "compared": f"all {len(pieces)} logits after each of {found.frames:,} pieces",
        },
    }


def draw(
    model: FortuneNet,
    plain: dict[int, NGrams],
    valid_texts: list[str],
    scored_texts: list[tuple[str, np.ndarray]],
    pieces: Pieces,
    out: Path,
) -> None:
    """The picture; levels of the plain methods on the fortunes that the training's curve is of."""
    history = json.loads((HERE / "training.json").read_text())
    characters = sum(len(t) + 1 for t in valid_texts)
    levels = {
        f"n-grams, order {n}": sum(float(g.bits(t).sum()) for t in valid_texts) / characters for n, g in plain.items()
    }
    shown = [s for s in scored_texts if 150 <= len(s[0]) <= 320 and max(map(len, s[0].split("\n"))) <= 80][:3]
    (out / "textgen.svg").write_text(picture(history, levels, shown, pieces))


def generated(engine: ut.Engine, model: FortuneNet, pieces: Pieces, out: Path) -> dict:
    """Texts of many streams, and the pipeline's file and input."""
    texts = written(engine, pieces, [PROMPTS[i % len(PROMPTS)] for i in range(WRITERS)], 100, seed=1)
    (out / "texts.txt").write_text("\n%\n".join(texts) + "\n")
    place(HERE / "pipeline.toml", out)
    lines = [line_of(f"prompt-{i}", PROMPTS[i % len(PROMPTS)], pieces) for i in range(IN_PIPELINE)]
    (out / "prompts.jsonl").write_text("".join(line + "\n" for line in lines))
    return {"writers": WRITERS, "different_texts": len(set(texts)), "tokens_per_s": speeds(engine, model)}


if __name__ == "__main__":
    main()
