"""What happens to a camera's picture: statistics of each frame and of its motion, and a GRU that names it."""

import torch
from events import LABELS
from torch import Tensor, nn

LEVELS = 3  # the picture, at half its size, at a quarter
CELLS = (2, 4)  # rows and columns of the grid that motion is measured in, at each size
FLOOR = 1e-3


class CameraNet(nn.Module):
    """Grey frames (B, T, 48, 64) uint8 -> (B, T, 8) log-probabilities of LABELS, from this and earlier frames alone."""

    def __init__(self, width: int = 48, hidden: int = 64, dropout: float = 0.2):
        super().__init__()
        count = LEVELS * (3 * CELLS[0] * CELLS[1] + 3) + 3
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.mix = nn.Linear(count, width)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, len(LABELS))

    mean: Tensor
    scale: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        return self.name(statistics(frames), None)[0]

    def name(self, seen: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log-probabilities, state after the last frame) from statistics (B, T, count)."""
        x = torch.relu(self.mix(self.dropout(((seen - self.mean) * self.scale).clamp(-5, 5))))
        x, state = self.gru(x, state)
        return torch.log_softmax(self.head(self.dropout(x)), -1), state


def statistics(frames: Tensor) -> Tensor:
    """(B, T, count): brightness, contrast and change of each frame; and at each size its sharpness and the flow in each cell.

    The flow is Lucas and Kanade's (1981): the shift that explains best, by least squares, what changed since the frame before.
    It is taken from pictures of one brightness and contrast, so that light that changes is no motion.
    """
    now = frames[:, None]  # shifted as bytes: what a stream keeps of a frame is 3 KB
    x = (
        torch.cat([now, torch.cat([torch.zeros_like(now[:, :, :1]), now[:, :, :-1]], 2)], 1).float() / 255
    )  # (B, 2, T, H, W)
    mean = x.mean((3, 4), keepdim=True)
    centred = x - mean
    deviation = torch.sqrt(centred.square().mean((3, 4), keepdim=True) + 1e-6)
    change = (x[:, 0] - x[:, 1]).abs().mean((2, 3))
    found = [mean[:, 0, :, 0], deviation[:, 0, :, 0], torch.log(change + FLOOR)[..., None]]
    x = centred / (deviation + 0.02)  # what is nearly of one shade keeps its noise small
    for level in range(LEVELS):
        if level:
            x = nn.functional.avg_pool3d(x, (1, 2, 2))
        found.extend(motion(x))
    return torch.cat(found, -1)


def motion(x: Tensor) -> list[Tensor]:
    """Of each cell its shift down and right in pixels, and what changed in it; of the frame its sharpness, its change and how much of it shifts leave."""
    seen = nn.functional.conv3d(x, KERNELS)
    height, width = seen.shape[3] // CELLS[0], seen.shape[4] // CELLS[1]
    products = seen.index_select(1, FACTORS[0]) * seen.index_select(1, FACTORS[1])
    means = nn.functional.avg_pool3d(products, (1, height, width)).flatten(3)  # (B, 7, T, cells)
    dd, rr, dr, dt, rt, tt, sharp = means.unbind(1)
    certain = dd * rr - dr * dr + 1e-3 * (dd + rr) + 1e-6
    v, u = (dr * rt - rr * dt) / certain, (dr * dt - dd * rt) / certain
    left = tt + dd * v * v + rr * u * u + 2 * (dr * u * v + dt * v + rt * u)
    total, sharp = tt.mean(-1, keepdim=True), sharp.mean(-1, keepdim=True)
    whole = torch.cat(
        [
            torch.log(sharp + FLOOR),
            torch.log(total + FLOOR),
            (left.mean(-1, keepdim=True) / (total + FLOOR)).clamp(0, 2),
        ],
        -1,
    )
    return [v.clamp(-4, 4), u.clamp(-4, 4), torch.log(tt + FLOOR), whole]


def kernels() -> Tensor:
    """(4, 2, 1, 5, 5) over this frame and the one before, both through the filter 1 2 1 each way: slope down, slope right, change; and this one's Laplacian."""
    smooth, slope, spot = (
        torch.tensor(k) for k in ([0, 0.25, 0.5, 0.25, 0], [-0.125, -0.25, 0, 0.25, 0.125], [0, 0, 1.0, 0, 0])
    )
    bend = torch.tensor([0.0, 1, -2, 1, 0])
    down, right, both = torch.outer(slope, smooth) / 2, torch.outer(smooth, slope) / 2, torch.outer(smooth, smooth)
    laplacian = torch.outer(bend, spot) + torch.outer(spot, bend)
    pairs = [(down, down), (right, right), (both, -both), (laplacian, torch.zeros(5, 5))]
    return torch.stack([torch.stack(pair) for pair in pairs])[:, :, None]


KERNELS = kernels()
FACTORS = torch.tensor(
    [[0, 1, 0, 0, 1, 2, 3], [0, 1, 1, 2, 2, 2, 3]]
)  # of KERNELS' outputs: what is multiplied with what
