"""The matrix product of two computed values of one stream."""

import numpy as np
from numba import njit

from .simd import get_float32, load, splat, store_some, vfma


@njit(nogil=True)
def multiply(x, y, z, m, k, n):
    """z (m, n) = x (m, k) @ y (k, n), at addresses; each sum in the order of k, from zero. Reads 60 bytes past the end of y."""
    step = 4 * k
    for j in range(0, 4 * n, 64):
        count = min(np.int64(16), n - j // 4)
        i = 0
        while i + 4 <= m:
            a, w, o = x + i * step, y + j, z + 4 * i * n + j
            p = splat(np.float32(0))
            q, r, s = p, p, p
            for _ in range(k):
                part = load(w)
                p = vfma(splat(get_float32(a)), part, p)
                q = vfma(splat(get_float32(a + step)), part, q)
                r = vfma(splat(get_float32(a + 2 * step)), part, r)
                s = vfma(splat(get_float32(a + 3 * step)), part, s)
                a, w = a + 4, w + 4 * n
            store_some(o, p, count)
            store_some(o + 4 * n, q, count)
            store_some(o + 8 * n, r, count)
            store_some(o + 12 * n, s, count)
            i += 4
        while i < m:
            a, w = x + i * step, y + j
            p = splat(np.float32(0))
            for _ in range(k):
                p = vfma(splat(get_float32(a)), load(w), p)
                a, w = a + 4, w + 4 * n
            store_some(z + 4 * i * n + j, p, count)
            i += 1
