"""A schema registry on loopback, as small as it can be: what the real one says to the requests that are made of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


class Registry:
    """schemas: the bodies of replies, by path. failures: statuses that the next requests get. asked: method, path and user of each."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {}
        self.failures: list[int] = []
        self.asked: list[tuple[str, str, str | None]] = []
        self.registered: list[tuple[str, Any]] = []
        self.host = ""

    def add(self, id: int, schema: Any, **more: Any) -> None:
        self.replies[f"/schemas/ids/{id}"] = {"schema": msgspec.json.encode(schema).decode(), **more}

    def reply(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.failures:
            return self.failures.pop(0), {"error_code": 1, "message": "told to fail"}
        if method == "POST":
            schema = msgspec.json.decode(msgspec.json.decode(body)["schema"])
            if (path, schema) not in self.registered:
                self.registered.append((path, schema))
            id = 100 + self.registered.index((path, schema))
            self.add(id, schema)
            return 200, {"id": id}
        return (200, self.replies[path]) if path in self.replies else (404, {"error_code": 40403, "message": "no such"})


@contextmanager
def running() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            registry.asked.append((self.command, self.path, self.headers.get("Authorization")))
            status, said = registry.reply(self.command, self.path, body)
            data = said if isinstance(said, bytes) else msgspec.json.encode(said)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
