"""How outputs are compared: near the oracle, or the same bits."""

from typing import Any

import numpy as np

from .naive import TOLERANCE


def named(outputs: Any) -> dict[str, np.ndarray]:
    return outputs if isinstance(outputs, dict) else {"the output": outputs}


def assert_close(got: Any, expected: Any, note: str = "", **tolerance: float) -> None:
    """Same names and shapes; floats within the oracle's tolerance, everything else equal."""
    assert isinstance(got, dict) == isinstance(expected, dict)
    got, expected = named(got), named(expected)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape, f"{note} {name}: {got[name].shape}, expected {value.shape}"
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got[name], value, **(TOLERANCE | tolerance), err_msg=f"{note} {name}")
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=f"{note} {name}")


def assert_same_bits(got: Any, expected: Any, note: str = "") -> None:
    """Same names, shapes, dtypes and bytes."""
    got, expected = named(got), named(expected)
    assert set(got) == set(expected)
    for name, value in expected.items():
        what = f"{note} {name}"
        assert (got[name].shape, got[name].dtype) == (value.shape, value.dtype), what
        assert np.ascontiguousarray(got[name]).tobytes() == np.ascontiguousarray(value).tobytes(), (
            f"{what}: differ by {np.abs(np.asarray(got[name], np.float64) - value).max()}"
        )


def joined(parts: list[Any]) -> Any:
    """Outputs that came one after the other, end to end."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return np.concatenate(parts)


def first(outputs: Any, count: int) -> Any:
    """The first rows of each output."""
    return {n: a[:count] for n, a in outputs.items()} if isinstance(outputs, dict) else outputs[:count]


def rows(outputs: Any) -> int:
    return len(next(iter(named(outputs).values())))
