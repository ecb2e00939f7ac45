"""What a published recogniser makes of the same recordings: pocketsphinx 5, its American English acoustic model, and our language model.

Its model is of another kind (Gaussian mixtures) and of 16 kHz; the recordings are taken to that rate. It is given the whole of each.
"""

import tempfile
from pathlib import Path

import numpy as np
from data import Utterance, resampled
from ngram import write_arpa
from pocketsphinx import Decoder, get_model_path
from texts import said

NAME = "pocketsphinx 5 with the same language model"
RATE_HZ = 16_000
QUIET = np.zeros(2000, np.float32)  # a quarter of a second at 8 kHz


def heard_by_pocketsphinx(chosen: list[Utterance], texts: list[str]) -> list[str]:
    """What it hears in each recording. texts: what its language model is made of; words that it cannot pronounce are left out of them."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "words.arpa"
        known = pronounced()
        write_arpa([" ".join(w for w in t.split() if w in known) for t in texts], model)
        decoder = Decoder(samprate=RATE_HZ, lm=str(model), loglevel="FATAL")
        return [heard(decoder, u.samples) for u in chosen]


def heard(decoder: Decoder, samples: np.ndarray) -> str:
    """Of one recording with silence around it."""
    wide = resampled(np.concatenate([QUIET, samples, QUIET]), 2, 1)
    decoder.start_utt()
    decoder.process_raw((wide.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return said(found.hypstr) if found else ""


def pronounced() -> set[str]:
    """The words of its dictionary."""
    with open(get_model_path("en-us/cmudict-en-us.dict"), encoding="utf-8") as file:
        return {line.split()[0].split("(")[0] for line in file if line.strip()}
