"""Calls: prompts one after the other on one line, with pauses; and what the recogniser hears of them behind Silero's voice detector.

gated.toml is the chain: the detector sees every sample, the recogniser and its search are stepped while somebody speaks and begin anew with
each stretch of speech. The gate is Silero's own default: it opens at 0.5 and closes below 0.35.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from data import RATE_HZ, Utterance
from model import STEP
from scoring import score
from streaming import Heard, decoder, outputs, searching, words

import undertow as ut

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packages import CACHE, wheel

VAD = "silero_vad/data/silero_vad.onnx"
VAD_SHA256 = {VAD: "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"}
PAUSE_S = (1.0, 4.0)
NOISE = 1e-3  # deviation of the line's noise, 60 dB below full scale


def detector(path: Path, cache: Path = CACHE) -> str:
    """Writes Silero VAD 6.2.3 (MIT) for 8 kHz, a probability of speech every 256 samples; what its check said. Fetches the wheel once, into `cache`."""
    published = wheel("silero-vad", "6.2.3", VAD_SHA256, cache) / VAD
    sizes = {"constants": {"sr": RATE_HZ}, "overlap": {"input": 32}, "frames_per_step": STEP}
    return str(ut.adopt(published, path, **sizes, sample_rate_hz=RATE_HZ))


def calls(chosen: list[Utterance], count: int, seed: int) -> list[Utterance]:
    """So many calls, in which each utterance is said once, in an order drawn at random; a pause before each and after the last."""
    generator = np.random.default_rng(seed)
    made = []
    for i, places in enumerate(np.array_split(generator.permutation(len(chosen)), count)):
        said, parts = [chosen[p] for p in places], [pause(generator)]
        for utterance in said:
            parts += [utterance.samples, pause(generator)]
        samples = np.concatenate(parts)
        samples += generator.normal(0, NOISE, len(samples)).astype(np.float32)
        whole = len(samples) // STEP * STEP
        made.append(Utterance(f"call-{i}", " ".join(u.text for u in said), samples[:whole].clip(-1, 1)))
    return made


def pause(generator: np.random.Generator) -> np.ndarray:
    return np.zeros(int(RATE_HZ * generator.uniform(*PAUSE_S)), np.float32)


def gated(folder: Path) -> ut.Engine:
    """The engine of gated.toml."""
    chain = [ut.Stage(folder / s.pop("path"), **s) for s in stages(folder)]
    return ut.Engine(chain, decode=decoder(folder, "gated.toml"))


def stages(folder: Path) -> list[dict[str, Any]]:
    return tomllib.loads((folder / "gated.toml").read_text())["model"]["stages"]


def stretches(probabilities: np.ndarray, gate: dict[str, Any]) -> list[tuple[int, int]]:
    """(begin, stop) in samples of what a gate lets pass of a whole call: the plain rule. probabilities: of each STEP samples."""
    found: list[tuple[int, int]] = []
    opened, low = None, 0
    for i, p in enumerate(probabilities):
        if opened is None and p >= gate["on"]:
            opened, low = max(i * STEP - gate["before"], found[-1][1] if found else 0), 0
        elif opened is not None:
            low = low + 1 if p < gate["off"] else 0
            if low == gate["min_off"]:
                found.append((opened, (i + 1) * STEP))
                opened = None
    return found if opened is None else [*found, (opened, len(probabilities) * STEP)]


def by_hand(folder: Path, made: list[Utterance]) -> tuple[dict[str, str], float]:
    """(the text of each call, the share of the samples that pass): each stretch cut out and recognised as a stream of its own."""
    gate = stages(folder)[1]["gate"]
    seen = outputs(ut.Engine(folder / "voice.onnx"), {u.key: u.samples for u in made})
    cut = {u.key: stretches(seen[u.key][:, 0], gate) for u in made}
    pieces = {f"{u.key} {i}": u.samples[a:b] for u in made for i, (a, b) in enumerate(cut[u.key])}
    heard, _ = words(searching(folder), pieces)
    texts = {u.key: together([heard[f"{u.key} {i}"] for i in range(len(cut[u.key]))]) for u in made}
    return texts, sum(map(len, pieces.values())) / sum(len(u.samples) for u in made)


def together(heard: list[Heard]) -> str:
    return " ".join(h.text for h in heard if h.text)


def behind_the_gate(folder: Path, made: list[Utterance]) -> dict[str, Any]:
    """What the gate costs and spares. Raises SystemExit where the chain hears something else than a recogniser of each stretch by itself."""
    streams, truth = {u.key: u.samples for u in made}, [u.text for u in made]
    chained, speed = words(gated(folder), streams)
    alone, alone_speed = words(searching(folder), streams)
    expected, passed = by_hand(folder, made)
    for key, text in expected.items():
        if chained[key].text != text:
            raise SystemExit(f"{key}: behind the gate {chained[key].text!r} is heard, by hand {text!r}")
    found = {"gated": [chained[key].text for key in expected], "not gated": [alone[key].text for key in expected]}
    return {
        "calls": len(made),
        "minutes": round(sum(map(len, streams.values())) / RATE_HZ / 60, 1),
        "share of the samples that passed": round(passed, 3),
        **{f"word error rate, {name}": round(score(truth, texts).words, 4) for name, texts in found.items()},
        "seconds, gated": round(sum(speed.took), 2),
        "seconds, not gated": round(sum(alone_speed.took), 2),
    }
