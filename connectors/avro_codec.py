"""Payloads that are Avro datums, bare or in the framing of a schema registry: a byte 0 and the schema's id, big-endian."""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import CodecError, ConfigError
from .avro_schemas import check_outputs, derived, given_schema, parsed
from .codec_config import AvroCodecConfig
from .payload_fields import payload_fields
from .payloads import Decoded, Frames, Use, encode_one, library
from .records import Answer
from .schema_registry import SchemaRegistry
from .secret import secret_file
from .tree_codecs import TreeFrames
from .trees import VALUES

FRAMING = struct.Struct(">bI")


class AvroCodec:
    """A record with a field for each input, also where there is but one; or the array of the only one."""

    def __init__(self, config: AvroCodecConfig, spec: StepSpec, use: Use):
        library("fastavro", "avro")
        fields = payload_fields(config, use.writes)
        registry = _registry(config, use.folder)
        schema = given_schema(config.schema, use.folder) if config.schema else None
        if use.writes:
            self._outputs = Outputs(schema, registry, _subject(config, use.topic))
            return
        if schema is None and registry is None:
            raise ConfigError("[source.codec] type = 'avro': nothing says what was written; give schema or registry")
        if config.subject:
            raise ConfigError("[source.codec] subject: is for payloads that are written; take it out")
        self._datums, self._frames = Datums(schema, registry), TreeFrames(spec, VALUES, fields, objects=True)

    def decode(self, payload: bytes) -> Frames:
        return self._frames.one(self._datums.datum(payload))

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        errors: dict[int, CodecError] = {}
        datums: dict[int, Any] = {}
        for place, payload in enumerate(payloads):
            if payload is None:
                continue
            try:
                datums[place] = self._datums.datum(payload)
            except CodecError as error:
                errors[place] = error
        return self._frames.many(len(payloads), datums, errors)

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        return self._outputs.payloads(values, counts)


class Datums:
    """Payloads as Python's values. With a registry the writer's schema is that of the payload's id, resolved to `schema` if there is one."""

    def __init__(self, schema: Any, registry: SchemaRegistry | None):
        self._read = library("fastavro", "avro").schemaless_reader
        self._schema, self._registry = None if schema is None else parsed([schema]), registry
        self._writers: dict[int, Any] = {}

    def datum(self, payload: bytes) -> Any:
        """Raises CodecError; ConnectorError where the registry fails."""
        data = BytesIO(payload)
        writer, reader = self._schema, None
        if self._registry is not None:
            writer, reader = self._writer(data.read(FRAMING.size)), self._schema
        try:
            value = self._read(data, writer, reader)
        except EOFError as error:
            raise CodecError(f"the payload has {len(payload)} bytes and ends before its Avro datum does") from error
        except Exception as error:  # fastavro raises many kinds, all of them about these bytes
            raise CodecError(f"not an Avro datum of its schema ({type(error).__name__}: {error})") from error
        rest = len(payload) - data.tell()
        if rest:
            raise CodecError(f"the payload has {len(payload)} bytes, its Avro datum ends {rest} before the end")
        return value

    def _writer(self, head: bytes) -> Any:
        if len(head) < FRAMING.size or head[0]:
            raise CodecError(f"the payload begins with {head.hex()}, expected 00 and the 4 bytes of a schema's id")
        assert self._registry is not None
        _, id = FRAMING.unpack(head)
        if id not in self._writers:
            try:
                self._writers[id] = parsed(self._registry.schemas(id))
            except CodecError as error:
                self._writers[id] = CodecError(f"schema {id}: {error}")
        if isinstance(self._writers[id], CodecError):
            raise CodecError(str(self._writers[id]))
        return self._writers[id]


class Outputs:
    """Answers as datums: of `schema`, or of one that is derived from the first answers; registered where there is a registry."""

    def __init__(self, schema: Any, registry: SchemaRegistry | None, subject: str):
        self._write = library("fastavro", "avro").schemaless_writer
        self._schema, self._registry, self._subject = schema, registry, subject
        self._made: dict[tuple[Any, ...], tuple[Any, bool, bytes]] = {}

    def payloads(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        """Raises CodecError; ConnectorError where the registry fails or refuses the schema."""
        schema, record, head = self._fitting(values)
        lists = {name: array.tolist() for name, array in values.items()}
        only, out, stops, row = next(iter(lists)), BytesIO(), [0], 0
        for count in counts.tolist():
            rows = {name: cells[row : row + count] for name, cells in lists.items()}
            out.write(head)
            try:
                self._write(out, schema, rows if record else rows[only])
            except Exception as error:  # fastavro raises many kinds, all of them about these values
                raise CodecError(
                    f"the answer does not fit the Avro schema ({type(error).__name__}: {error})"
                ) from error
            stops.append(out.tell())
            row += count
        data = out.getvalue()
        return [data[start:stop] for start, stop in pairwise(stops)]

    def _fitting(self, values: Mapping[str, np.ndarray]) -> tuple[Any, bool, bytes]:
        """The schema, whether it is a record, and what goes before each datum."""
        kinds = tuple((name, "U" if a.dtype.kind == "U" else a.dtype.name, a.ndim) for name, a in values.items())
        if kinds not in self._made:
            schema = derived(values) if self._schema is None else self._schema
            record = check_outputs(schema, values)
            head = FRAMING.pack(0, self._registry.id_of(self._subject, schema)) if self._registry else b""
            self._made[kinds] = parsed([schema]), record, head
        return self._made[kinds]


def _registry(config: AvroCodecConfig, folder: Path) -> SchemaRegistry | None:
    """Raises ConfigError where keys do not fit each other, or the password's file cannot be read."""
    where, password, file = "codec 'avro' registry_password", config.registry_password, config.registry_password_file
    if config.registry is None:
        given = [k for k in ("registry_user", "registry_password", "registry_password_file") if getattr(config, k)]
        if given:
            raise ConfigError(
                f"codec 'avro' {given[0]}: is for a registry, which is not given; give it, or take {given[0]} out"
            )
        return None
    if password is not None and file is not None:
        raise ConfigError(f"{where}, registry_password_file: both are given; take one out")
    if file is not None:
        password = secret_file(folder / Path(file).expanduser(), f"{where}_file")
    if (password is None) != (config.registry_user is None):
        raise ConfigError(f"{where}, registry_user: one is given without the other; give both, or none")
    return SchemaRegistry(config.registry, config.registry_user, password)


def _subject(config: AvroCodecConfig, topic: str | None) -> str:
    """What schemas are registered under. Raises ConfigError."""
    if config.subject and not config.registry:
        raise ConfigError("[sink.codec] subject: is for a registry, which is not given; give it, or take subject out")
    subject = config.subject or (f"{topic}-value" if topic else "")
    if config.registry and not subject:
        raise ConfigError("[sink.codec] registry: there is no topic to name the schema after; give subject")
    return subject
