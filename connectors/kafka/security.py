"""`security` as what aiokafka's clients take."""

import logging
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...engine.errors import ConfigError
from ..secret import Secret, secret_file
from .config import KafkaSinkConfig, KafkaSourceConfig, SecurityConfig
from .tokens import FetchedToken, FileToken


def kafka_settings(config: KafkaSourceConfig | KafkaSinkConfig, base: Path) -> dict[str, Any]:
    """What every client of this source or sink is built with. base: where its files' relative paths begin.

    Its secrets are `Secret`s, so the dict can be printed. Raises ConfigError: a file that is missing or cannot be used.
    """
    table = "source" if isinstance(config, KafkaSourceConfig) else "sink"
    return {
        "bootstrap_servers": config.bootstrap_servers,
        "client_id": config.client_id,
        "request_timeout_ms": round(config.request_timeout_s * 1000),
        **_security(config.security, base, f"[{table}.security]"),
    }


def _security(config: SecurityConfig | None, base: Path, where: str) -> dict[str, Any]:
    if config is None:
        return {"security_protocol": "PLAINTEXT"}
    settings: dict[str, Any] = {"security_protocol": config.protocol}
    if config.protocol.endswith("SSL"):
        settings["ssl_context"] = _ssl_context(config, base, where)
    if config.protocol.startswith("SASL"):
        logging.getLogger("aiokafka.conn").addFilter(_without_exchange)
        settings |= {"sasl_mechanism": config.mechanism, **_sasl(config, base, where)}
    return settings


def _sasl(config: SecurityConfig, base: Path, where: str) -> dict[str, Any]:
    if config.mechanism == "GSSAPI":
        if find_spec("gssapi") is None:
            raise ConfigError(f"{where} mechanism 'GSSAPI' needs a package: pip install 'undertow[kerberos]'")
        service = config.kerberos_service or "kafka"
        return {"sasl_kerberos_service_name": service, "sasl_kerberos_domain_name": config.kerberos_domain}
    if config.mechanism == "OAUTHBEARER":
        return {"sasl_oauth_token_provider": _tokens(config, base, where)}
    password = _secret(config.password, config.password_file, base, f"{where} password_file")
    return {"sasl_plain_username": config.username, "sasl_plain_password": password}


def _tokens(config: SecurityConfig, base: Path, where: str) -> FileToken | FetchedToken:
    if config.token_file is not None:
        path = _path(base, config.token_file)
        secret_file(path, f"{where} token_file")
        return FileToken(path)
    secret = _secret(config.client_secret, config.client_secret_file, base, f"{where} client_secret_file")
    assert config.token_url is not None
    assert config.client_id is not None
    assert secret is not None
    return FetchedToken(config.token_url, config.client_id, secret, config.scope)


def _ssl_context(config: SecurityConfig, base: Path, where: str) -> ssl.SSLContext:
    """Verifies the brokers' certificates. Raises ConfigError where a file cannot be read or is no PEM."""
    authority = _readable(base, config.ca_file, f"{where} ca_file")
    certificate = _readable(base, config.certificate_file, f"{where} certificate_file")
    key = _readable(base, config.key_file, f"{where} key_file")
    password = _secret(config.key_password, config.key_password_file, base, f"{where} key_password_file")
    try:
        context = ssl.create_default_context(cafile=authority)
    except ssl.SSLError as error:
        raise ConfigError(f"{where} ca_file: {authority} holds no certificate in PEM ({error.reason})") from error
    context.check_hostname = config.verify_hostname
    if certificate is None:
        return context
    try:  # without a password OpenSSL would ask for one on the terminal
        context.load_cert_chain(certificate, key, lambda: password.reveal() if password else "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"{where} certificate_file, key_file: {certificate} and {key or 'the key in it'} cannot be used ({error.reason}); "
            "expected PEM, a certificate and its key, and that key's password where it has one"
        ) from error
    return context


def _readable(base: Path, given: str | None, where: str) -> Path | None:
    if given is None:
        return None
    path = _path(base, given)
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read ({error.strerror})") from error
    return path


def _secret(given: Secret | None, file: str | None, base: Path, where: str) -> Secret | None:
    return given if file is None else secret_file(_path(base, file), where)


def _path(base: Path, given: str) -> Path:
    return base / Path(given).expanduser()


def _without_exchange(record: logging.LogRecord) -> bool:
    """aiokafka logs each request at DEBUG, so those of the authentication too, with what proves who one is."""
    return not any("SaslAuthenticate" in type(value).__name__ for value in record.args or ())
