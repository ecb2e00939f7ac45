"""Every way into a real broker, and what is said where there is none."""

import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from undertow import ConnectorError
from undertow.connectors.kafka import topics
from undertow.connectors.kafka.clients import admin, consumer, producer, reader, start, stop
from undertow.connectors.kafka.failures import told
from undertow.connectors.kafka.offsets import committed
from undertow.connectors.kafka.security import kafka_settings
from undertow.connectors.secret import Secret

from .kafka_calls import WHERE, administered, make, run, security, source, token
from .kafka_secure import PASSWORD, Secure

WAYS = [
    ("plain", "PLAINTEXT", None), ("sasl", "SASL_PLAINTEXT", "PLAIN"), ("sasl", "SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ("sasl_tls", "SASL_SSL", "SCRAM-SHA-512"), ("tls", "SSL", None), ("sasl", "SASL_PLAINTEXT", "OAUTHBEARER"),
]  # fmt: skip


@pytest.mark.parametrize(("listener", "protocol", "mechanism"), WAYS)
def test_every_way_in(
    secure: Secure, listener: str, protocol: str, mechanism: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Admin, transactional producer and reader get through each kind of listener; even a log at DEBUG shows no password or token."""
    more = {"token_file": str(secure.folder / "token")} if mechanism == "OAUTHBEARER" else {}
    (secure.folder / "token").write_text(token("alice"))
    config = source(getattr(secure, listener), security(protocol, mechanism, **more))
    settings = kafka_settings(config, secure.folder)
    name = make(secure, f"way-{protocol}-{mechanism}", 1)

    async def through() -> list[bytes]:
        assert await administered(config, secure.folder, lambda c: topics.partition_counts(c, WHERE, [name])) == {
            name: 1
        }
        writer, looker = producer(settings, "zstd", 2**20, f"id-{name}"), reader(config, settings)
        try:
            await start(writer, settings)
            async with writer.transaction():
                await writer.send_and_wait(name, b"value")
            await start(looker, settings)
            looker.assign([TopicPartition(name, 0)])
            await looker.seek_to_beginning()
            return [(await looker.getone()).value]
        finally:
            await stop(writer)
            await stop(looker)

    with caplog.at_level(logging.DEBUG, "aiokafka"):
        assert run(through()) == [b"value"]
    assert "Request to" in caplog.text
    for secret in (PASSWORD, "hunter2", token("alice")[:60]):
        assert secret not in caplog.text
        assert secret not in str(settings)


@pytest.mark.parametrize(
    ("listener", "protocol", "mechanism", "more", "message"),
    [
        ("sasl", "SASL_PLAINTEXT", "PLAIN", {"word": "wrong"}, "authentication failed; .*Invalid username or password"),
        ("sasl", "SASL_PLAINTEXT", "SCRAM-SHA-256", {"word": "wrong"}, "authentication failed; .*invalid credentials"),
        ("sasl", "SASL_PLAINTEXT", "OAUTHBEARER", {"token_file": "key-password"}, "authentication failed; "),
        ("sasl", "SASL_PLAINTEXT", "OAUTHBEARER", {"token_url": "http://127.0.0.1:1/t", "client_id": "c", "client_secret": Secret("s")}, "authentication failed; .*no token from http://127.0.0.1:1/t: .*refused"),
        ("sasl", "PLAINTEXT", None, {}, "the connection was closed; is .* protocol that of this port"),
        ("tls", "PLAINTEXT", None, {}, "the connection was closed; is .* protocol that of this port"),
        ("tls", "SSL", None, {"certificate_file": None, "key_password_file": None}, "closed; .* does it ask for a certificate_file|TLS handshake failed"),
        ("tls", "SSL", None, {"ca_file": None}, "the certificate is not trusted; .*unable to get local issuer"),
        ("plain", "SSL", None, {}, "no connection; |TLS handshake failed"),
        ("plain", "SASL_PLAINTEXT", "PLAIN", {}, "this listener does not take the mechanism"),
    ],
)  # fmt: skip
def test_who_is_not_let_in_is_told_why(
    secure: Secure, listener: str, protocol: str, mechanism: str | None, more: dict[str, Any], message: str
) -> None:
    """The error names the address and the cause, comes at once, and has no secret in it."""
    servers, began = getattr(secure, listener), time.monotonic()
    settings = kafka_settings(source(servers, security(protocol, mechanism, **more)), secure.folder)

    async def refused() -> None:
        await start(admin(settings), settings)

    with pytest.raises(ConnectorError, match=f"^Kafka at {servers}: connecting: .*({message})") as refusal:
        run(refused())
    assert time.monotonic() - began < 5
    assert not [word for word in ("hunter2", "wrong", PASSWORD) if word in str(refusal.value)]


def test_a_certificate_for_another_name(secure: Secure) -> None:
    """It is for `localhost`, so 127.0.0.1 is refused, unless verify_hostname is false."""
    servers = secure.tls.replace("localhost", "127.0.0.1")

    async def connect(verify: bool) -> None:
        await administered(
            source(servers, security("SSL", verify_hostname=verify)), secure.folder, lambda c: c.list_topics()
        )

    run(connect(False))
    with pytest.raises(ConnectorError, match=r"not trusted; .*IP address mismatch"):
        run(connect(True))


def test_nobody_answers() -> None:
    """A port that is closed is told at once, one that never answers within the request timeout and a look, each by its address."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        port = silent.getsockname()[1]
        for servers, at, most_s in (
            ("127.0.0.1:1,127.0.0.1:2", "127.0.0.1:1", 0.5),
            (f"127.0.0.1:{port}", f"127.0.0.1:{port}", 3),
        ):
            settings = kafka_settings(source(servers, request_timeout_s=0.5), Path())
            began = time.monotonic()

            async def refused(settings: dict[str, Any] = settings) -> None:
                await start(producer(settings, "none", 1000), settings)

            with pytest.raises(ConnectorError, match=f"^Kafka at {at}: connecting: no (connection|answer)"):
                run(refused())
            assert time.monotonic() - began < most_s


def test_who_may_not(secure: Secure) -> None:
    """A user without rights: what is missing on topic, group, transactional id and changelog is said, with what to grant."""
    name = make(secure, "forbidden")
    config = source(secure.sasl, security("SASL_PLAINTEXT", "PLAIN", "mallory"))
    settings = kafka_settings(config, secure.folder)

    async def started(client: Any) -> None:
        try:
            await start(client, settings)
        finally:
            await stop(client)

    async def polled() -> None:
        client = consumer(config, settings, "group", [])
        client.subscribe([name])
        await started(client)

    async def looked() -> None:
        client = AIOKafkaClient(**settings)
        await client.bootstrap()
        try:
            await committed(client, "group", [TopicPartition(name, 0)], stable=False)
        finally:
            await client.close()

    async def cases() -> list[str]:
        said = []
        for case in (
            administered(config, secure.folder, lambda c: topics.partition_counts(c, WHERE, [name])),
            administered(config, secure.folder, lambda c: topics.topic_settings(c, WHERE, [name])),
            administered(config, secure.folder, lambda c: topics.ensure_changelog(c, WHERE, "m-changelog", 1, None, 1)),
            started(producer(settings, "none", 1000)),
            started(producer(settings, "none", 1000, "an-id")),
            polled(),
            looked(),
        ):
            with pytest.raises(ConnectorError) as refusal:
                await case
            said.append(str(refusal.value))
        return said

    said = run(cases())
    for text, words in zip(said, (
        f"topic '{name}': does not exist, or this user may not see it", f"topic '{name}': its settings (this needs DescribeConfigs): not authorised",
        "changelog 'm-changelog': cannot be created: not authorised for the topic", "not authorised; grant Write on the topic",
        "not authorised for the transactional id; grant", "not authorised for the topic; grant Read",
        "group 'group': not authorised for the group; grant Read on it, or set group_id",
    ), strict=True):  # fmt: skip
        assert words in text, said


def test_errors_in_the_middle_are_told(secure: Secure) -> None:
    """What aiokafka raises within `told` becomes ours, with the place; ours and others pass as they are."""

    async def lost() -> None:
        config = source(secure.plain)
        settings = kafka_settings(config, secure.folder)
        client = reader(config, settings)
        await start(client, settings)
        try:
            client.assign([TopicPartition(make_name, 0)])
            with told("here"):
                await client.getone()
        finally:
            await stop(client)

    make_name = make(secure, "unsought", 1)
    with pytest.raises(ConnectorError, match=r"^here: failed .*NoOffsetForPartition"):
        run(lost())
    with pytest.raises(ValueError, match=r"mine"), told("here"):
        raise ValueError("mine")
