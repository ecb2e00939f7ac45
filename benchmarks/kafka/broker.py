"""A real broker for a benchmark: started from $KAFKA_HOME on loopback, with data in a folder that goes with it."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

CLUSTER = "UndertowBenchCluster0g"
START_S, STOP_S = 60.0, 20.0

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""


class Broker:
    """`async with Broker(port) as broker`: ready inside, ended and its folder removed after. port 0: any two free ones."""

    def __init__(self, port: int = 0, heap: str = "1g"):
        self.home, self.heap = kafka_home(), heap
        self.port, self.controller = (port, port + 1) if port else free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="undertow-bench-kafka-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.address)

    async def __aenter__(self) -> "Broker":
        settings = self.folder / "server.properties"
        settings.write_text(SETTINGS.format(port=self.port, controller=self.controller, folder=self.folder))
        environment = {**os.environ, "KAFKA_HEAP_OPTS": f"-Xmx{self.heap} -Xms{self.heap}"}
        form = [self.home / "bin/kafka-storage.sh", "format", "--cluster-id", CLUSTER, "--config", settings]
        subprocess.run(form, env=environment, check=True, stdout=subprocess.DEVNULL)
        with (self.folder / "broker.log").open("wb") as log:
            start = [self.home / "bin/kafka-server-start.sh", settings]
            self.process = subprocess.Popen(
                start, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        await self._ready()
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.admin.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _ready(self) -> None:
        assert self.process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_S
        while not accepts(self.port):
            if self.process.poll() is not None or loop.time() > deadline:
                raise SystemExit(f"the broker did not start:\n{(self.folder / 'broker.log').read_text()}")
            await asyncio.sleep(0.1)
        while True:
            try:
                return await self.admin.start()
            except KafkaError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def make_topic(self, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> None:
        """A fresh topic, with a leader for each of its partitions."""
        await self.admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])
        while True:
            (topic,) = await self.admin.describe_topics([name])
            found = [p for p in topic["partitions"] if p["leader"] >= 0]
            if topic["error_code"] == 0 and len(found) == partitions:
                return
            await asyncio.sleep(0.05)

    def cpu_s(self) -> float:
        """Processor seconds that the broker has taken."""
        assert self.process is not None
        return cpu_s(self.process.pid)

    async def drop_topics(self, names: Sequence[str]) -> None:
        """Removes those that exist: the disk and the broker's memory are there for the next side."""
        there = set(await self.admin.list_topics())
        await self.admin.delete_topics([name for name in names if name in there])

    async def drop_topics_of(self, prefix: str) -> None:
        await self.drop_topics([name for name in await self.admin.list_topics() if name.startswith(prefix)])


def kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if not home or not (Path(home) / "bin/kafka-server-start.sh").exists():
        raise SystemExit(
            f"KAFKA_HOME is {home!r}, expected the folder of an Apache Kafka distribution; set it and try again"
        )
    return Path(home)


def kafka_version() -> str:
    """Of the jars in $KAFKA_HOME."""
    jars = sorted((kafka_home() / "libs").glob("kafka-clients-*.jar"))
    return jars[-1].stem.removeprefix("kafka-clients-") if jars else "of unknown version"


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = tuple(s.getsockname()[1] for s in sockets)
    for s in sockets:
        s.close()
    return ports


def accepts(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0
