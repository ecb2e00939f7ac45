"""The assignor in real consumers, on a real broker: what aiokafka asks of it, and what the group then does."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from undertow.connectors.kafka.assignor import StickyAssignor

HOME = os.environ.get("KAFKA_HOME")
TOPIC, PARTITIONS = "frames", 7
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""
pytestmark = pytest.mark.skipif(HOME is None, reason="KAFKA_HOME is not set: no broker to run this on")


def free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for s in taken:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in taken]
    for s in taken:
        s.close()
    return ports


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that ends with these tests."""
    folder, (port, controller) = tmp_path_factory.mktemp("broker"), free_ports(2)
    properties, scripts = folder / "server.properties", Path(HOME or "") / "bin"
    properties.write_text(PROPERTIES.format(port=port, controller=controller, folder=folder))
    environment = {**os.environ, "KAFKA_HEAP_OPTS": "-Xmx256m", "LOG_DIR": str(folder / "logs")}
    storage = [scripts / "kafka-storage.sh", "format", "--cluster-id", "UndertowTestCluster0g", "--config", properties]
    subprocess.run(storage, env=environment, check=True, capture_output=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [scripts / "kafka-server-start.sh", properties], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_port(process, port, folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"the broker does not answer on port {port}: {log.read_text()[-2000:]}")


@asynccontextmanager
async def consumer(address: str, assignor: StickyAssignor, **options: object) -> AsyncIterator[AIOKafkaConsumer]:
    found = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=address,
        group_id="workers",
        partition_assignment_strategy=[assignor],
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=100,
        **options,
    )
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def settled(assignors: list[StickyAssignor], consumers: list[AIOKafkaConsumer]) -> None:
    """Waits until the workers know of each other, and the consumers have what their assignors say."""
    workers = {a.worker for a in assignors}

    def holds() -> bool:
        return all(a.live == workers for a in assignors) and all(
            {(t, p) for t, p in c.assignment()} == a.owned for a, c in zip(assignors, consumers, strict=True)
        )

    await until(holds, f"the group does not settle: {[(a.live, a.owned) for a in assignors]}")
    owned = sorted(p for a in assignors for p in a.owned)
    assert owned == [(TOPIC, p) for p in range(PARTITIONS)]
    for a in assignors:
        assert len(a.owned) in (PARTITIONS // len(assignors), -(-PARTITIONS // len(assignors)))
        assert not a.owned & a.standbys
    follows = sorted(p for a in assignors for p in a.standbys)
    assert follows == (owned if len(assignors) > 1 else [])


async def join_and_leave(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    await admin.close()
    a, b, c = (StickyAssignor(name, standbys=1) for name in ("worker-a", "worker-b", "worker-c"))
    async with consumer(address, a) as first, consumer(address, b) as second:
        await settled([a, b], [first, second])
        before, follows = {n.worker: set(n.owned) for n in (a, b)}, a.standbys | b.standbys
        assert follows == a.owned | b.owned
        async with consumer(address, c) as third:
            await settled([a, b, c], [first, second, third])
            assert len(c.owned) == 2
            assert a.owned <= before["worker-a"]
            assert b.owned <= before["worker-b"]
            among_three, left = {n.worker: set(n.owned) for n in (a, b)}, {*c.owned}
            followed = {p: {n.worker for n in (a, b) if p in n.standbys} for p in left}
        await settled([a, b], [first, second])
        for n in (a, b):
            assert among_three[n.worker] <= n.owned
            assert {p for p in left if n.worker in followed[p]} <= n.owned
        assert a.round == b.round >= 3


def test_join_and_leave(broker: str) -> None:
    """Three consumers: one that joins takes only its share, and when it leaves each partition goes to its standby."""
    asyncio.run(join_and_leave(broker))
