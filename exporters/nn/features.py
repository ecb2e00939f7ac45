"""Spectral front ends on raw samples, so that a model is served the features that it was trained on.

Their tables are buffers: a checkpoint brings them along.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import one_of, whole
from .mel import WINDOWS, cosines, filters, fourier


class LogMel(nn.Module):
    """Logarithms of mel filter energies of raw samples: (B, T) or (B, T, 1) -> (B, T', n_mels).

    Frame i is window * samples[i * hop_length + (0 .. window_length - 1)], with zeros after it up to n_fft;
    y = ln(max(floor, mel |DFT(frame)|^power)) (Davis and Mermelstein 1980; filters and scales: see `mel`). Samples are in the unit
    that the model is trained with, usually -1 .. 1; no centring, no reflection: a frame reads nothing before its first sample.

    padding="causal": window_length - hop_length zeros before the first sample, so frame i ends with sample
    (i + 1) * hop_length - 1, and T' = T // hop_length; no delay.
    padding="none": T' = 1 + (T - window_length) // hop_length; a frame comes when its last sample is there.
    n_fft: the least power of two that holds the window, where left out. area_norm: Slaney's filters of equal area.
    State: window_length - hop_length samples.
    """

    def __init__(
        self,
        sample_rate_hz: float,
        *,
        window_length: int,
        hop_length: int,
        n_fft: int | None = None,
        n_mels: int = 80,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        window: str = "hann",
        power: float = 2.0,
        mel_scale: str = "htk",
        area_norm: bool = False,
        floor: float = 1e-10,
        padding: str = "causal",
    ):
        super().__init__()
        layer = type(self).__name__
        whole(layer, window_length=window_length, hop_length=hop_length, n_mels=n_mels)
        n_fft = 1 << (window_length - 1).bit_length() if n_fft is None else n_fft
        whole(layer, window_length, n_fft=n_fft)
        one_of(layer, "window", window, tuple(WINDOWS))
        one_of(layer, "mel_scale", mel_scale, ("htk", "slaney"))
        one_of(layer, "padding", padding, ("causal", "none"))
        high_hz = sample_rate_hz / 2 if high_hz is None else high_hz
        _check(layer, sample_rate_hz, low_hz, high_hz, power, floor)
        if hop_length > window_length and padding == "causal":
            raise ValueError(
                f"{layer}: hop_length is {hop_length}, expected at most window_length, {window_length}, with padding='causal'"
            )
        mel = filters(sample_rate_hz, n_fft, n_mels, low_hz, high_hz, mel_scale, area_norm)
        _check_filters(layer, mel, n_fft)
        self.hop_length, self.window_length, self.power, self.floor = (
            hop_length,
            window_length,
            float(power),
            float(floor),
        )
        self.before = window_length - hop_length if padding == "causal" else 0
        self.basis: Tensor
        self.mel: Tensor
        self.register_buffer("basis", _table(fourier(n_fft, WINDOWS[window](window_length))[:, None]))
        self.register_buffer("mel", _table(mel))

    def forward(self, samples: Tensor) -> Tensor:
        samples = _samples(type(self).__name__, samples)
        spectrum = F.conv1d(F.pad(samples, (self.before, 0)), self.basis, stride=self.hop_length)
        re, im = spectrum.chunk(2, 1)
        energy = (re * re + im * im).transpose(1, 2)
        if self.power != 2:  # of silence, a gradient of 0 and not of infinity
            energy = energy.clamp(min=torch.finfo(energy.dtype).tiny) ** (self.power / 2)
        return torch.log(torch.clamp(energy @ self.mel, min=self.floor))


class MFCC(nn.Module):
    """Mel-frequency cepstral coefficients of raw samples: (B, T) or (B, T, 1) -> (B, T', n_mfcc).

    The orthonormal DCT-II of the logarithms of mel energies that `features` gives
    (Davis and Mermelstein 1980): c[k] = s[k] sum_m y[m] cos(pi k (m + 1/2) / n_mels), s[0] = sqrt(1 / n_mels), else sqrt(2 / n_mels).
    Delay and state are those of `features`.
    """

    def __init__(self, features: LogMel, n_mfcc: int = 13):
        super().__init__()
        n_mels = features.mel.shape[1]
        whole("MFCC", n_mfcc=n_mfcc)
        if n_mfcc > n_mels:
            raise ValueError(f"MFCC: n_mfcc is {n_mfcc}, expected at most the number of mel filters, {n_mels}")
        self.features = features
        self.cosines: Tensor
        self.register_buffer("cosines", _table(cosines(n_mfcc, n_mels)))

    def forward(self, samples: Tensor) -> Tensor:
        return self.features(samples) @ self.cosines


def _table(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(torch.get_default_dtype())


def _samples(layer: str, samples: Tensor) -> Tensor:
    """As (B, 1, T)."""
    if samples.dim() == 3 and samples.shape[2] == 1:
        return samples.transpose(1, 2)
    if samples.dim() != 2:
        raise ValueError(
            f"{layer}: is given a tensor of shape {tuple(samples.shape)}, expected samples (batch, time) or (batch, time, 1)"
        )
    return samples.unsqueeze(1)


def _check(layer: str, sample_rate_hz: float, low_hz: float, high_hz: float, power: float, floor: float) -> None:
    for name, value in {"sample_rate_hz": sample_rate_hz, "power": power, "floor": floor}.items():
        if not value > 0:
            raise ValueError(f"{layer}: {name} is {value}, expected a positive number")
    if not 0 <= low_hz < high_hz <= sample_rate_hz / 2:
        raise ValueError(
            f"{layer}: the filters span {low_hz} .. {high_hz} Hz, expected 0 <= low_hz < high_hz <= {sample_rate_hz / 2}, half the sample rate"
        )


def _check_filters(layer: str, mel: np.ndarray, n_fft: int) -> None:
    empty = np.flatnonzero(mel.max(0) == 0)
    if len(empty):
        raise ValueError(
            f"{layer}: {len(empty)} of {mel.shape[1]} mel filters, the first is number {empty[0]}, lie between two of the {n_fft // 2 + 1} "
            "frequencies of the transform and would always be silent; take a larger n_fft or fewer n_mels"
        )
