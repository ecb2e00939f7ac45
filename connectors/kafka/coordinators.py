"""Requests to the coordinator of a group or of a transactional id, which may move, load, or not be there for a while."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TransactionalIdAuthorizationFailed, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

from ...engine.errors import ConnectorError
from .failures import connector_error

RETRY_S, GIVE_UP_S = 0.02, 30.0
_AWAY = {14, 15, 16}  # error codes: loading, not available, not coordinator
_CONCURRENT = 51  # the transaction is being ended
_REFUSALS = (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)


async def ask(
    client: AIOKafkaClient,
    kind: CoordinationType,
    name: str,
    request: Any,
    codes: Callable[[Any], set[int]],
    passing: Iterable[int] = (),
) -> tuple[Any, set[int]]:
    """The answer, and those of its error codes that asking again would not mend. Raises ConnectorError.

    passing: error codes that go away by themselves.
    """
    loop, told, patient = asyncio.get_running_loop(), "no answer", _AWAY | set(passing)
    what = f"{'group' if kind == CoordinationType.GROUP else 'transactional id'} '{name}'"
    deadline = loop.time() + GIVE_UP_S
    while loop.time() < deadline:
        try:
            node = await client.coordinator_lookup(kind, name)
            answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        except KafkaError as error:
            if not error.retriable:
                raise connector_error(error, what) from error
            told = str(error)
            await client.force_metadata_update()
        else:
            found = codes(answer) - {0}
            for refusal in _REFUSALS:
                if refusal.errno in found:
                    raise connector_error(refusal(name), what)
            if not found & patient:
                return answer, found
            told = names(found)
        await asyncio.sleep(RETRY_S)
    raise ConnectorError(
        f"{what}: its coordinator did not answer for {GIVE_UP_S:g} s: {told}; is a transaction hanging?"
    )


async def shut_out(client: AIOKafkaClient, transactional_id: str, timeout_s: float) -> None:
    """Aborts the open transaction of a transactional id, and whoever has used it so far writes no more. Raises ConnectorError.

    Returns when the transaction is ended in all of its partitions.
    """
    request = InitProducerIdRequest(transactional_id, round(timeout_s * 1000))
    _, refused = await ask(
        client, CoordinationType.TRANSACTION, transactional_id, request, lambda a: {a.error_code}, {_CONCURRENT}
    )
    if refused:
        raise ConnectorError(f"transactional id '{transactional_id}': it cannot be taken over: {names(refused)}")


def names(codes: Iterable[int]) -> str:
    return ", ".join(f"{for_code(c).__name__} ({c})" for c in sorted(codes))
