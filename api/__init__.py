"""Undertow: a streaming inference engine. `import undertow as ut`.

Names are loaded when first used, so that `undertow --help` does not wait for a compiler and a script that only runs
a model never loads an exporter.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import decode as decode
    from .connectors.memory import MemorySink as MemorySink
    from .connectors.memory import MemorySource as MemorySource
    from .connectors.records import Answer as Answer
    from .connectors.records import Record as Record
    from .connectors.running import run as run
    from .engine import Engine as Engine
    from .engine import Stream as Stream
    from .engine.artifact import Artifact as Artifact
    from .engine.artifact import StepSpec as StepSpec
    from .engine.artifact import read_artifact as read_artifact
    from .engine.chain_config import Gate as Gate
    from .engine.chain_config import Stage as Stage
    from .engine.errors import ArenaFullError as ArenaFullError
    from .engine.errors import ArtifactError as ArtifactError
    from .engine.errors import BackendError as BackendError
    from .engine.errors import BatchError as BatchError
    from .engine.errors import CheckpointError as CheckpointError
    from .engine.errors import CodecError as CodecError
    from .engine.errors import ConfigError as ConfigError
    from .engine.errors import ConnectorError as ConnectorError
    from .engine.errors import ExportError as ExportError
    from .engine.errors import FrameError as FrameError
    from .engine.errors import SnapshotError as SnapshotError
    from .engine.errors import StaleStreamError as StaleStreamError
    from .engine.errors import StreamError as StreamError
    from .engine.errors import UndertowError as UndertowError
    from .engine.errors import UnknownStreamError as UnknownStreamError
    from .exporters import DecoderModule as DecoderModule
    from .exporters import StepModule as StepModule
    from .exporters import adopt as adopt
    from .exporters import convert as convert
    from .exporters import export as export
    from .exporters import export_seq2seq as export_seq2seq
    from .exporters import verify as verify

__version__ = "0.1.0"

_HOMES = {
    ".connectors.memory": ("MemorySink", "MemorySource"),
    ".connectors.records": ("Answer", "Record"),
    ".connectors.running": ("run",),
    ".engine": ("Engine", "Stream"),
    ".engine.artifact": ("Artifact", "StepSpec", "read_artifact"),
    ".engine.chain_config": ("Gate", "Stage"),
    ".engine.errors": (
        "ArenaFullError",
        "ArtifactError",
        "BackendError",
        "BatchError",
        "CheckpointError",
        "CodecError",
        "ConfigError",
        "ConnectorError",
        "ExportError",
        "FrameError",
        "SnapshotError",
        "StaleStreamError",
        "StreamError",
        "UndertowError",
        "UnknownStreamError",
    ),
    ".exporters": ("DecoderModule", "StepModule", "adopt", "convert", "export", "export_seq2seq", "verify"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ("decode",)

__all__ = sorted((*_HOME, *_MODULES))  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module 'undertow' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
