"""Tables of a spectral front end, in float64: Fourier basis, mel filters, cosine transform."""

import numpy as np

WINDOWS = {
    "hann": lambda n: 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n),
    "hamming": lambda n: 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(n) / n),
    "rectangular": np.ones,
}  # periodic, as torch.hann_window and torch.hamming_window are


def fourier(n_fft: int, window: np.ndarray) -> np.ndarray:
    """(2 * bins, len(window)): the windowed cosines, then the sines, of bins 0 .. n_fft / 2 of a frame that zeros fill up to n_fft."""
    angle = 2 * np.pi * (np.arange(n_fft // 2 + 1)[:, None] * np.arange(len(window)) % n_fft) / n_fft
    return np.concatenate([np.cos(angle), -np.sin(angle)]) * window


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz, 15 mels, then 27 mels for each factor of 6.4.
_BREAK_HZ, _BREAK, _LINEAR, _LOG = 1000.0, 15.0, 200.0 / 3, np.log(6.4) / 27


def to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Mels. HTK: 2595 log10(1 + hz / 700) (Young et al., The HTK Book, section 5.4)."""
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < _BREAK_HZ, hz / _LINEAR, _BREAK + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG)


def to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """The inverse of `to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < _BREAK, mel * _LINEAR, _BREAK_HZ * np.exp(_LOG * (np.maximum(mel, _BREAK) - _BREAK)))


def filters(
    sample_rate_hz: float, n_fft: int, n_mels: int, low_hz: float, high_hz: float, scale: str, area: bool
) -> np.ndarray:
    """(bins, n_mels): triangles between points evenly spaced in mels. area: each divided by half its width in Hz, as Slaney does."""
    low, high = to_mel(np.array([low_hz, high_hz]), scale)
    points = to_hz(np.linspace(low, high, n_mels + 2), scale)
    bins = np.arange(n_fft // 2 + 1) * sample_rate_hz / n_fft
    left, centre, right = points[:-2], points[1:-1], points[2:]
    up = (bins[:, None] - left) / (centre - left)
    down = (right - bins[:, None]) / (right - centre)
    made = np.maximum(0, np.minimum(up, down))
    return made * 2 / (right - left) if area else made


def cosines(count: int, size: int) -> np.ndarray:
    """(size, count): the orthonormal DCT-II, its first `count` coefficients."""
    made = np.cos(np.pi / size * (np.arange(size)[:, None] + 0.5) * np.arange(count)) * np.sqrt(2 / size)
    made[:, 0] /= np.sqrt(2)
    return made
