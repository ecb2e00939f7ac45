"""Payload bytes <-> frames. One codec serves one model, as a source's or as a sink's.

A payload is one frame `(*frame)`, a chunk `(T, *frame)`, or, of json, msgpack and avro for a model with several inputs, an
object of those by name. Decoding gives arrays of the model's dtypes, or CodecError; how much it allocates is bounded by
the payload's own length.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..engine.artifact import StepSpec
from ..engine.errors import CodecError
from .array_codecs import Pcm16Codec, RawCodec
from .arrow_codec import ArrowCodec
from .avro_codec import AvroCodec
from .codec_config import (
    ArrowCodecConfig,
    AvroCodecConfig,
    CodecConfig,
    JsonCodecConfig,
    MsgpackCodecConfig,
    NumpyCodecConfig,
    Pcm16CodecConfig,
    RawCodecConfig,
)
from .numpy_codec import NumpyCodec
from .payloads import Codec, Frames, Use
from .records import Record, Unreadable
from .tree_codecs import json_codec, msgpack_codec

CODECS: dict[type, Callable[[Any, StepSpec, Use], Codec]] = {
    JsonCodecConfig: json_codec,
    MsgpackCodecConfig: msgpack_codec,
    AvroCodecConfig: AvroCodec,
    RawCodecConfig: lambda _, spec, __: RawCodec(spec),
    Pcm16CodecConfig: lambda _, spec, __: Pcm16Codec(spec),
    NumpyCodecConfig: lambda _, spec, __: NumpyCodec(spec),
    ArrowCodecConfig: lambda _, spec, __: ArrowCodec(spec),
}


def make_codec(config: CodecConfig, spec: StepSpec, use: Use | None = None) -> Codec:
    """The codec for the model's frames. Raises ConfigError where it cannot carry them, or a key says nothing for this use."""
    return CODECS[type(config)](config, spec, use or Use())


def frames_of(record: Record, codec: Codec | None) -> Frames | None:
    """The record's frames whatever form its value has, None where it only ends streams. Raises CodecError.

    codec: of payload bytes; a source that decodes itself needs none.
    """
    value = record.value
    if value is None:
        return None
    if isinstance(value, Unreadable):
        raise CodecError(f"{record.source}: {value.reason}")
    if isinstance(value, Mapping):
        return Frames(dict(value), record.single)
    if isinstance(value, bytes | bytearray | memoryview):
        if codec is None:
            raise CodecError(f"{record.source}: the payload is bytes and the source has no codec")
        try:
            return codec.decode(bytes(value))
        except CodecError as error:
            raise CodecError(f"{record.source}: {error}") from error
    raise CodecError(f"{record.source}: the payload is {type(value).__name__}, expected bytes or arrays by input name")
