"""Outputs a second of the CTC decoders: best path and prefix beam search (8), 32 labels, for 1, 64 and 1,024 streams at once.

`live`: each call brings one output of each stream, and partial results are told. `chunks`: each call brings 50 outputs of each stream,
and only final results are told. Beside them flashlight-text's lexicon-free decoder with the same beam, log-add and no language model,
which takes whole utterances one stream after the other and tells nothing in between: `pip install flashlight-text`; without it that
side is left out. Where the scores are clear its texts are ours; in noise they are not always, as it ranks the two ends of a prefix apart. The scores are of random texts with noise, in utterances of 100 outputs.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pairing import heading, in_turn, spread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ctc_streams import Streams, decoder_of, peaky
from undertow.engine.decoders.decoder import Outputs

NAMES = ("<blank>", " ", *"abcdefghijklmnopqrstuvwxyz'.,-")
BEAM, LENGTH, ROUNDS, SECONDS = 8, 100, 5, 0.4


def scores_of(streams: int) -> np.ndarray:
    """Logits, float32 (streams, LENGTH, V)."""
    rng = np.random.default_rng(0)
    few = [
        peaky(rng, rng.integers(1, len(NAMES), LENGTH // 2), len(NAMES), noise=1.5)[:LENGTH]
        for _ in range(min(streams, 64))
    ]
    return np.stack([few[i % len(few)] for i in range(streams)])


def ours(scores: np.ndarray, chunk: int, **keys: Any) -> Callable[[], float]:
    """Outputs a second of a decoder with these keys; each utterance ends after LENGTH outputs."""
    decoder, (streams, length, size) = decoder_of(NAMES, **keys), scores.shape
    rows, slots = Streams(decoder, streams), np.arange(streams)
    counts = np.full(streams, chunk)
    calls = [
        Outputs(
            slots, counts, {"scores": np.ascontiguousarray(scores[:, t : t + chunk]).reshape(-1, size)},
            np.tile(np.arange(t, t + chunk), streams), {}, None,  # pyright: ignore[reportArgumentType]
        )
        for t in range(0, length, chunk)
    ]  # fmt: skip

    def measure() -> float:
        done, begin = 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < SECONDS:
            for outputs in calls:
                decoder.events(rows.columns, outputs)
            decoder.finish(rows.columns, slots)
            done += streams * length
        return done / taken

    return measure


def flashlight(scores: np.ndarray) -> Callable[[], float]:
    """Outputs a second of flashlight-text, stream by stream."""
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

    options = LexiconFreeDecoderOptions(
        beam_size=BEAM, beam_size_token=len(NAMES), beam_threshold=1e9, lm_weight=0.0, sil_score=0.0, log_add=True,
        criterion_type=CriterionType.CTC,
    )  # fmt: skip
    decoder = LexiconFreeDecoder(options, ZeroLM(), 1, 0, [])
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    logs = np.ascontiguousarray(logs, np.float32)

    def measure() -> float:
        done, begin = 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < SECONDS:
            for each in logs[:64]:
                decoder.decode(each.ctypes.data, *each.shape)[0]
                done += len(each)
        return done / taken

    return measure


def main() -> None:
    there = importlib.util.find_spec("flashlight") is not None
    print(heading("numba") + (f", flashlight-text {version('flashlight-text')}" if there else ""))
    print(f"{len(NAMES)} labels; outputs a second, median (lowest..highest) of {ROUNDS} rounds in turn")
    for keys in ({}, {"beam": BEAM}):
        size = sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in decoder_of(NAMES, **keys).states)
        print(f"{'best path' if not keys else f'beam {BEAM}'}: {size:,} bytes a stream")
    for streams in (1, 64, 1024):
        scores = scores_of(streams)
        sides = {
            f"{name}, {how}": ours(scores, chunk, partials=partials, **keys)
            for name, keys in (("best path", {}), (f"beam {BEAM}", {"beam": BEAM}))
            for how, chunk, partials in (("live", 1, True), ("chunks", 50, False))
        }
        if there:
            sides["flashlight-text"] = flashlight(scores)
        for name, rates in in_turn(sides, ROUNDS).items():
            print(f"{streams:5} streams  {name:20} {spread([r / 1e3 for r in rates], 'thousand/s', 0, 8)}")


if __name__ == "__main__":
    main()
