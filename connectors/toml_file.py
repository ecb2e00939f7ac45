"""A TOML file as a validated struct: `${NAME}` from the environment, and errors that say table, key, got, expected."""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.inspect import (
    CustomType,
    Field,
    FloatType,
    ListType,
    LiteralType,
    StructType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

from ..engine.errors import ConfigError
from .secret import HIDDEN, Secret, as_secret

T = TypeVar("T")
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def read_toml(path: str | os.PathLike[str], kind: type[T], environ: Mapping[str, str]) -> T:
    """The file at `path` as a `kind`. Raises ConfigError, naming the table and the key."""
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a pipeline file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    return parse_toml(text, kind, environ, path.name)


def parse_toml(text: str, kind: type[T], environ: Mapping[str, str], name: str) -> T:
    """TOML text as a `kind`; `name` is what errors call it. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not valid TOML: {error}") from error
    try:
        document = _substituted(document, (), environ)
        _check_keys(document, type_info(kind), ())
        return _converted(document, kind)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _substituted(value: Any, path: tuple[str, ...], environ: Mapping[str, str]) -> Any:
    """The document with `${NAME}` replaced in every string; `$${` stands for `${`."""
    if isinstance(value, dict):
        return {key: _substituted(v, (*path, key), environ) for key, v in value.items()}
    if isinstance(value, list):
        return [_substituted(v, (*path, str(i)), environ) for i, v in enumerate(value)]
    return _VARIABLE.sub(_variable(path, environ), value) if isinstance(value, str) else value


def _variable(path: tuple[str, ...], environ: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        literal, name = found.groups()
        if literal:
            return found[0][1:]
        if name not in environ:
            raise ConfigError(
                f"{_where(path)}: the environment variable '{name}' is not set; set it, or write $${{{name}}} for the text itself"
            )
        return environ[name]

    return replaced


def _check_keys(value: Any, kind: Type, path: tuple[str, ...]) -> None:
    """Refuses keys and types of tables that this version does not know, at any depth."""
    if isinstance(value, list) and isinstance(kind, ListType | VarTupleType):
        for i, item in enumerate(value):
            _check_keys(item, kind.item_type, (*path, str(i)))
    if not isinstance(value, dict):
        return
    struct = _struct(value, kind, path)
    if struct is None:
        return
    known = {f.encode_name: f for f in struct.fields}
    for key, item in value.items():
        if key == struct.tag_field:
            continue
        if key not in known:
            raise ConfigError(_unknown(key, struct, known, path))
        _check_keys(item, known[key].type, (*path, key))
    for key, field in known.items():
        if field.required and key not in value:
            table = field.type if isinstance(field.type, StructType | UnionType) else None
            what = f"table {_table((*path, key))}" if table else f"key '{key}'"
            raise ConfigError(f"{_table(path)} has no {what}; add it")


def _struct(value: dict[str, Any], kind: Type, path: tuple[str, ...]) -> StructType | None:
    """The struct that this table has to fit: of several, the one that its tag names."""
    choices = [t for t in (kind.types if isinstance(kind, UnionType) else (kind,)) if isinstance(t, StructType)]
    if not choices or choices[0].tag_field is None:
        return choices[0] if choices else None
    field, tags = choices[0].tag_field, {c.tag: c for c in choices}
    names = ", ".join(sorted(map(str, tags)))
    if field not in value:
        raise ConfigError(f"{_table(path)} has no key '{field}'; add it; this version knows: {names}")
    if value[field] not in tags:
        raise ConfigError(
            f"{_table(path)} {field} = {value[field]!r} is not known; this version knows: {names}{_near(value[field], map(str, tags))}"
        )
    return tags[value[field]]


def _unknown(key: str, struct: StructType, known: Mapping[str, Field], path: tuple[str, ...]) -> str:
    names = [*([struct.tag_field] if struct.tag_field else []), *known]
    where = f"{_table(path)} " if path else ""
    return f"{where}unknown key '{key}'; expected one of: {', '.join(names)}{_near(key, names)}"


def _near(got: object, names: Iterator[str] | list[str]) -> str:
    close = difflib.get_close_matches(str(got), list(names), 1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _converted(document: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind, dec_hook=as_secret)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        what, dotted = (found["what"], found["path"] or "") if found else (str(error), "")
        path = tuple(re.findall(r"[^.\[\]]+", dotted))
        got: Any = document
        for key in path:
            got = got[int(key)] if isinstance(got, list) else got.get(key)
        words = f"; expected one of: {_words(document, type_info(kind), path)}" if "enum" in what else ""
        shown = _shown(got, path, type_info(kind))
        raise ConfigError(f"{_where(path)} is {shown}: {what[:1].lower()}{what[1:]}{words}") from error


def _words(value: Any, kind: Type, path: tuple[str, ...]) -> str:
    """What a key that takes fixed words, or those and a number, takes."""
    for i, key in enumerate(path):
        struct = _struct(value, kind, path[:i])
        assert struct is not None
        kind, value = next(f.type for f in struct.fields if f.encode_name == key), value[key]
    kinds = kind.types if isinstance(kind, UnionType) else (kind,)
    words = [str(word) for k in kinds if isinstance(k, LiteralType) for word in k.values]
    return ", ".join([*words, "a number"] if any(isinstance(k, FloatType) for k in kinds) else words)


def _shown(got: Any, path: tuple[str, ...], kind: Type) -> str:
    """What was got, without the secrets in it. They are known by their keys, so one in a wrong place is hidden too."""
    found = list(_secrets(kind))
    keys = {key for _, key in found}
    if keys & set(path):
        return HIDDEN
    if path and path[-1] in {table for table, _ in found} and not isinstance(got, dict):
        return f"a {type(got).__name__}"
    return repr(_without(got, keys))


def _without(got: Any, keys: set[str]) -> Any:
    if isinstance(got, dict):
        return {k: Secret(v) if k in keys else _without(v, keys) for k, v in got.items()}
    return [_without(item, keys) for item in got] if isinstance(got, list) else got


def _secrets(kind: Type, table: str = "") -> Iterator[tuple[str, str]]:
    """Of every secret at any depth the key of its table, and its own."""
    for part in kind.types if isinstance(kind, UnionType) else (kind,):
        if isinstance(part, CustomType) and part.cls is Secret:
            yield "", table
        for field in part.fields if isinstance(part, StructType) else ():
            yield from ((at or table, key) for at, key in _secrets(field.type, field.encode_name))


def _where(path: tuple[str, ...]) -> str:
    """`[model] threads`, `[source.codec] type`, or the bare name of a key at the top."""
    return f"{_table(path[:-1])} {path[-1]}" if len(path) > 1 else path[-1] if path else "the document"


def _table(path: tuple[str, ...]) -> str:
    return f"[{'.'.join(path)}]" if path else "the file"
