"""A schema registry by its REST interface (Confluent's; Karapace, Redpanda and Apicurio have it too): schemas by id, and ids of schemas."""

import base64
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from ..engine.errors import CodecError, ConfigError, ConnectorError
from .secret import Secret

TIMEOUT_S, PAUSES_S = 5.0, (0.2, 1.0)
MAX_REPLY_BYTES = 16 * 2**20
T = TypeVar("T")


class Reference(msgspec.Struct):
    subject: str
    version: int


class Found(msgspec.Struct, rename={"kind": "schemaType"}):
    schema: str
    kind: str = "AVRO"
    references: list[Reference] = []


class Registered(msgspec.Struct):
    id: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class SchemaRegistry:
    """Each schema is asked for once, also where there is none of the id. Raises ConfigError."""

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: Secret | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.url, self._headers, self._sleep = _address(url), _headers(user, password), sleep
        self._by_id: dict[int, list[Any] | CodecError] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def schemas(self, id: int) -> list[Any]:
        """The schema of the id, behind those that it refers to. Raises CodecError where there is none; ConnectorError."""
        if id not in self._by_id:
            self._by_id[id] = self._asked(id)
        found = self._by_id[id]
        if isinstance(found, CodecError):
            raise CodecError(str(found))
        return found

    def id_of(self, subject: str, schema: Any) -> int:
        """Registers the schema under the subject, where it is not yet. Raises ConnectorError."""
        text = msgspec.json.encode(schema).decode()
        if (subject, text) not in self._ids:
            body = msgspec.json.encode({"schema": text})
            self._ids[subject, text] = self._call(f"/subjects/{quote(subject, safe='')}/versions", Registered, body).id
        return self._ids[subject, text]

    def _asked(self, id: int) -> list[Any] | CodecError:
        try:
            return self._whole(self._call(f"/schemas/ids/{id}", Found), [])
        except _Absent:
            return CodecError(f"the registry {self.url} has no schema {id}")
        except CodecError as error:
            return CodecError(f"schema {id}: {error}")

    def _whole(self, found: Found, above: list[tuple[str, int]]) -> list[Any]:
        if found.kind != "AVRO":
            raise CodecError(f"the registry {self.url} has it as {found.kind}, expected AVRO")
        schemas = []
        for r in found.references:
            if (r.subject, r.version) in above:
                raise CodecError(f"refers to itself by subject '{r.subject}', version {r.version}")
            under = self._call(f"/subjects/{quote(r.subject, safe='')}/versions/{r.version}", Found)
            schemas += self._whole(under, [*above, (r.subject, r.version)])
        try:
            return [*schemas, msgspec.json.decode(found.schema)]
        except msgspec.DecodeError as error:
            raise CodecError(f"is not JSON ({error})") from error

    def _call(self, path: str, kind: type[T], body: bytes | None = None) -> T:
        for pause_s in (*PAUSES_S, None):
            try:
                return msgspec.json.decode(self._reply(path, body), type=kind)
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(1024).decode(errors="replace")
                if error.code == 404 and body is None:
                    raise _Absent(f"the registry {self.url} has no {path}") from error
                if pause_s is None or not (error.code >= 500 or error.code == 429):
                    raise ConnectorError(f"schema registry {self.url}{path}: HTTP {error.code}: {said}") from error
            except msgspec.DecodeError as error:
                raise ConnectorError(f"schema registry {self.url}{path}: not a registry's reply ({error})") from error
            except (OSError, http.client.HTTPException) as error:
                if pause_s is None:
                    raise ConnectorError(f"schema registry {self.url}{path}: cannot be reached ({error})") from error
            self._sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _reply(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(self.url + path, body, self._headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return reply.read(MAX_REPLY_BYTES)


class _Absent(CodecError):
    """The registry does not know it."""


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment
        wrong = wrong or "@" in parts.netloc or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:  # it may have a password, and is not shown
        raise ConfigError(
            "codec 'avro' registry: is not an address, expected https://host:8081; user and password are keys of their own"
        )
    return url.rstrip("/")


def _headers(user: str | None, password: Secret | None) -> dict[str, str]:
    kind = "application/vnd.schemaregistry.v1+json"
    headers = {"Accept": kind, "Content-Type": kind}
    if user is not None:
        pair = ":".join((user, password or ""))
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers
