"""Tokens of OAUTHBEARER: from a file that somebody renews, or from an authorisation server by client credentials (RFC 6749, 4.4)."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError

from ...engine.errors import ConfigError
from ..secret import Secret, secret_file

ANSWER_BYTES = 2**20
TIMEOUT_S = 10.0


class NoRedirect(HTTPRedirectHandler):
    """Who is sent elsewhere is refused: the secret would go along."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class FileToken(AbstractTokenProvider):
    """What the file holds when a connection is made."""

    def __init__(self, path: Path):
        self.path = path

    async def token(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (declared to give None)
        try:
            return secret_file(self.path, "token_file").reveal()
        except ConfigError as error:
            raise AuthenticationFailedError(str(error)) from error


class FetchedToken(AbstractTokenProvider):
    """A token of `url`, kept for four fifths of its life. clock: seconds."""

    def __init__(
        self, url: str, client_id: str, secret: Secret, scope: str | None, clock: Callable[[], float] = time.monotonic
    ):
        self._url, self._client_id, self._secret, self._scope, self._clock = url, client_id, secret, scope, clock
        self._token, self._until = "", 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (declared to give None)
        """Raises AuthenticationFailedError, which aiokafka takes for a refused connection."""
        async with self._lock:
            if not self._token or self._clock() >= self._until:
                asked = self._clock()
                self._token, life_s = await asyncio.to_thread(self._fetch)
                self._until = asked + 0.8 * life_s
            return self._token

    def _fetch(self) -> tuple[str, float]:
        fields = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        user = f"{quote_plus(self._client_id)}:" + quote_plus(self._secret.reveal())
        request = Request(self._url, urlencode(fields).encode(), method="POST")
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
        request.add_header("Accept", "application/json")
        try:
            with build_opener(NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
                given = json.loads(answer.read(ANSWER_BYTES))
            return str(given["access_token"]), float(given.get("expires_in", 0))
        except HTTPError as error:
            with error:
                raise self._refused(f"{error.code} {_why(error.read(ANSWER_BYTES)) or error.reason}") from None
        except OSError as error:
            raise self._refused(str(getattr(error, "reason", error))) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._refused("its answer is no JSON object with an access_token") from None

    def _refused(self, why: str) -> AuthenticationFailedError:
        return AuthenticationFailedError(f"no token from {self._url}: {why}")


def _why(body: bytes) -> str:
    """What the server says of its refusal. Nothing else of its answer is shown: it may repeat what it was sent."""
    try:
        given = json.loads(body)
        return ", ".join(str(given[name]) for name in ("error", "error_description") if name in given)
    except (ValueError, TypeError):
        return ""
