"""Every error that Undertow raises on purpose.

UndertowError
├── ArtifactError            a model file is not a valid step artifact
├── ExportError              a model cannot be turned into an exact step graph
├── BackendError             no backend, or not the one asked for, can run the model here
├── ConfigError              a pipeline file is wrong
├── ConnectorError           a source or a sink failed
├── CodecError               a payload cannot be decoded or encoded
├── CheckpointError          a checkpoint or a checkpoint store is damaged or belongs to something else
├── ArenaFullError           there is no slot left for another stream
├── BatchError               some streams of one call failed; the others went on
└── StreamError              something is wrong with one stream
    ├── UnknownStreamError   the stream is not resident
    ├── StaleStreamError     a handle's stream was closed, dropped or expired meanwhile
    ├── FrameError           a frame has the wrong shape or dtype, or is not finite
    └── SnapshotError        a snapshot is damaged or belongs to another model
"""

from collections.abc import Mapping
from typing import Any


class UndertowError(Exception):
    """Base of all of Undertow's errors."""


class ArtifactError(UndertowError):
    """A model file is not a valid step artifact."""


class ExportError(UndertowError):
    """A model cannot be turned into an exact step graph; says which node or module, why, and what to do."""


class BackendError(UndertowError):
    """No backend, or not the one that was asked for, can run the model on this machine."""


class ConfigError(UndertowError):
    """A pipeline file is wrong; says the path of the key."""


class ConnectorError(UndertowError):
    """A source or a sink failed."""


class CodecError(UndertowError):
    """A payload cannot be decoded or encoded."""


class CheckpointError(UndertowError):
    """A checkpoint or a checkpoint store is damaged or belongs to something else."""


class ArenaFullError(UndertowError):
    """There is no slot left for another stream."""


class StreamError(UndertowError):
    """Something is wrong with one stream."""


class UnknownStreamError(StreamError):
    """The stream is not resident."""


class StaleStreamError(StreamError):
    """A handle's stream was closed, dropped or expired meanwhile."""


class FrameError(StreamError):
    """A frame has the wrong shape or dtype, or is not finite."""


class SnapshotError(StreamError):
    """A snapshot is damaged or belongs to another model."""


class BatchError(UndertowError):
    """Some streams of one call failed; the others went on, and their results are here.

    errors: the error of each failed stream, by key.
    result: what the call would have returned, without the failed streams' outputs
    (`step`: `(values, ready)` with `ready` False for them; `push_many`: the dict without their keys).
    """

    def __init__(self, errors: Mapping[Any, UndertowError], result: Any):
        self.errors = dict(errors)
        self.result = result
        first = next(iter(self.errors.values()))
        more = f" (and {len(self.errors) - 1} more streams, see .errors)" if len(self.errors) > 1 else ""
        super().__init__(f"{first}{more}")
