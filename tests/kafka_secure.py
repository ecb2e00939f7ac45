"""A real broker that asks who one is: listeners in the clear, with SASL, with TLS and with both, and access control.

From $KAFKA_HOME/bin, so that any download of Kafka does. Certificates by `openssl`, which every Kafka machine has.
"""

import atexit
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

HOME = os.environ.get("KAFKA_HOME")
CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
PASSWORD = "alice-hunter2-secret"
SESSION_MS = 1000  # of a connection with a token
USERS = {"alice": PASSWORD, "mallory": "mallory-secret"}  # mallory may do nothing


@dataclass(frozen=True)
class Secure:
    """Addresses of the listeners, and the folder with ca.pem, client.pem (certificate and encrypted key) and key-password."""

    plain: str
    sasl: str
    tls: str
    sasl_tls: str
    folder: Path
    process: subprocess.Popen[bytes]


def needs() -> str | None:
    """Why no broker can be started here."""
    if not HOME:
        return "KAFKA_HOME is not set: no broker to start"
    return None if which("openssl") else "openssl is not installed: no certificates to make"


@contextmanager
def secure_broker(folder: Path) -> Iterator[Secure]:
    if (why := needs()) is not None:
        pytest.skip(why)
    _certificates(folder)
    ports = _free_ports(5)
    properties = folder / "server.properties"
    properties.write_text(_properties(folder, ports))
    users = [part for name, word in USERS.items() for kind in ("256", "512") for part in ("--add-scram", f"SCRAM-SHA-{kind}=[name={name},password={word}]")]  # fmt: skip
    environment = os.environ | {
        "KAFKA_HEAP_OPTS": "-Xmx256m -Xms256m",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # starts in half the time
        "LOG_DIR": str(folder / "logs"),
    }
    format_command = [f"{HOME}/bin/kafka-storage.sh", "format", "--cluster-id", "UndertowTestCluster0g", *users]
    done = subprocess.run(
        [*format_command, "--config", properties], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            [f"{HOME}/bin/kafka-server-start.sh", properties], env=environment, stdout=log, stderr=log
        )
    atexit.register(process.kill)
    try:
        _wait(process, ports, folder / "broker.log")
        yield Secure(*(f"localhost:{port}" for port in ports[:4]), folder, process)
    finally:
        process.kill()
        process.wait()
        atexit.unregister(process.kill)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for tried in sockets:
            tried.bind(("127.0.0.1", 0))
        return [tried.getsockname()[1] for tried in sockets]


def _wait(process: subprocess.Popen[bytes], ports: list[int], log: Path) -> None:
    deadline = time.monotonic() + 60
    for port in ports[:4]:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)


def _properties(folder: Path, ports: list[int]) -> str:
    controller = ports[4]
    names = dict(zip(("PLAIN", "SASL", "TLS", "STLS"), ports, strict=False))
    addresses = ",".join(f"{name}://localhost:{port}" for name, port in names.items())
    users = " ".join(f'user_{name}="{word}"' for name, word in USERS.items())
    lines = [
        "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@localhost:{controller}",
        "controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAIN",
        f"listeners={addresses},CONTROLLER://localhost:{controller}", f"advertised.listeners={addresses}",
        "listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,STLS:SASL_SSL",
        f"log.dirs={folder / 'data'}", "num.partitions=1", "auto.create.topics.enable=true",
        "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=4",
        "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
        "transaction.state.log.num.partitions=4", "group.initial.rebalance.delay.ms=0",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS;User:alice;User:CN=client",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "ssl.keystore.type=PEM", f"ssl.keystore.location={folder / 'server.pem'}",
        "ssl.truststore.type=PEM", f"ssl.truststore.location={folder / 'ca.pem'}",
        "listener.name.tls.ssl.client.auth=required",
    ]  # fmt: skip
    package = "org.apache.kafka.common.security"
    for name in ("sasl", "stls"):
        at = f"listener.name.{name}"
        lines += [f"{at}.plain.sasl.jaas.config={package}.plain.PlainLoginModule required {users};"]
        lines += [f"{at}.scram-sha-{kind}.sasl.jaas.config={package}.scram.ScramLoginModule required;" for kind in ("256", "512")]  # fmt: skip
        lines += [f'{at}.oauthbearer.sasl.jaas.config={package}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";']  # fmt: skip
    lines += [f"listener.name.sasl.oauthbearer.connections.max.reauth.ms={SESSION_MS}"]
    return "\n".join(lines) + "\n"


def _certificates(folder: Path) -> None:
    """An authority of our own, a broker's certificate for localhost, a client's with an encrypted key."""
    _openssl(folder, "req", "-x509", "-newkey", *CURVE, "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    (folder / "key-password").write_text("key-hunter2-secret\n")
    for name, hidden in (("server", False), ("client", True)):
        _openssl(folder, "req", "-newkey", *CURVE, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "names")  # fmt: skip
        if hidden:
            _openssl(folder, "pkcs8", "-topk8", "-in", f"{name}.key", "-out", f"{name}.p8", "-passout", "file:key-password")  # fmt: skip
        key = (folder / (f"{name}.p8" if hidden else f"{name}.key")).read_text()
        (folder / f"{name}.pem").write_text(key + (folder / f"{name}.crt").read_text())


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
