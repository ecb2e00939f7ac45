"""What training varies in a recording, each time anew: pace, loudness, noise, what comes before and after, and what is masked."""

import numpy as np
import torch
from data import RATE_HZ, Utterance, resampled, smooth
from torch import Tensor

LONGEST_S = 9.0


def joined(chosen: list[Utterance], generator: np.random.Generator) -> list[list[Utterance]]:
    """Prompts in random rows, as a telephone exchange plays them: up to four, together 9 s at most, but for one that is longer alone."""
    rows: list[list[Utterance]] = []
    room = 0.0
    for i in generator.permutation(len(chosen)):
        seconds = len(chosen[i].samples) / RATE_HZ
        if seconds > room or len(rows[-1]) == 4:
            rows.append([])
            room = LONGEST_S * generator.uniform(0.2, 1)
        rows[-1].append(chosen[i])
        room -= seconds
    return rows


def varied(row: list[Utterance], generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """(samples, text) of a row as it might have been: other pace (and pitch with it), gaps, loudness, noise from 40 to 10 dB below it."""
    parts = [np.zeros(_gap(generator), np.float32)]
    for utterance in row:
        parts += [utterance.samples, np.zeros(_gap(generator), np.float32)]
    samples = resampled(np.concatenate(parts), int(generator.integers(44, 58)), 50)
    level = float(np.sqrt(np.mean(samples**2))) or 1.0
    if generator.random() < 0.5:
        samples = samples + coloured(len(samples), generator) * level * 10 ** (-generator.uniform(10, 40) / 20)
    loudness = 10 ** (generator.uniform(-12, 6) / 20)
    return (samples * loudness).clip(-1, 1).astype(np.float32), " ".join(u.text for u in row)


def _gap(generator: np.random.Generator) -> int:
    return int(generator.uniform(0, 0.5) * RATE_HZ)


def coloured(count: int, generator: np.random.Generator) -> np.ndarray:
    """Noise of deviation 1 whose power falls off with frequency: between white and brown."""
    length = smooth(count + count % 2)
    spectrum = np.fft.rfft(generator.standard_normal(length, dtype=np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), 10) ** -generator.uniform(0, 1)
    noise = np.fft.irfft(spectrum, length)[:count]
    return (noise / noise.std()).astype(np.float32)


def masked(features: Tensor, generator: np.random.Generator) -> Tensor:
    """With two bands of up to 5 mels and one span in each 2 s of up to 0.2 s of each stream at their mean (Park et al. 2019, SpecAugment)."""
    batch, length, mels = features.shape
    keep = torch.ones(batch, length, mels)
    for b in range(batch):
        for _ in range(2):
            low, width = generator.integers(mels), generator.integers(6)
            keep[b, :, low : low + width] = 0
        for _ in range(1 + length // 125):
            start, width = generator.integers(length), generator.integers(13)
            keep[b, start : start + width] = 0
    return features * keep
