"""Compiling and stepping stateful models, and keeping the state of very many live streams."""

from .arena import Key
from .engine import Engine
from .stream import Stream

__all__ = ["Engine", "Key", "Stream"]
