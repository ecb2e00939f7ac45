"""Named convolutional networks, small, as people write them: (batch, channels, time) inside."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Turned(nn.Module):
    """(batch, time, channels) for a module that takes and gives (batch, channels, time)."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class CausalConv(nn.Conv1d):
    """Padded on the left alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class TCNBlock(nn.Module):
    """The residual block of Bai et al. 2018: padded on both sides, and the right one cut off."""

    def __init__(self, inputs: int, outputs: int, dilation: int, kernel: int = 3):
        super().__init__()
        self.cut = (kernel - 1) * dilation
        options = {"padding": self.cut, "dilation": dilation}
        self.first, self.second = (
            nn.Conv1d(inputs, outputs, kernel, **options),
            nn.Conv1d(outputs, outputs, kernel, **options),
        )
        self.around = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x)[..., : -self.cut])
        y = torch.relu(self.second(y)[..., : -self.cut])
        return torch.relu(y + self.around(x))


class WaveNet(nn.Module):
    """van den Oord et al. 2016: gated dilated convolutions, residuals, the sum of all skips."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        dilations = (1, 2, 4, 8)
        self.inp = CausalConv(1, width, 2)
        self.gated = nn.ModuleList(CausalConv(width, 2 * width, 2, dilation=d) for d in dilations)
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.skips = nn.ModuleList(nn.Conv1d(width, 16, 1) for _ in dilations)
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 32, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.inp(x), 0.0
        for gated, residual, skip in zip(self.gated, self.residual, self.skips, strict=True):
            content, gate = gated(x).chunk(2, 1)
            y = torch.tanh(content) * torch.sigmoid(gate)
            x, total = x + residual(y), total + skip(y)
        return self.out(total)


class QuartzBlock(nn.Module):
    """QuartzNet (Kriman et al. 2020): depthwise separable, batch norm, residual, centred."""

    def __init__(self, width: int = 16, kernel: int = 11, repeats: int = 2):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(repeats):
            layers += [nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width), nn.Conv1d(width, width, 1)]
            layers += [nn.BatchNorm1d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        self.around = nn.Sequential(nn.Conv1d(width, width, 1), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.around(x))


class Inception(nn.Module):
    """InceptionTime's module (Fawaz et al. 2020): kernels of several lengths and a pooled way, side by side."""

    def __init__(self, inputs: int = 8) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(inputs, 6, 1, bias=False)
        self.kernels = nn.ModuleList(nn.Conv1d(6, 4, k, padding=k // 2, bias=False) for k in (9, 5, 3))
        self.pooled = nn.Sequential(nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(inputs, 4, 1, bias=False))
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(x)
        return torch.relu(self.norm(torch.cat([*(conv(y) for conv in self.kernels), self.pooled(x)], 1)))


class ResidualDown(nn.Module):
    """A 1-D ResNet's block with stride, as for ECG (Hannun et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.norm = nn.Conv1d(inputs, outputs, 5, stride=stride, padding=2), nn.BatchNorm1d(outputs)
        self.second = nn.Conv1d(outputs, outputs, 5, padding=2)
        self.around = nn.Sequential(nn.MaxPool1d(stride), nn.Conv1d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.norm(self.first(x)))) + self.around(x))


class TimeUNet(nn.Module):
    """A U-Net in time (Stoller et al. 2018): two levels down, two up, the skips concatenated."""

    def __init__(self, up: str = "transposed") -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(4, 8, 5, padding=2), nn.Conv1d(8, 12, 5, padding=2)
        self.deep = nn.Conv1d(12, 12, 5, padding=2)
        if up == "transposed":
            self.up_two, self.up_one = nn.ConvTranspose1d(12, 12, 2, stride=2), nn.ConvTranspose1d(12, 8, 2, stride=2)
        else:
            self.up_two = nn.Upsample(scale_factor=2, mode="nearest")
            self.up_one = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv1d(12, 8, 1))
        self.merge_two, self.merge_one = nn.Conv1d(24, 12, 5, padding=2), nn.Conv1d(16, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        one = F.leaky_relu(self.one(x))
        two = F.leaky_relu(self.two(F.max_pool1d(one, 2)))
        deep = F.leaky_relu(self.deep(F.max_pool1d(two, 2)))
        y = F.leaky_relu(self.merge_two(torch.cat([self.up_two(deep), two], 1)))
        return self.merge_one(torch.cat([self.up_one(y), one], 1))


class Demucs(nn.Module):
    """The causal denoiser on samples (Defossez et al. 2020): strided encoder, LSTM, decoder with skips, GLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 4, stride=4), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1))
            for i, o in ((1, 8), (8, 12))
        )
        self.rnn = nn.LSTM(12, 12, batch_first=True)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, 2 * i, 1), nn.GLU(1), nn.ConvTranspose1d(i, o, 4, stride=4))
            for i, o in ((12, 8), (8, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.rnn(x.transpose(1, 2))[0].transpose(1, 2)
        x = torch.relu(self.up[0](x + skips[1]))
        return self.up[1](x + skips[0])


class ConvTasNet(nn.Module):
    """Luo and Mesgarani 2019: learned filterbank, masks from a causal dilated separator, overlap-add."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 16, 8, stride=4, bias=False)
        self.separator = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(16, 24, 1), nn.PReLU(), CausalConv(24, 24, 3, dilation=d, groups=24), nn.Conv1d(24, 16, 1)
            )
            for d in (1, 2, 4)
        )
        self.mask, self.decoder = nn.Conv1d(16, 32, 1), nn.ConvTranspose1d(16, 1, 8, stride=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.relu(self.encoder(x))
        y = frames
        for layer in self.separator:
            y = y + layer(y)
        masks = torch.sigmoid(self.mask(y)).chunk(2, 1)
        return torch.cat([self.decoder(mask * frames) for mask in masks], 1)


class HiFiGAN(nn.Module):
    """A vocoder's generator (Kong et al. 2020): frames to samples by transposed convolutions and dilated residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Conv1d(8, 16, 7, padding=3)
        self.ups = nn.ModuleList(nn.ConvTranspose1d(i, i // 2, 8, stride=4, padding=2) for i in (16, 8))
        self.residuals = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(c, c, 3, dilation=d, padding=d) for d in (1, 3)) for c in (8, 4)
        )
        self.out = nn.Conv1d(4, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for up, residuals in zip(self.ups, self.residuals, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            for conv in residuals:
                x = x + conv(F.leaky_relu(x, 0.1))
        return torch.tanh(self.out(F.leaky_relu(x)))


class DSCNN(nn.Module):
    """Depthwise-separable keyword spotting (Zhang et al. 2017) on (batch, time, bands): 2-D convolutions, the mean over bands."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 12, (10, 4), stride=(2, 2), padding=(5, 1)), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU()
        )
        self.head = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x.unsqueeze(1))).mean(3).transpose(1, 2))


class CRNN(nn.Module):
    """Sound event detection (Cakir et al. 2017): 2-D convolutions that pool bands (and time), a GRU, a decision for every frame."""

    def __init__(self, pool_time: int = 1) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((pool_time, 4)),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((1, 2)),
        )  # fmt: skip
        self.rnn, self.head = nn.GRU(16, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x.unsqueeze(1))
        y = y.permute(0, 2, 1, 3).flatten(2)
        return torch.sigmoid(self.head(self.rnn(y)[0]))


class DeepSpeech(nn.Module):
    """Deep Speech 2 for streams (Amodei et al. 2016): strided 2-D convolutions, GRUs, lookahead convolution."""

    def __init__(self, context: int = 5) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 6, (11, 5), stride=(2, 2), padding=(5, 2)), nn.BatchNorm2d(6), nn.Hardtanh(0, 20),
            nn.Conv2d(6, 6, (11, 5), stride=(1, 2), padding=(5, 2)), nn.BatchNorm2d(6), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.rnn, self.context = nn.GRU(24, 16, num_layers=2, batch_first=True), context
        self.lookahead, self.head = nn.Conv1d(16, 16, context, groups=16, bias=False), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x.unsqueeze(1))
        y = y.transpose(1, 2).flatten(2)
        y = self.rnn(y)[0].transpose(1, 2)
        y = F.hardtanh(self.lookahead(F.pad(y, (0, self.context - 1))), 0, 20)
        return self.head(y.transpose(1, 2)).log_softmax(-1)


class CRN(nn.Module):
    """A convolutional recurrent network for enhancement (Tan and Wang 2018): causal encoder over bands, LSTM, mirrored decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(i, o, (2, 3), stride=(1, 2)) for i, o in ((1, 4), (4, 8)))
        self.rnn = nn.LSTM(24, 24, batch_first=True)
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, (2, 3), stride=(1, 2)) for i, o in ((16, 4), (8, 1)))

    def forward(self, x: Tensor) -> Tensor:
        y, skips = x.unsqueeze(1), []
        for down in self.down:
            y = F.elu(down(F.pad(y, (0, 0, 1, 0))))
            skips.append(y)
        b, c, t, f = y.shape
        y = self.rnn(y.transpose(1, 2).reshape(b, t, c * f))[0].reshape(b, t, c, f).transpose(1, 2)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            y = F.elu(up(torch.cat([y, skip], 1))[:, :, :-1])
        return y.squeeze(1)


class CausalC3D(nn.Module):
    """A 3-D convolution over small images, padded in front: a MoViNet block's shape (Kondratyuk et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 6, 3, padding=(0, 1, 1)), nn.Conv3d(6, 4, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(F.pad(x, (0, 0, 0, 0, 2, 0))))
        return self.second(F.pad(x, (0, 0, 0, 0, 2, 0))).mean((3, 4)).transpose(1, 2)


class FactorisedVideo(nn.Module):
    """R(2+1)D (Tran et al. 2018): a 2-D convolution of every image, then one along time, centred."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.time = (
            nn.Conv3d(2, 6, (1, 3, 3), padding=(0, 1, 1)),
            nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(torch.relu(self.time(torch.relu(self.space(x)))), (1, 2, 2))


class TemporalShift(nn.Module):
    """The temporal shift module (Lin et al. 2019): some channels from the frame before, some from the frame after."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        past, future, rest = x.split([2, 2, 4], -1)
        shifted = torch.cat([F.pad(past, (0, 0, 1, 0))[:, :-1], F.pad(future, (0, 0, 0, 1))[:, 1:], rest], -1)
        return x + torch.relu(self.mix(shifted))


class Delta(nn.Module):
    """Features with their first and second differences, zeros before the first."""

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros_like(x[:, :1])
        first = torch.cat([zeros, x[:, 1:] - x[:, :-1]], 1)
        second = torch.cat([zeros, first[:, 1:] - first[:, :-1]], 1)
        return torch.cat([x, first, second], -1)


class LogMel(nn.Module):
    """Log-mel energies of samples: frames by a convolution with a windowed Fourier basis, and a filterbank."""

    def __init__(self, size: int = 32, hop: int = 16, bands: int = 8) -> None:
        super().__init__()
        at, bins = torch.arange(size), size // 2 + 1
        angle = 2 * torch.pi * at[None, :] * torch.arange(bins)[:, None] / size
        basis = torch.cat([angle.cos(), -angle.sin()]) * torch.hann_window(size)
        self.register_buffer("basis", basis[:, None])
        self.register_buffer("filters", torch.rand(bands, bins))
        self.hop, self.bins = hop, bins

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = F.conv1d(samples.unsqueeze(1), self.basis, stride=self.hop)
        power = spectrum[:, : self.bins].square() + spectrum[:, self.bins :].square()
        return torch.log(F.linear(power.transpose(1, 2), self.filters) + 1e-6)


class LEAF(nn.Module):
    """A learned front end (Zeghidour et al. 2021): filters on samples, squared, low-pass pooled, compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.low = (
            nn.Conv1d(1, 16, 9, padding=4, bias=False),
            nn.Conv1d(8, 8, 8, stride=4, groups=8, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.filters(x.transpose(1, 2)).square()
        energy = self.low(y[:, :8] + y[:, 8:]).square()
        return torch.pow(energy + 1e-4, 0.3).transpose(1, 2)


class LPCNetFrames(nn.Module):
    """LPCNet's frame-rate network (Valin and Skoglund 2019): two convolutions, every frame repeated for its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv1d(8, 12, 3, padding=1), nn.Tanh(), nn.Conv1d(12, 12, 3, padding=1), nn.Tanh()
        )
        self.samples = nn.GRU(12, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.convs(x.transpose(1, 2)), scale_factor=4.0, mode="nearest")
        return self.samples(y.transpose(1, 2))[0]
