"""Passwords and the like in a pipeline file: text that whoever needs it can use, and that nothing prints.

msgspec refuses to encode what is not a plain `str`, so a secret that somebody forgets to hide is an error there, not a leak.
"""

from pathlib import Path
from typing import Any

from ..engine.errors import ConfigError

HIDDEN = "(secret)"


class Secret(str):
    """A text whose `repr`, `str` and format are '(secret)'. Joining and encoding give the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def reveal(self) -> str:
        """The text as a plain `str`, for who would format it."""
        return "".join(self)


def as_secret(kind: type, value: Any) -> Any:
    """msgspec's `dec_hook`. Raises ValueError, which does not show the value."""
    if kind is Secret and isinstance(value, str) and value:
        return Secret(value)
    raise ValueError("expected text of at least one character")


def hidden(value: Any) -> str:
    """msgspec's `enc_hook`, for whatever prints settings. Raises TypeError for anything but a secret."""
    if isinstance(value, Secret):
        return HIDDEN
    raise TypeError(f"settings hold a {type(value).__name__}, which cannot be printed")


def secret_file(path: Path, where: str) -> Secret:
    """What the file holds, without the line's end. Raises ConfigError, which does not show it."""
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"{where}: {path} is empty, expected a secret")
    return Secret(text)
