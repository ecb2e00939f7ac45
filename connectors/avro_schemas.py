"""Avro schemas: read from the pipeline, derived from outputs, and whether outputs fit a given one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..engine.errors import CodecError, ConfigError
from .payloads import kind_of, library

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BY_DTYPE = {"float16": "float", "float32": "float", "float64": "double", "int64": "long", "bool": "boolean"}
_TAKES = {  # what values of an Avro type are there for outputs of a kind
    "f": {"float", "double"},
    "i": {"int", "long"},
    "u": {"int", "long"},
    "b": {"boolean"},
    "U": {"string", "enum"},
}


def given_schema(text: str, folder: Path) -> Any:
    """The schema itself, or the file that has it; as JSON. Raises ConfigError."""
    where = "codec 'avro' schema"
    if text.lstrip()[:1] not in ("{", "[", '"'):
        path = folder / Path(text).expanduser()
        where = f"{where} {path}"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{where}: cannot be read ({error}); give the path of a schema, or the schema itself"
            ) from error
    try:
        schema = msgspec.json.decode(text)
        parsed([schema])
    except (msgspec.DecodeError, CodecError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return schema


def parsed(schemas: list[Any]) -> Any:
    """The last of the schemas, which may name those before it, ready for fastavro. Raises CodecError."""
    known: dict[str, Any] = {}
    found: Any = None
    try:
        for schema in schemas:
            found = library("fastavro", "avro").parse_schema(schema, named_schemas=known)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # fastavro's own are ValueErrors
        raise CodecError(f"is not an Avro schema ({type(error).__name__}: {error})") from error
    _check_widths(found, known, ())
    return found


def _check_widths(schema: Any, known: Mapping[str, Any], above: tuple[str, ...]) -> int:
    """The fewest bytes of a datum. Refuses lists of what takes none: a few bytes could claim any number of them."""
    if isinstance(schema, str):
        if schema in above:
            return 1  # of what contains itself
        return _check_widths(known[schema], known, above) if schema in known else int(schema != "null")
    if isinstance(schema, list):
        return 1 + min([_check_widths(s, known, above) for s in schema], default=0)
    kind = schema["type"]
    if kind in ("array", "map"):
        if not _check_widths(schema["items" if kind == "array" else "values"], known, above) and kind == "array":
            raise CodecError("has an array of what takes no bytes, so its length is not bounded by the payload's")
        return 1
    if kind in ("record", "error"):
        names = (*above, schema["name"])
        return sum(_check_widths(f["type"], known, names) for f in schema["fields"])
    if kind == "fixed":
        return int(schema["size"] > 0)
    return 1 if kind == "enum" else _check_widths(kind, known, above)


def derived(values: Mapping[str, np.ndarray]) -> Any:
    """A record of the outputs by name, each an array of its rows. Raises CodecError."""
    bad = [name for name in values if not _NAME.fullmatch(name)]
    if bad:
        raise CodecError(
            f"output '{bad[0]}' is no Avro name (letters, digits and _); export the model with another one"
        )
    fields = []
    for name, array in values.items():
        if array.dtype == object:
            raise CodecError(f"output '{name}' is {kind_of(array)}, expected numbers or text; use json or msgpack")
        kind: Any = "string" if array.dtype.kind == "U" else _BY_DTYPE.get(array.dtype.name, "int")
        for _ in array.shape:
            kind = {"type": "array", "items": kind}
        fields.append({"name": name, "type": kind})
    return {"type": "record", "name": "Outputs", "namespace": "undertow", "fields": fields}


def check_outputs(schema: Any, values: Mapping[str, np.ndarray]) -> bool:
    """Whether the schema is a record of the outputs, else it is the array of a single one. Raises CodecError where they do not fit."""
    record = isinstance(schema, dict) and schema["type"] == "record"
    kinds = {f["name"]: f["type"] for f in schema["fields"]} if record else dict.fromkeys(list(values)[:1], schema)
    for name, array in values.items():
        if name not in kinds:
            raise CodecError(f"the Avro schema has no field for output '{name}', it has {sorted(kinds)}; add it")
        have, shape = _lists(kinds[name]), f"arrays {array.ndim} deep"
        if not any(depth == array.ndim and kind in _TAKES.get(array.dtype.kind, set()) for depth, kind in have):
            said = " or ".join(f"{kind} in arrays {depth} deep" for depth, kind in have)
            raise CodecError(f"the Avro schema has {said} for output '{name}', which is {kind_of(array)} in {shape}")
    return record


def _lists(schema: Any, depth: int = 0) -> list[tuple[int, str]]:
    """Of each branch of a type: how many arrays deep it is, and of what."""
    if isinstance(schema, list):
        return [found for branch in schema for found in _lists(branch, depth)]
    if isinstance(schema, dict):
        return _lists(schema["items"], depth + 1) if schema["type"] == "array" else _lists(schema["type"], depth)
    return [(depth, schema)]
