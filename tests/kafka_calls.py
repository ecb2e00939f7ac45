"""Calls on the broker of the tests: a listener's settings, a started admin client, a topic, what a topic holds."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from undertow.connectors.kafka import topics
from undertow.connectors.kafka.clients import admin, reader, start, stop
from undertow.connectors.kafka.config import KafkaSourceConfig, SecurityConfig
from undertow.connectors.kafka.security import kafka_settings
from undertow.connectors.secret import Secret

from .kafka_secure import USERS, Secure

WHERE = "Kafka at the test's"


def security(protocol: str, mechanism: str | None = None, user: str = "alice", word: str | None = None, **more: Any):
    """Of a listener: its authority where it speaks TLS, the client's certificate where it asks for one."""
    if protocol.endswith("SSL"):
        more = {"ca_file": "ca.pem", **more}
    if protocol == "SSL":
        more = {"certificate_file": "client.pem", "key_password_file": "key-password", **more}
    if mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        more = {"username": user, "password": Secret(word or USERS[user]), **more}
    return SecurityConfig(protocol=protocol, mechanism=mechanism, **more)


def source(servers: str, secured: SecurityConfig | None = None, **more: Any) -> KafkaSourceConfig:
    return KafkaSourceConfig(bootstrap_servers=servers, topics=("t",), security=secured, **{"request_timeout_s": 10, **more})  # fmt: skip


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def administered(
    config: KafkaSourceConfig, base: Path, do: Callable[[AIOKafkaAdminClient], Awaitable[Any]]
) -> Any:
    """What `do` gives of a started admin client, which is stopped in any case."""
    settings = kafka_settings(config, base)
    client = admin(settings)
    await start(client, settings)
    try:
        return await do(client)
    finally:
        await stop(client)


def on(secure: Secure, do: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
    return run(administered(source(secure.plain), secure.folder, do))


def make(secure: Secure, name: str, partitions: int = 2, **settings: str) -> str:
    """A topic; its settings with `_` for `.`."""

    async def made(client: AIOKafkaAdminClient) -> None:
        configs = {key.replace("_", "."): value for key, value in settings.items()}
        answer = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
        assert [error[1] for error in answer.topic_errors] == [0], answer
        await topics._appears(client, WHERE, name)

    on(secure, made)
    return name


def token(name: str) -> str:
    """A token that the broker takes as it is: unsigned, as its default handler for tests has it."""
    parts = ({"alg": "none"}, {"sub": name, "iat": time.time(), "exp": time.time() + 600})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*coded, ""])


async def read_back(secure: Secure, topic: str, partitions: int, count: int) -> dict[int, list[Any]]:
    config = source(secure.plain)
    settings = kafka_settings(config, secure.folder)
    looker, found = reader(config, settings), {p: [] for p in range(partitions)}
    await start(looker, settings)
    try:
        looker.assign([TopicPartition(topic, p) for p in range(partitions)])
        await looker.seek_to_beginning()
        while sum(map(len, found.values())) < count:
            for tp, some in (await looker.getmany(timeout_ms=200)).items():
                found[tp.partition] += some
        assert not await looker.getmany(timeout_ms=300)
    finally:
        await stop(looker)
    return found
