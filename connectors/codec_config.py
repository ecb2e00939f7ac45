"""What a pipeline file says of payloads: `codec = { type = "json" }`, and the keys that each codec has."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .secret import Secret

Text = Annotated[str, Meta(min_length=1)]
TimeUnit = Literal["s", "ms", "us", "ns"]


class FieldKeys(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of a payload that is an object with the frames and more in it; with one of these fields every payload is one.

    value_field: the frames, "value" by default. end_field: true where the stream ends. seq_field: the number of the first
    frame in its stream. time_field: event time, ISO 8601 or a number of `time_unit` ("s" by default) since 1970. A field
    that is not named here is refused, or passed over (`extra_fields = "ignore"`).
    """

    value_field: Text | None = None
    end_field: Text | None = None
    seq_field: Text | None = None
    time_field: Text | None = None
    time_unit: TimeUnit | None = None
    extra_fields: Literal["error", "ignore"] | None = None


class JsonCodecConfig(FieldKeys, frozen=True, kw_only=True, tag_field="type", tag="json"):
    """`codec = { type = "json" }`: nested lists of numbers; of several inputs an object of those by name."""


class MsgpackCodecConfig(FieldKeys, frozen=True, kw_only=True, tag_field="type", tag="msgpack"):
    """`codec = { type = "msgpack" }`: the same in MessagePack."""


class AvroCodecConfig(FieldKeys, frozen=True, kw_only=True, tag_field="type", tag="avro"):
    """`codec = { type = "avro" }`: the same as an Avro datum, bare or, with a registry, behind its schema's id.

    schema: a file, or the schema itself (JSON). Of payloads that are read it is the writer's, or, with a registry, what
    the writer's is resolved to; of those that are written it is what the outputs have to fit, by default derived from them.
    registry: the schema registry's address. registry_user, and registry_password or registry_password_file, which holds it:
    whom it knows us as. subject: what a written schema is registered under, by default the topic's name with `-value`.
    """

    schema: Text | None = None
    registry: Text | None = None
    registry_user: Text | None = None
    registry_password: Secret | None = None
    registry_password_file: Text | None = None
    subject: Text | None = None


class RawCodecConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="raw"):
    """`codec = { type = "raw" }`: little-endian values of the model's dtypes."""


class Pcm16CodecConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="pcm16"):
    """`codec = { type = "pcm16" }`: 16-bit samples."""


class NumpyCodecConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="numpy"):
    """`codec = { type = "numpy" }`: a .npy file."""


class ArrowCodecConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="arrow"):
    """`codec = { type = "arrow" }`: an Arrow IPC stream; columns by the inputs' names, a row is a frame."""


CodecConfig = (
    JsonCodecConfig
    | MsgpackCodecConfig
    | AvroCodecConfig
    | RawCodecConfig
    | Pcm16CodecConfig
    | NumpyCodecConfig
    | ArrowCodecConfig
)
