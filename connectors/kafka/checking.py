"""What of `[source]` and `[sink]` of Kafka does not fit together, found before anything is connected to."""

import re
from urllib.parse import urlsplit

from ...engine.errors import CodecError, ConfigError
from ..times import parse_time_ns
from .config import KafkaSinkConfig, KafkaSourceConfig, SecurityConfig

TOPIC = re.compile(r"^[A-Za-z0-9._-]{1,249}$")
_SERVER = re.compile(
    r"^\s*(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?\s*$"
)  # host, [IPv6 address], each with or without port
_TLS = ("ca_file", "certificate_file", "key_file", "key_password", "key_password_file", "verify_hostname")
_PASSWORD = ("username", "password", "password_file")
_MECHANISMS = {
    "PLAIN": _PASSWORD,
    "SCRAM-SHA-256": _PASSWORD,
    "SCRAM-SHA-512": _PASSWORD,
    "GSSAPI": ("kerberos_service", "kerberos_domain"),
    "OAUTHBEARER": ("token_file", "token_url", "client_id", "client_secret", "client_secret_file", "scope"),
}


def check_source(config: KafkaSourceConfig) -> None:
    """Raises ConfigError, naming the key."""
    if (config.topics is None) == (config.topic_pattern is None):
        got = "neither is" if config.topics is None else "both are"
        raise ConfigError(f"[source] topics, topic_pattern: {got} given; give one of them")
    for topic in config.topics or ():
        check_topic("[source] topics", topic)
    if config.topics and len(set(config.topics)) < len(config.topics):
        raise ConfigError(f"[source] topics names one twice: {', '.join(config.topics)}; take it out")
    if config.topic_pattern is not None:
        _check_pattern(config.topic_pattern)
    if config.start not in ("earliest", "latest") and not _is_time(config.start):
        raise ConfigError(f"[source] start is {config.start!r}; expected earliest, latest, or a time in ISO 8601")
    if config.heartbeat_interval_s >= config.session_timeout_s:
        raise ConfigError(
            f"[source] heartbeat_interval_s is {config.heartbeat_interval_s}, session_timeout_s {config.session_timeout_s}; "
            "a member that is heard of so seldom is taken for dead: at most a third of it"
        )
    _check_servers("[source]", config.bootstrap_servers)
    _check_security("[source.security]", config.security)


def check_sink(config: KafkaSinkConfig) -> None:
    """Raises ConfigError, naming the key."""
    check_topic("[sink] topic", config.topic)
    _check_servers("[sink]", config.bootstrap_servers)
    _check_security("[sink.security]", config.security)


def check_one_connection(source: KafkaSourceConfig, sink: KafkaSinkConfig) -> None:
    """Exactly once, what is written goes by the source's connection, which a transaction is of. Raises ConfigError."""
    usual = KafkaSinkConfig(bootstrap_servers=sink.bootstrap_servers, topic=sink.topic)
    for key in ("security", "client_id", "request_timeout_s", "delivery_timeout_s"):
        if getattr(sink, key) not in (getattr(usual, key), getattr(source, key, None)):
            raise ConfigError(
                f'[sink] {key} is not that of [source]: with guarantee = "exactly-once" offsets and output are in one transaction, '
                "which goes by the source's connection; take it out"
            )


def check_topic(where: str, topic: str) -> None:
    if not TOPIC.match(topic) or topic in (".", ".."):
        raise ConfigError(
            f"{where}: {topic!r} cannot be a topic's name; expected 1 to 249 letters, digits, '.', '_' or '-'"
        )


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"[source] topic_pattern is {pattern!r}, not a regular expression: {error}") from error


def _is_time(text: str) -> bool:
    try:
        parse_time_ns(text)
    except CodecError:
        return False
    return "-" in text[1:]  # a bare number is a time elsewhere, here it would be taken for an offset


def _check_servers(table: str, servers: str) -> None:
    for server in servers.split(","):
        found = _SERVER.match(server)
        if not found or not 0 < int(found[2] or 9092) < 65536:
            raise ConfigError(f"{table} bootstrap_servers: {server!r} is no address; expected host:port,host:port")


def _check_security(table: str, config: SecurityConfig | None) -> None:
    if config is None:
        return
    sasl, tls = config.protocol.startswith("SASL"), config.protocol.endswith("SSL")
    if sasl and config.mechanism is None:
        raise ConfigError(
            f"{table} protocol is {config.protocol!r} and there is no mechanism; add it, one of: {', '.join(_MECHANISMS)}"
        )
    used = {"protocol", *(_TLS if tls else ()), *(("mechanism", *_MECHANISMS[config.mechanism or ""]) if sasl else ())}
    for key in config.__struct_fields__:
        if key not in used and getattr(config, key) not in (None, True):
            how = f"protocol {config.protocol!r}" + (f" and mechanism {config.mechanism!r}" if sasl else "")
            raise ConfigError(f"{table} {key} is given and {how} has no use for it; take it out, or choose another")
    for key in ("password", "key_password", "client_secret"):
        if getattr(config, key) is not None and getattr(config, f"{key}_file") is not None:
            raise ConfigError(f"{table} {key} and {key}_file are both given; take one out")
    if config.certificate_file is None and (config.key_file or config.key_password or config.key_password_file):
        raise ConfigError(f"{table} has a key and no certificate_file; add it")
    if config.mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        _check_password(table, config)
    if config.mechanism == "OAUTHBEARER":
        _check_tokens(table, config)


def _check_password(table: str, config: SecurityConfig) -> None:
    if config.username is None or (config.password is None and config.password_file is None):
        lack = "username" if config.username is None else "password or password_file"
        raise ConfigError(f"{table} mechanism {config.mechanism!r} needs {lack}; add it")


def _check_tokens(table: str, config: SecurityConfig) -> None:
    credentials = config.client_id, config.client_secret or config.client_secret_file
    if (config.token_file is None) == (config.token_url is None):
        raise ConfigError(f"{table} mechanism 'OAUTHBEARER' needs either token_file or token_url; give one of them")
    if config.token_file is not None and (any(credentials) or config.scope):
        raise ConfigError(f"{table} client_id, client_secret and scope are for token_url; take them out")
    if config.token_url is None:
        return
    if not all(credentials):
        raise ConfigError(f"{table} token_url needs client_id, and client_secret or client_secret_file; add them")
    url = urlsplit(config.token_url)
    if url.username or url.password:
        raise ConfigError(f"{table} token_url holds a user or a password; move them to client_id and client_secret")
    local = url.hostname in ("localhost", "127.0.0.1", "::1")
    if not url.hostname or url.scheme not in ("https", "http") or (url.scheme == "http" and not local):
        raise ConfigError(
            f"{table} token_url is {config.token_url!r}; expected https://.. (http:// to this machine alone: it carries the secret)"
        )
