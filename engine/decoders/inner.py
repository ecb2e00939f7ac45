"""`@inner`: a function that only compiled code calls. Without the two wrappers that numba makes of each, a program of many compiles in two thirds of the time."""

from typing import Any

from numba import njit

inner: Any = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyright: ignore[reportCallIssue]
