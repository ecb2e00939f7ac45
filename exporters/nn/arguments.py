"""What the layers check of their arguments and inputs."""

from torch import Tensor


def whole(layer: str, least: int = 1, **values: int) -> None:
    """Each value must be a whole number of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{layer}: {name} is {value!r}, expected a whole number of at least {least}")


def one_of(layer: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """The value must be one of those."""
    if value not in allowed:
        raise ValueError(f"{layer}: {name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")


def sequences(layer: str, x: Tensor, features: int) -> None:
    """`x` must be (B, T, features)."""
    if x.dim() != 3 or x.shape[2] != features:
        raise ValueError(
            f"{layer}: is given a tensor of shape {tuple(x.shape)}, expected (batch, time, {features}); "
            "put the time axis second and the features last"
        )
