"""What went wrong with Kafka, in words: the address, the topic or group, what happened, what to do."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiokafka.errors as ke

from ...engine.errors import ConnectorError

_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (ke.SaslAuthenticationFailed, ke.AuthenticationFailedError),
        "authentication failed; are mechanism, user and password (or token) those of this broker?",
    ),
    (
        (ke.UnsupportedSaslMechanismError, ke.IllegalSaslStateError),
        "this listener does not take the mechanism; ask for one that it takes, or give another port",
    ),
    (
        (ke.TopicAuthorizationFailedError,),
        "not authorised for the topic; grant Read and Describe on what is read, Write and Describe on what is written",
    ),
    ((ke.GroupAuthorizationFailedError,), "not authorised for the group; grant Read on it, or set group_id"),
    (
        (ke.InvalidSessionTimeoutError,),
        "the brokers do not take [source] session_timeout_s; see their group.min.session.timeout.ms and group.max.session.timeout.ms",
    ),
    (
        (ke.InconsistentGroupProtocolError,),
        "members of the group are of another program, or of a version that shares partitions in another way; set group_id, or end them first",
    ),
    (
        (ke.TransactionalIdAuthorizationFailed,),
        "not authorised for the transactional id; grant Write and Describe on ids that begin with the pipeline's name",
    ),
    (
        (ke.ClusterAuthorizationFailedError,),
        "not authorised; grant Write on the topic, or IdempotentWrite on the cluster where that is needed",
    ),
    ((ke.UnknownTopicOrPartitionError,), "no such topic, or none that this user may see; create it, or name another"),
    (
        (ke.MessageSizeTooLargeError, ke.RecordListTooLargeError),
        "a batch is larger than the topic takes; raise its max.message.bytes, or lower [sink] max_batch_bytes",
    ),
    (
        (ke.InvalidTimestampError,),
        "the topic does not take the event time; see its message.timestamp.before.max.ms, .after.max.ms and .type",
    ),
    ((ke.UnsupportedCodecError,), "the compression of its records is not known here"),
    ((ke.UnsupportedVersionError, ke.IncompatibleBrokerVersion), "the broker is too old; 2.5 or later is needed"),
    (
        (ssl.SSLCertVerificationError,),
        "the certificate is not trusted; does ca_file hold who signed it, for this name?",
    ),
    ((ssl.SSLError,), "the TLS handshake failed; does this port speak TLS, and does it ask for a certificate_file?"),
    (
        (ke.KafkaTimeoutError, ke.RequestTimedOutError, asyncio.TimeoutError),
        "no answer in time; is the cluster up, and its addresses right?",
    ),
    (
        (ke.KafkaConnectionError,),
        "the connection was closed; is [..security] protocol that of this port, and does it ask for a certificate_file?",
    ),
    (
        (ke.NodeNotReadyError, OSError),
        "no connection; is the broker up, the address right, and [..security] protocol that of this port?",
    ),
)


def connector_error(error: BaseException, where: str) -> ConnectorError:
    """The error in words; `where`: with whom and about what, "Kafka at 127.0.0.1:9092: topic 'frames'"."""
    for kinds, what in _KINDS:
        if isinstance(error, kinds):
            return ConnectorError(f"{where}: {what}{_detail(error)}")
    return ConnectorError(f"{where}: failed{_detail(error)}")


@contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of aiokafka, of TLS and of the network become ConnectorErrors."""
    try:
        yield
    except (TimeoutError, ke.KafkaError, OSError) as error:
        raise connector_error(error, where) from error


def _detail(error: BaseException) -> str:
    words = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return f" ({words or type(error).__name__})"
