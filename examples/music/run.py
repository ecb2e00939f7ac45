"""The whole way: `python examples/music/run.py --out DIR` trains what is missing, exports, streams, compares and composes.

DIR gets music.onnx, pipeline.toml and its chorales.jsonl for `undertow run DIR/pipeline.toml`, a MIDI file for each held-out chorale that
was continued, one of them as a WAV and as a piano roll beside Bach's, and result.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from data import END, VOICES, Chorale, aligned, chorales, scored, split, staggered
from model import ChoraleNet
from ngram import baselines
from picture import piano_rolls
from placing import place
from sounding import need_player, write_midi, write_wav
from streaming import lost, streamed, told, whole
from train import WEIGHTS
from train import main as train

import undertow as ut

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-3  # between the streams' logits and torch's, which reach 20
GIVEN = 4  # bars of each held-out chorale that are given
MOST_ROWS = 192  # rows that are made at most: 12 bars of four quarters
HOW = {"temperature": 0.9, "top_p": 0.95, "seed": 1, "stop": [END]}  # as in pipeline.toml
SHOWN = "bwv1.6"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    options.add_argument("--silent", action="store_true", help="no WAV, so that fluidsynth is not needed")
    given = options.parse_args()
    if not given.silent:
        need_player()
    begin, out = time.perf_counter(), given.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not WEIGHTS.exists():
        train([])
    train_set, check_set, test_set = split(chorales())
    model = ChoraleNet()
    model.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    example = torch.from_numpy(np.stack([staggered(c.rows)[:24] for c in test_set[:2]]))
    print(ut.export(model.eval(), tuple(example.unbind(-1)), out / "music.onnx"))
    engine = ut.Engine(out / "music.onnx", max_streams=1024)
    plain = {name: grams.mean(test_set) for name, grams in baselines(train_set, check_set)}
    result = compared(engine, model, test_set)
    name = next(iter(plain))
    result |= {"baseline": plain[name], "baseline_name": name}
    result["more"]["n_grams"] = plain
    result["more"] |= composed(engine, model, test_set, out, given.silent)
    lay_out(test_set, out)
    result |= {"pictures": ["music.svg"], "seconds": round(time.perf_counter() - begin, 1)}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def compared(engine: ut.Engine, model: ChoraleNet, test_set: list[Chorale]) -> dict:
    """Nats a token of the held-out chorales, streamed and by torch. Raises SystemExit where their logits differ."""
    made = [staggered(c.rows) for c in test_set]
    streamed(engine, made[:8])  # what is compiled or measured on first use
    ours, seconds = streamed(engine, made)
    theirs = [whole(model, rows) for rows in made]
    worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    if not worst <= TOLERANCE:
        raise SystemExit(f"music.onnx: a logit differs by {worst} from torch's, expected at most {TOLERANCE}")
    nats = [np.concatenate([lost(y, rows) for y, rows in zip(x, made, strict=True)]) for x in (ours, theirs)]
    voices = np.concatenate([np.tile(np.arange(len(VOICES)), (len(rows) - 1, 1))[scored(rows)] for rows in made])
    return {
        "application": "music",
        "task": f"what each of four voices sings next in {len(test_set)} held-out chorales, {len(voices):,} tokens",
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": engine.spec.state_bytes,
        "metric": "nats per token of a voice (lower is better)",
        "ours": float(nats[0].mean()),
        "torch": float(nats[1].mean()),
        "streams": len(made),
        "steps_per_s": sum(map(len, made)) / sum(seconds),
        "p99_step_ms": float(np.percentile(seconds, 99)) * 1e3,
        "more": {
            "by_voice": {name: float(nats[0][voices == v].mean()) for v, name in enumerate(VOICES)},
            "worst_difference_from_torch": worst,
            "compared": f"logits of four voices after each of {sum(map(len, made)):,} rows",
        },
    }


def composed(engine: ut.Engine, model: ChoraleNet, test_set: list[Chorale], out: Path, silent: bool) -> dict:
    """Continues every held-out chorale at once. Raises SystemExit where one goes on otherwise when it is alone, or torch finds its notes more or less likely."""
    prompts = {c.name: staggered(c.rows)[: 1 + GIVEN * c.bar] for c in test_set}
    alone = engine.generate([SHOWN], [prompts[SHOWN]], MOST_ROWS, **HOW)[SHOWN]
    engine.drop(SHOWN)
    begin = time.perf_counter()
    found = engine.generate(list(prompts), list(prompts.values()), MOST_ROWS, **HOW)
    seconds = time.perf_counter() - begin
    if not np.array_equal(alone.tokens, found[SHOWN].tokens):
        raise SystemExit(f"{SHOWN}: it goes on otherwise alone than beside {len(test_set) - 1} others")
    (out / "midi").mkdir(exist_ok=True)
    pieces = {name: aligned(np.vstack([prompts[name], found[name].tokens])) for name in prompts}
    for name, rows in pieces.items():
        write_midi(rows, out / "midi" / f"{name}.mid")
    if not silent:
        write_wav(out / "midi" / f"{SHOWN}.mid", out / f"{SHOWN}.wav")
    shown = next(c for c in test_set if c.name == SHOWN)
    rolls = {f"Bach, {SHOWN.upper()}": shown.rows, "the same four bars, continued": pieces[SHOWN]}
    piano_rolls(rolls, GIVEN * shown.bar, shown.bar, out / "music.svg")
    worst = max(abs(g.log_probability - told(model, prompts[name], g.tokens)) for name, g in found.items())
    if not worst <= TOLERANCE * MOST_ROWS:
        raise SystemExit(f"music.onnx: what it says of its music differs by {worst} nats from what torch says of it")
    tokens = sum(g.tokens.size for g in found.values())
    return {
        "continued": len(pieces),
        "given_bars": GIVEN,
        "ended_by_themselves": sum(g.finished == "stop" for g in found.values()),
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "worst_difference_from_torch_in_nats_a_piece": worst,
    }


def lay_out(test_set: list[Chorale], out: Path) -> None:
    """The pipeline and its input: the beginning of each held-out chorale, a stream each."""
    place(HERE / "pipeline.toml", out)
    lines = []
    for c in test_set:
        rows = staggered(c.rows)[: 1 + GIVEN * c.bar]
        value = {voice: rows[:, v].tolist() for v, voice in enumerate(VOICES)}
        lines.append(json.dumps({"key": c.name, "value": value, "end": True}) + "\n")
    (out / "chorales.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
