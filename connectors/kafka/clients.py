"""aiokafka's clients, built from the pipeline's settings; started and stopped in bounded time."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from .config import KafkaSourceConfig
from .failures import connector_error

log = logging.getLogger("undertow.kafka")
T = TypeVar("T")
LOOK_S = 5.0  # for finding out why a start failed
READ_BYTES = 8 * 2**20  # in one answer, of a partition that is read to its end
REQUEST_BYTES = 64 * 2**20  # of one produce request, which holds a batch a partition; brokers refuse more than 100 MiB
_FAILURES = (KafkaError, OSError, asyncio.TimeoutError)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it in a loop of its own. What fails is told once, by what it raises; aiokafka's futures would tell it again."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: log.debug("%s", context))
        return runner.run(work)


def consumer(
    config: KafkaSourceConfig, settings: dict[str, Any], group_id: str, assignors: Sequence[Any]
) -> AIOKafkaConsumer:
    """A member of the group, to be subscribed once it is started. It commits nothing by itself.

    A partition without a position is an error of the poll: where it begins is for the caller to say.
    """
    return AIOKafkaConsumer(
        **settings,
        group_id=group_id,
        group_instance_id=config.group_instance_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=f"read_{config.read}",
        partition_assignment_strategy=list(assignors),
        session_timeout_ms=_ms(config.session_timeout_s),
        heartbeat_interval_ms=_ms(config.heartbeat_interval_s),
        rebalance_timeout_ms=_ms(config.rebalance_timeout_s),
        max_partition_fetch_bytes=config.max_partition_fetch_bytes,
        fetch_max_bytes=config.fetch_max_bytes,
        fetch_max_wait_ms=_ms(config.fetch_wait_s),
    )


def reader(config: KafkaSourceConfig, settings: dict[str, Any], read: str = "committed") -> AIOKafkaConsumer:
    """In no group, to be assigned partitions: reads committed records, of a changelog for one, or as `read` says."""
    return AIOKafkaConsumer(
        **settings,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=f"read_{read}",
        max_partition_fetch_bytes=max(config.max_partition_fetch_bytes, READ_BYTES),
        fetch_max_bytes=config.fetch_max_bytes,
        fetch_max_wait_ms=_ms(config.fetch_wait_s),
    )


def producer(
    settings: dict[str, Any],
    compression: str,
    max_batch_bytes: int,
    transactional_id: str | None = None,
    transaction_timeout_s: float = 60.0,
) -> AIOKafkaProducer:
    """Idempotent, and transactional with an id. max_batch_bytes: see `batch_bytes`."""
    return AIOKafkaProducer(
        **settings,
        acks="all",
        enable_idempotence=True,
        compression_type=None if compression == "none" else compression,
        max_batch_size=max_batch_bytes,
        max_request_size=max(max_batch_bytes, 2**20),
        transactional_id=transactional_id,
        transaction_timeout_ms=_ms(transaction_timeout_s),
    )


def admin(settings: dict[str, Any]) -> AIOKafkaAdminClient:
    return AIOKafkaAdminClient(**settings)


def batch_bytes(wanted: int, topic_bytes: int, partitions: int) -> int:
    """The largest batch that the topic takes and of which one for each partition goes into a request."""
    return max(1024, min(wanted, topic_bytes, REQUEST_BYTES // max(partitions, 1)))


async def start(
    client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient,
    settings: dict[str, Any],
    what: str = "connecting",
) -> None:
    """Starts any of them, within the request timeout and the time that it takes to see why not.

    Raises ConnectorError: the address, what happened, what to do. The client is closed then.
    """
    limit_s = settings["request_timeout_ms"] / 1000
    try:
        await asyncio.wait_for(client.start(), limit_s)
        _check_brokers(_inner(client).cluster.brokers(), settings)
    except _FAILURES as error:
        await stop(client)
        address, cause = await _fault(settings) or (settings["bootstrap_servers"], error)
        raise connector_error(cause, f"Kafka at {address}: {what}") from error
    except BaseException:
        await stop(client)
        raise


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient, limit_s: float = 5.0) -> None:
    """Closes any of them. What a producer has not delivered within the limit is given up."""
    closing = client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop()
    with suppress(*_FAILURES):
        await asyncio.wait_for(closing, limit_s)
        return
    # A producer waits for its batches however long that takes, and its task goes on sending: neither has a public way to end.
    if isinstance(client, AIOKafkaProducer):
        with suppress(*_FAILURES):
            await asyncio.wait_for(client._sender.close(), limit_s)
    await _inner(client).close()


def _inner(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> AIOKafkaClient:
    return client.client if isinstance(client, AIOKafkaProducer) else client._client


def _check_brokers(brokers: Collection[Any], settings: dict[str, Any]) -> None:
    """A refused token is no error to aiokafka (it does not read RFC 7628's answer); the broker answers nothing of use from then on."""
    if not brokers and settings.get("sasl_mechanism") == "OAUTHBEARER":
        raise AuthenticationFailedError("the broker took no token")
    if not brokers:
        raise KafkaConnectionError("the cluster names no brokers")


async def _fault(settings: dict[str, Any]) -> tuple[str, BaseException] | None:
    """The address that cannot be reached, and why: of those that were given, else of those that the cluster advertises."""
    given = [(host, port) for host, port, _ in collect_hosts(settings["bootstrap_servers"], randomize=False)]
    looks = await asyncio.gather(*(_look(settings, host, port) for host, port in given))
    faults = [(f"{host}:{port}", fault) for (host, port), (fault, _) in zip(given, looks, strict=True) if fault]
    if len(faults) == len(given):
        return faults[0]
    advertised = sorted({broker for _, brokers in looks for broker in brokers} - set(given))
    looks = await asyncio.gather(*(_look(settings, host, port) for host, port in advertised))
    for (host, port), (fault, _) in zip(advertised, looks, strict=True):
        if fault is not None:
            return f"{host}:{port}, which {settings['bootstrap_servers']} advertises", fault
    return None


async def _look(settings: dict[str, Any], host: str, port: int) -> tuple[BaseException | None, list[tuple[str, int]]]:
    """Why there is no connection, or the brokers that this one names."""
    options: dict[str, Any] = settings | {
        "request_timeout_ms": round(min(LOOK_S, settings["request_timeout_ms"] / 1000) * 1000)
    }
    del options["bootstrap_servers"]
    connection: AIOKafkaConnection | None = None
    try:
        connection = await create_conn(host, port, **options)
        answer: Any = await connection.send(MetadataRequest([]))
        _check_brokers(answer.brokers, settings)
        return None, [(broker[1], broker[2]) for broker in answer.brokers]
    except _FAILURES as error:
        return error.__cause__ if isinstance(error.__cause__, KafkaError) else error, []
    finally:
        if connection is not None:
            closed = connection.close()
            if closed is not None:
                await asyncio.wait([closed], timeout=1.0)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
