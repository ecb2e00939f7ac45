"""The functions of compiled programs against float64, over the ranges that they promise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from undertow.engine.functions import vcos, verf, vexp, vlog, vpow, vsigmoid, vsin, vtan, vtanh
from undertow.engine.simd import load, store

SPECIAL = np.array([0, -0.0, 1, -1, 2, -2, 0.5, -0.5, np.inf, -np.inf, np.nan, 3, -3, 1e-40, -1.5, 1e30], np.float32)


def applied(function: Any, x: np.ndarray) -> np.ndarray:
    """The function of each of a multiple of sixteen numbers."""

    @njit
    def run(source, target, size):
        for j in range(0, 4 * size, 64):
            store(target + j, function(load(source + j)))

    out = np.empty_like(x)
    run(x.ctypes.data, out.ctypes.data, x.size)
    return out


@njit
def powers(base, exponent, target, size):
    for j in range(0, 4 * size, 64):
        store(target + j, vpow(load(base + j), load(exponent + j)))


def power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    out = np.empty_like(base)
    powers(base.ctypes.data, exponent.ctypes.data, out.ctypes.data, base.size)
    return out


def erf(x: np.ndarray) -> np.ndarray:
    import math

    return np.array([math.erf(v) for v in x])


@pytest.mark.parametrize(
    ("function", "exact", "low", "high", "bound"),
    [
        (vsin, np.sin, -1e4, 1e4, 2e-7),
        (vcos, np.cos, -1e4, 1e4, 2e-7),
        (vtanh, np.tanh, -10, 10, 3e-7),
        (vsigmoid, lambda x: 1 / (1 + np.exp(-x)), -20, 20, 2e-7),
        (verf, erf, -5, 5, 3.5e-7),
    ],
)
def test_absolute_error(function: Any, exact: Callable[..., Any], low: float, high: float, bound: float) -> None:
    """Bounded functions are within a few units of float32's last place at one."""
    x = np.random.default_rng(0).uniform(low, high, 16 * 4000).astype(np.float32)
    assert np.abs(applied(function, x) - exact(x.astype(np.float64))).max() < bound


@pytest.mark.parametrize(
    ("function", "exact", "low", "high"),
    [(vtan, np.tan, -1e4, 1e4), (vexp, np.exp, -80, 80), (vlog, np.log, 2, 1e30)],
)
def test_relative_error(function: Any, exact: Callable[..., Any], low: float, high: float) -> None:
    """Within 5e-7 of the value itself, tan near its poles too."""
    x = np.random.default_rng(0).uniform(low, high, 16 * 4000).astype(np.float32)
    wanted = exact(x.astype(np.float64))
    assert (np.abs(applied(function, x) - wanted) / np.maximum(np.abs(wanted), 1e-3)).max() < 5e-7


def test_angles_beyond() -> None:
    """Very large angles stay between -1 and 1, infinity and NaN give NaN."""
    x = np.array([1e20, -3e38, 1e9, np.inf, -np.inf, np.nan, *[0.0] * 10], np.float32)
    for function in (vsin, vcos):
        y = applied(function, x)
        assert (np.abs(y[:3]) <= 1).all()
        assert np.isnan(y[3:6]).all()


def test_power() -> None:
    """Within 1e-7 of the value over float32's whole range, and C's pow at zeros, infinities, NaN and negative bases."""
    rng = np.random.default_rng(1)
    base = np.exp(rng.uniform(-20, 20, 16 * 4000)).astype(np.float32)
    exponent = rng.uniform(-4, 4, base.size).astype(np.float32)
    wanted = base.astype(np.float64) ** exponent
    assert (np.abs(power(base, exponent) - wanted) / wanted).max() < 1e-7
    a, p = (np.ascontiguousarray(v.reshape(-1)) for v in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        wanted = np.power(a.astype(np.float64), p.astype(np.float64)).astype(np.float32)
    got = power(a, p)
    np.testing.assert_allclose(got, wanted, rtol=3e-7, atol=0)
    zero = wanted == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]))
