"""Real Kafka brokers for the tests, from $KAFKA_HOME/bin alone: one node or three, on loopback, each ended by its own process id.

A node is broker and controller in one (KRaft). Its folder outlives it, so that it starts again with everything it had.
"""

import asyncio
import atexit
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

PORTS = range(21000, 22000)  # below the ports that the system lends to clients, so nobody takes a stopped broker's
READY_S, STOP_S = 60, 30
HEAP = "-Xmx256m -Xms256m"
CLUSTER_ID = "UndertowTestCluster0g"
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None)
_parent = ThreadPoolExecutor(
    1
)  # a parent's death is that of the thread that started the child: this one lasts as long as the process

SETTINGS = """
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
"""


class Node:
    """One broker: its folder, its ports and, while it runs, its process."""

    def __init__(self, folder: Path, id: int, port: int, controller: int):
        self.folder, self.id, self.port, self.controller = folder, id, port, controller
        self.process: subprocess.Popen[bytes] | None = None

    def format(self, home: Path, voters: str, count: int) -> subprocess.Popen[bytes]:
        """Begins to write the settings and the empty log; the caller waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        copies, in_sync = min(count, 3), 2 if count > 1 else 1
        text = SETTINGS.format(voters=voters, copies=copies, in_sync=in_sync, **vars(self))
        (self.folder / "server.properties").write_text(text)
        command = [home / "bin" / "kafka-storage.sh", "format", "--cluster-id", CLUSTER_ID]
        return self._spawn([*command, "--config", self.folder / "server.properties"], "format.log")

    def start(self, home: Path) -> None:
        self.process = self._spawn(
            [home / "bin" / "kafka-server-start.sh", self.folder / "server.properties"], "broker.log"
        )

    def _spawn(self, command: list[Path | str], log: str) -> subprocess.Popen[bytes]:
        environ = os.environ | {"KAFKA_HEAP_OPTS": HEAP, "LOG_DIR": str(self.folder)}
        with (self.folder / log).open("ab") as out:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, "preexec_fn": die_with_parent}
            return _parent.submit(subprocess.Popen, command, env=environ, **options).result()

    def end(self, number: signal.Signals) -> None:
        """Ends the process by `number` and waits; SIGKILL after STOP_S."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def log_tail(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")[-3000:]


class Cluster:
    """`nodes` brokers in `folder`, started. Nodes are named by their place, from 0."""

    def __init__(self, home: Path, folder: Path, nodes: int = 1):
        self.home = home
        ports = free_ports(2 * nodes)
        self.nodes = [Node(folder / f"node{i}", i + 1, ports[2 * i], ports[2 * i + 1]) for i in range(nodes)]
        voters = ",".join(f"{n.id}@127.0.0.1:{n.controller}" for n in self.nodes)
        for node, formatting in [(n, n.format(home, voters, nodes)) for n in self.nodes]:
            if formatting.wait(READY_S):
                raise RuntimeError(f"kafka-storage.sh format failed: {(node.folder / 'format.log').read_text()}")
        atexit.register(self.close)
        self.start(*range(nodes))

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{n.port}" for n in self.nodes)

    def start(self, *which: int) -> None:
        """Starts nodes that are stopped and returns once all that run serve as one cluster."""
        for i in which:
            self.nodes[i].start(self.home)
        self.wait_ready()

    def stop(self, *which: int) -> None:
        """In order (SIGTERM): leaders move away first."""
        for i in which:
            self.nodes[i].end(signal.SIGTERM)

    def kill(self, *which: int) -> None:
        """kill -9."""
        for i in which:
            self.nodes[i].end(signal.SIGKILL)

    def restart(self, *which: int) -> None:
        """kill -9, then started again on the same folder."""
        self.kill(*which)
        self.start(*which)

    def pause(self, i: int) -> None:
        self._running(i).send_signal(signal.SIGSTOP)

    def resume(self, i: int) -> None:
        self._running(i).send_signal(signal.SIGCONT)

    def _running(self, i: int) -> subprocess.Popen[bytes]:
        process = self.nodes[i].process
        if process is None:
            raise RuntimeError(f"broker {i} does not run")
        return process

    def wait_ready(self) -> None:
        """Until every node that runs serves clients and knows of all that run."""
        running = [n for n in self.nodes if n.process is not None]
        deadline = time.monotonic() + READY_S
        for node in running:
            while not (_listens(node.port) and asyncio.run(brokers_at(node.port)) >= {n.id for n in running}):
                if node.process is None or node.process.poll() is not None:
                    raise RuntimeError(f"broker {node.id} ended while it started: {node.log_tail()}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"broker {node.id} is not ready after {READY_S} s: {node.log_tail()}")
                time.sleep(0.1)

    def close(self) -> None:
        """Ends every node for good."""
        self.kill(*range(len(self.nodes)))
        atexit.unregister(self.close)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def brokers_at(port: int) -> set[int]:
    """Ids of the brokers that the one at `port` knows to be alive; none where it does not answer yet."""
    client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=2000, retry_backoff_ms=50)
    try:
        await client.bootstrap()
        return {b.nodeId for b in client.cluster.brokers()}
    except (KafkaError, OSError, TimeoutError):
        return set()
    finally:
        await client.close()


def free_ports(count: int) -> list[int]:
    """Ports of PORTS on which nobody listens now."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"there are no {count} free ports in {PORTS}")


def die_with_parent() -> None:
    """Of a child, before it runs: it is killed when the thread that started it ends, however that ends."""
    _libc.prctl(_KILL_WITH_PARENT, signal.SIGKILL)
