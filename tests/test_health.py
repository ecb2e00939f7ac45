"""Health: the answers over real HTTP, through a pipeline's life and where it hangs."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import undertow as ut
from undertow.connectors.addresses import host_and_port
from undertow.connectors.config import MetricsConfig
from undertow.connectors.health import Health
from undertow.connectors.health_server import serving
from undertow.connectors.memory import MemorySink, MemorySource
from undertow.connectors.metrics import Metrics
from undertow.connectors.records import Record
from undertow.connectors.running import run

from .pipelines import cut, pipeline, streams

ANY = "127.0.0.1:0"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(address: tuple[str, int], path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def verdict(address: tuple[str, int], path: str) -> tuple[int, dict[str, object]]:
    status, kind, body = ask(address, path)
    assert kind == "application/json"
    return status, json.loads(body)


@pytest.fixture
def served() -> Iterator[tuple[tuple[str, int], Health, Clock, Metrics]]:
    clock = Clock()
    health, metrics = Health(10, 60, clock), Metrics("test")
    with serving(MetricsConfig(address=ANY), metrics, health) as address:
        assert address is not None
        yield address, health, clock, metrics


def test_a_life(served: tuple[tuple[str, int], Health, Clock, Metrics]) -> None:
    """Alive from the beginning, ready once it runs, not ready while it restores or stops, and each says why."""
    address, health, clock, _ = served
    clock.now += 500  # the model takes its time
    assert verdict(address, "/healthz") == (
        200,
        {"pipeline": "test", "alive": True, "state": "starting", "state_s": 500},
    )
    status, facts = verdict(address, "/readyz")
    assert (status, facts["ready"], facts["reason"]) == (503, False, "the pipeline is starting")
    health.beat()
    health.state("restoring", {"t/0": 0.25, "t/1": 1.0})
    clock.now += 2
    status, facts = verdict(address, "/readyz")
    assert (status, facts["reason"], facts["detail"]) == (503, "the pipeline is restoring", {"t/0": 0.25, "t/1": 1.0})
    assert verdict(address, "/healthz")[0] == 200
    health.state("running")
    status, facts = verdict(address, "/readyz")
    assert (status, facts) == (
        200,
        {"pipeline": "test", "ready": True, "state": "running", "state_s": 0, "uncommitted_s": 0},
    )
    health.state("stopping", {"signal": "SIGTERM"})
    health.state("running")
    status, facts = verdict(address, "/readyz")
    assert (status, facts["reason"], facts["detail"]) == (503, "the pipeline is stopping", {"signal": "SIGTERM"})


def test_a_loop_that_hangs(served: tuple[tuple[str, int], Health, Clock, Metrics]) -> None:
    """Without a beat for longer than the limit it is neither alive nor ready, in any state; the next beat mends it."""
    address, health, clock, _ = served
    health.beat()
    health.state("running")
    clock.now += 10
    assert verdict(address, "/healthz")[0] == verdict(address, "/readyz")[0] == 200
    clock.now += 0.5
    reason = "the loop has not turned for 10.5 s, expected at most 10 s"
    for path, name in (("/healthz", "alive"), ("/readyz", "ready")):
        status, facts = verdict(address, path)
        assert (status, facts[name], facts["reason"]) == (503, False, reason)
    health.beat()
    assert verdict(address, "/healthz")[0] == verdict(address, "/readyz")[0] == 200


def test_records_that_wait_for_their_commit(served: tuple[tuple[str, int], Health, Clock, Metrics]) -> None:
    """What was taken has to be committed in time, counted from the first record; an idle pipeline has nothing to commit."""
    address, health, clock, _ = served
    health.state("running")

    def beat_after(seconds: float) -> int:
        clock.now += seconds
        health.beat()
        return verdict(address, "/readyz")[0]

    assert beat_after(1000) == 200
    health.taken()
    assert beat_after(40) == 200
    health.taken()
    assert beat_after(21) == 503
    reason = "records that were taken 61.0 s ago are not committed, expected within 60 s"
    assert verdict(address, "/readyz")[1]["reason"] == reason
    assert verdict(address, "/healthz")[0] == 200
    health.committed()
    assert beat_after(1000) == 200


def test_metrics_over_http(served: tuple[tuple[str, int], Health, Clock, Metrics]) -> None:
    """`/metrics` is Prometheus's text, OpenMetrics for whoever asks for it; other paths and methods are refused."""
    address, _, _, metrics = served
    metrics.polled(7, 9)
    status, kind, body = ask(address, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert 'undertow_records_total{pipeline="test"} 7.0' in body
    status, kind, body = ask(address, "/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")
    assert ask(address, "/")[0] == 404
    assert ask(address, "/readyz", "POST")[0] == 501
    assert ask(address, "/healthz", "HEAD") == (200, "application/json", "")


def test_a_slow_client_keeps_nobody_out(served: tuple[tuple[str, int], Health, Clock, Metrics]) -> None:
    """Connections that say nothing do not keep others from their answer."""
    address = served[0]
    silent = [socket.create_connection(address) for _ in range(20)]
    try:
        assert verdict(address, "/healthz")[0] == 200
    finally:
        for s in silent:
            s.close()


def test_the_port_is_free_again() -> None:
    """A server that has ended leaves nothing behind: its port can be had at once, and its threads are gone."""
    with serving(MetricsConfig(address=ANY), Metrics("test"), Health()) as address:
        assert address is not None
        assert verdict(address, "/healthz")[0] == 200
    with serving(MetricsConfig(address=f"127.0.0.1:{address[1]}"), Metrics("test"), Health()) as again:
        assert again == address
    assert not [t for t in threading.enumerate() if t.name == "undertow-metrics"]
    with serving(None, Metrics("test"), Health()) as none:
        assert none is None


def test_a_port_in_use() -> None:
    """An address that cannot be had is an error that says which, why and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(
                ut.ConnectorError,
                match=rf"address '{address}': cannot listen there \(Address already in use\); free it",
            ),
            serving(MetricsConfig(address=address), Metrics("test"), Health()),
        ):
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("host:1", ("host", 1)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """Names, IPv4 and IPv6 in brackets."""
    assert host_and_port(text) == expected


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "::1:9464", "[::1]", "localhost:", "localhost:70000", "a b:1", "h:-1"]
)
def test_addresses_that_are_none(text: str) -> None:
    """What is no address is refused with what is."""
    with pytest.raises(ut.ConfigError, match=r"expected host:port, as in '127\.0\.0\.1:9464'"):
        host_and_port(text)


def test_ipv6() -> None:
    """An address in brackets is listened on as IPv6, where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with serving(MetricsConfig(address="[::1]:0"), Metrics("test"), Health()) as address:
        assert address is not None
        assert verdict(address, "/healthz")[0] == 200


class Slowly(MemorySource):
    """Looks at the pipeline's own server between two polls."""

    def __init__(self, records: list[Record], port: int):
        super().__init__(records)
        self.port, self.looks = port, []

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        time.sleep(0.05)
        self.looks.append(
            (verdict(("127.0.0.1", self.port), "/readyz"), verdict(("127.0.0.1", self.port), "/healthz")[0])
        )
        time.sleep(0.3)
        return list(await super().poll(10, timeout_s))


def test_a_pipeline_with_metrics(tmp_path) -> None:
    """A run answers on its address: not ready before the first batch, ready after, counts that grow, and nothing at its end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    placed = pipeline(tmp_path, tables=f'[metrics]\naddress = "127.0.0.1:{port}"\n')
    records = cut(streams(1, ["a", "b", "c"], longest=120), seed=1)[:35]
    source = Slowly(records, port)
    texts = []

    def told(_: object) -> None:
        texts.append(ask(("127.0.0.1", port), "/metrics")[2])

    summary = run(placed, source=source, sink=MemorySink(), told=told)
    (first, alive), *rest = source.looks
    assert (first[0], first[1]["reason"], alive) == (503, "the pipeline is restoring", 200)
    assert {(ready[0], alive) for ready, alive in rest} == {(200, 200)}
    assert f'undertow_records_total{{pipeline="test"}} {float(summary.records)}' in texts[-1]
    assert f'undertow_frames_total{{pipeline="test"}} {float(summary.frames)}' in texts[-1]
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", port), "/metrics")
