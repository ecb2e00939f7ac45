"""Compiling and stepping stateful models, and keeping the state of very many live streams.

Names are loaded when first used, so that an error class does not bring the compiler along.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena import Key as Key
    from .engine import Engine as Engine
    from .stream import Stream as Stream

__all__ = ["Engine", "Key", "Stream"]

_HOME = {"Engine": ".engine", "Key": ".arena", "Stream": ".stream"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'undertow.engine' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value
