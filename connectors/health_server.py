"""The HTTP server of `[metrics]`: `/metrics`, `/healthz` and `/readyz`, in threads of its own."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6

import msgspec
from prometheus_client.exposition import choose_encoder

from ..engine.errors import ConnectorError
from .addresses import host_and_port
from .config import MetricsConfig
from .health import Health, Verdict
from .metrics import Metrics

log = logging.getLogger("undertow.metrics")
REQUEST_S = 5  # that a client has to say what it wants


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True  # the connections of a process that has ended do not keep the next one from its port

    def __init__(self, address: tuple[str, int], metrics: Metrics, health: Health):
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        self.metrics, self.health = metrics, health
        super().__init__(address, _Answers)


class _Answers(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] (of this server alone)
    timeout = REQUEST_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            self._send(200, kind, encode(self.server.metrics.registry))
        elif path == "/healthz":
            self._verdict(self.server.health.alive())
        elif path == "/readyz":
            self._verdict(self.server.health.ready())
        else:
            self._send(404, "text/plain; charset=utf-8", b"there are /metrics, /healthz and /readyz\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _verdict(self, verdict: Verdict) -> None:
        body = msgspec.json.encode({"pipeline": self.server.metrics.pipeline, **verdict.facts}) + b"\n"
        self._send(200 if verdict.good else 503, "application/json", body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are of no interest, but for someone who looks for them."""
        log.debug("request", extra={"client": self.client_address[0], "request": format % args})


@contextmanager
def serving(config: MetricsConfig | None, metrics: Metrics, health: Health) -> Iterator[tuple[str, int] | None]:
    """Answers while the block runs; gives the address, whose port is a free one where 0 was asked for.

    Without a config nothing listens. Raises ConnectorError where the address cannot be had.
    """
    if config is None:
        yield None
        return
    try:
        server = _Server(host_and_port(config.address), metrics, health)
    except OSError as error:
        raise ConnectorError(
            f"[metrics] address {config.address!r}: cannot listen there ({error.strerror or error}); "
            "free it, or give another address or port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="undertow-metrics", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        log.info("metrics and health", extra={"url": f"http://{f'[{host}]' if ':' in str(host) else host}:{port}"})
        yield str(host), int(port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
