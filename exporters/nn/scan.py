"""Linear recurrences along time as one differentiable operator: vectorised in training, one ONNX Scan under export.

A sequence is cut into about sqrt(T) chunks of about sqrt(T) frames. All chunks are scanned at once from zero, then the last value of
each is carried into the next: 2 sqrt(T) vector operations, with products and sums alone (no logarithm, no division), so a decay of 0
or a long sequence is as safe as in the loop.
"""

import math

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """h[t] = a[t] * h[t - 1] + b[t] along axis 1, elementwise, with h[-1] = h0 (zeros where left out).

    a, b: (B, T, ...), broadcast against each other. h0: (B, ...). Gives h (B, T, ...). Any real floating dtype.
    """
    shape = torch.broadcast_shapes(a.shape, b.shape)
    if len(shape) < 2:
        raise ValueError(
            f"linear_scan: a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}, expected (B, T, ...)"
        )
    start = b.new_zeros(shape[0], *shape[2:]) if h0 is None else h0
    if start.shape != shape[:1] + shape[2:]:
        raise ValueError(
            f"linear_scan: h0 has shape {tuple(start.shape)}, expected {tuple(shape[:1] + shape[2:])}: a frame of a and b"
        )
    return torch.ops.undertow.linear_scan(a.expand(shape), b.expand(shape), start)


def complex_scan(decay: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """h[t] = decay * h[t - 1] + x[t] over complex numbers as pairs of their parts, from zero.

    decay: (N,), the same for every frame. x: (B, T, N). Gives h (B, T, N).
    """
    return torch.ops.undertow.complex_scan(*decay, *x)


def scanned(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """What `linear_scan` gives, for complex numbers too; its own gradient would keep every step."""
    length = b.shape[1]
    if length == 0:
        return torch.empty_like(b, memory_format=torch.contiguous_format)
    size = math.isqrt(length - 1) + 1
    count = -(-length // size)
    decay, h = (_chunks(v, count, size) for v in (a, b))
    for t in range(1, size):
        h[:, :, t].addcmul_(decay[:, :, t], h[:, :, t - 1])
        decay[:, :, t].mul_(decay[:, :, t - 1])
    carried = h0
    for c in range(count):
        h[:, c].addcmul_(decay[:, c], carried[:, None])
        carried = h[:, c, -1]
    return h.flatten(1, 2)[:, :length].contiguous()


def _chunks(x: Tensor, count: int, size: int) -> Tensor:
    """A copy of (B, T, ...) as (B, count, size, ...), with zeros after the end."""
    made = x.new_zeros(x.shape[0], count * size, *x.shape[2:])
    made[:, : x.shape[1]] = x
    return made.unflatten(1, (count, size))


def _before(h: Tensor, h0: Tensor) -> Tensor:
    """h[t - 1]."""
    return torch.cat([h0[:, None], h[:, :-1]], 1)


def _after(x: Tensor) -> Tensor:
    """x[t + 1], and zeros after the last."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


# The gradient of a scan is the scan of the gradients from the last frame to the first: s[t] = g[t] + a[t + 1] * s[t + 1].


@torch.library.custom_op("undertow::linear_scan", mutates_args=())
def _linear(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    return scanned(a, b, h0)


@_linear.register_fake
def _(a, b, h0):
    return torch.empty_like(b, memory_format=torch.contiguous_format)


def _linear_saved(ctx, inputs, output):
    a, _, h0 = inputs
    ctx.save_for_backward(a, h0, output)


def _linear_gradient(ctx, grad):
    a, h0, h = ctx.saved_tensors
    zero = torch.zeros_like(h0)
    s = torch.ops.undertow.linear_scan(_after(a).flip(1), grad.flip(1), zero).flip(1)
    return s * _before(h, h0), s, (a * s)[:, 0] if a.shape[1] else zero


_linear.register_autograd(_linear_gradient, setup_context=_linear_saved)


@torch.library.custom_op("undertow::complex_scan", mutates_args=())
def _complex(decay_re: Tensor, decay_im: Tensor, x_re: Tensor, x_im: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.complex(x_re, x_im)
    h = scanned(torch.complex(decay_re, decay_im).expand(x.shape), x, x.new_zeros(x.shape[0], x.shape[2]))
    return h.real.contiguous(), h.imag.contiguous()


@_complex.register_fake
def _(decay_re, decay_im, x_re, x_im):
    return tuple(torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x_re, x_im))


def _complex_saved(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2], *output)


def _complex_gradient(ctx, grad_re, grad_im):
    re, im, h_re, h_im = ctx.saved_tensors
    s_re, s_im = torch.ops.undertow.complex_scan(re, -im, grad_re.flip(1), grad_im.flip(1))
    s_re, s_im = s_re.flip(1), s_im.flip(1)
    p_re, p_im = (_before(h, torch.zeros_like(h[:, 0])) for h in (h_re, h_im))
    return (p_re * s_re + p_im * s_im).sum((0, 1)), (p_re * s_im - p_im * s_re).sum((0, 1)), s_re, s_im


_complex.register_autograd(_complex_gradient, setup_context=_complex_saved)
