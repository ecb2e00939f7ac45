"""What a pipeline file says of Kafka: refusals in words, files that cannot be used, and secrets that nothing prints."""

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from aiokafka.errors import AuthenticationFailedError

from undertow import ConfigError
from undertow.cli import main
from undertow.connectors.config import read_pipeline
from undertow.connectors.kafka.config import KafkaSinkConfig, SecurityConfig
from undertow.connectors.kafka.security import kafka_settings
from undertow.connectors.kafka.tokens import FetchedToken, FileToken
from undertow.connectors.opening import open_parts
from undertow.connectors.secret import Secret, hidden
from undertow.engine.artifact import write_artifact

from .step_graph import lookahead_step

SECRET = "hunter2-never-shown"
GOOD = """
name = "activity"
[model]
path = "model.onnx"
backend = "numba"
[source]
type = "kafka"
bootstrap_servers = "127.0.0.1:1,[::1]:2,broker"
topics = ["frames"]
[source.security]
protocol = "SASL_SSL"
mechanism = "PLAIN"
username = "alice"
password = "${PASSWORD}"
[sink]
type = "kafka"
bootstrap_servers = "127.0.0.1:1"
topic = "activities"
"""
OAUTH = 'mechanism = "OAUTHBEARER"\ntoken_url = "https://a.example/t"\nclient_id = "c"\nclient_secret = "${PASSWORD}"'
PLAIN = 'mechanism = "PLAIN"\nusername = "alice"\npassword = "${PASSWORD}"'


def read(folder: Path, text: str) -> Any:
    (folder / "pipeline.toml").write_text(text)
    return read_pipeline(folder / "pipeline.toml", {"PASSWORD": SECRET}).pipeline


def test_a_whole_file(tmp_path: Path) -> None:
    """A secret can be used, and neither the whole pipeline's text nor its plan shows it; whatever forgets to hide it fails."""
    pipeline = read(tmp_path, GOOD)
    password = pipeline.source.security.password
    assert (password.encode(), "".join(password), password.reveal()) == (SECRET.encode(), SECRET, SECRET)
    shown = (repr(pipeline), str(password), f"{password}", [password].__repr__(), str(msgspec.to_builtins(pipeline, enc_hook=hidden)))  # fmt: skip
    assert not [text for text in shown if SECRET in text]
    with pytest.raises(TypeError):
        msgspec.json.encode(pipeline)
    assert read(tmp_path, GOOD.replace(PLAIN, OAUTH)).source.security.client_secret == SECRET
    twice = GOOD + "[sink.security]\n" + GOOD[GOOD.index("protocol") : GOOD.index("[sink]")]
    assert read(tmp_path, twice).sink.security == pipeline.source.security
    other = GOOD + '[sink.security]\nprotocol = "PLAINTEXT"\n[delivery]\nguarantee = "at-least-once"\n'
    assert read(tmp_path, other).sink.security.protocol == "PLAINTEXT"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('topics = ["frames"]', "", "[source] topics, topic_pattern: neither is given; give one of them"),
        ('topics = ["frames"]', 'topics = ["frames"]\ntopic_pattern = "f.*"', "[source] topics, topic_pattern: both are given"),
        ('topics = ["frames"]', 'topic_pattern = "f("', "[source] topic_pattern is 'f(', not a regular expression: missing )"),
        ('["frames"]', '["fra mes"]', "[source] topics: 'fra mes' cannot be a topic's name"),
        ('["frames"]', '["a", "a"]', "[source] topics names one twice"),
        ('"activities"', '".."', "[sink] topic: '..' cannot be a topic's name"),
        ("127.0.0.1:1,", "http://a:1,", "[source] bootstrap_servers: 'http://a:1' is no address; expected host:port,host:port"),
        ("127.0.0.1:1,", "a:70000,", "[source] bootstrap_servers: 'a:70000' is no address"),
        ("topics", 'start = "soon"\ntopics', "[source] start is 'soon'; expected earliest, latest, or a time in ISO 8601"),
        ("topics", "session_timeout_s = 0.4\ntopics", "[source] heartbeat_interval_s is 0.5, session_timeout_s 0.4"),
        ('mechanism = "PLAIN"\n', "", "[source.security] protocol is 'SASL_SSL' and there is no mechanism; add it, one of: PLAIN, SCRAM"),
        ('username = "alice"\n', "", "[source.security] mechanism 'PLAIN' needs username; add it"),
        ('password = "${PASSWORD}"', "", "[source.security] mechanism 'PLAIN' needs password or password_file; add it"),
        ("password =", 'password_file = "p"\npassword =', "[source.security] password and password_file are both given; take one out"),
        ("SASL_SSL", "SSL", "[source.security] mechanism is given and protocol 'SSL' has no use for it; take it out"),
        ("SASL_SSL", "SASL", "[source.security] protocol is 'SASL': invalid enum value 'SASL'; expected one of: PLAINTEXT, SASL_PLAINTEXT, SASL_SSL, SSL"),
        ('protocol = "SASL_SSL"\n', "", "[source.security] has no key 'protocol'; add it"),
        ("username", 'ca_file = "x"\nverify_hostname = false\nkerberos_service = "k"\nusername', "[source.security] kerberos_service is given and protocol 'SASL_SSL' and mechanism 'PLAIN' has no use"),
        ("username", 'key_file = "x"\nusername', "[source.security] has a key and no certificate_file; add it"),
        (PLAIN, 'mechanism = "OAUTHBEARER"', "[source.security] mechanism 'OAUTHBEARER' needs either token_file or token_url"),
        (PLAIN, OAUTH + '\ntoken_file = "t"', "[source.security] mechanism 'OAUTHBEARER' needs either token_file or token_url"),
        (PLAIN, OAUTH.replace('client_id = "c"\n', ""), "[source.security] token_url needs client_id, and client_secret"),
        (PLAIN, OAUTH.replace("https", "http"), "[source.security] token_url is 'http://a.example/t'; expected https://"),
        (PLAIN, OAUTH.replace("a.ex", "u:${PASSWORD}@a.ex"), "[source.security] token_url holds a user or a password"),
        ("[sink]", "[store]\nreplication_factor = 0\n[sink]", "[store] replication_factor is 0: expected `int` >= 1"),
        ("[sink]", '[sink]\nclient_id = "other"', "[sink] client_id is not that of [source]: with guarantee = \"exactly-once\" offsets and output"),
        ("[sink]", '[sink.security]\nprotocol = "PLAINTEXT"\n[sink]', "[sink] security is not that of [source]"),
        # What could show a secret on the way:
        ('"${PASSWORD}"', "1234567", "[source.security] password is (secret): expected text of at least one character"),
        ('"${PASSWORD}"', f'["{SECRET}"]', "[source.security] password is (secret): expected text"),
        ('"${PASSWORD}"', f'{{ a = "{SECRET}" }}', "[source.security] password is (secret): expected text"),
        ('"alice"', f'{{ password = "{SECRET}" }}', "[source.security] username is {'password': (secret)}: expected `str"),
        ("password =", "pasword =", "[source.security] unknown key 'pasword'; expected one of: protocol, .*; did you mean 'password'?"),
        (GOOD[GOOD.index("[source.security]") : GOOD.index("[sink]")], "security = '${PASSWORD}'\n", "[source] security is a str: expected `object"),
        (GOOD[GOOD.index("[source.security]") : GOOD.index("[sink]")], "security = ['${PASSWORD}']\n", "[source] security is a list: expected `object"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each says which key, what is there and what is allowed; none shows a secret."""
    assert old in GOOD
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, GOOD.replace(old, new, 1))
    parts = [re.escape(p) for p in message.split(".*")]
    assert re.match("pipeline.toml: " + ".*".join(parts), str(refusal.value))
    assert SECRET not in str(refusal.value)
    assert "1234567" not in str(refusal.value)


def settings(folder: Path, **security: Any) -> dict[str, Any]:
    config = KafkaSinkConfig(bootstrap_servers="b:1", topic="t", security=SecurityConfig(**security))
    return kafka_settings(config, folder)


def test_files_of_secrets(tmp_path: Path) -> None:
    """A secret's file is read relative to the pipeline's folder, without the line's end; what cannot be read is refused by name."""
    (tmp_path / "p").write_text(f"{SECRET}\r\n")
    plain = {"protocol": "SASL_PLAINTEXT", "mechanism": "SCRAM-SHA-512", "username": "u"}
    found = settings(tmp_path, **plain, password_file="p")
    assert found["sasl_plain_password"] == SECRET
    assert SECRET not in str(found)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name, why in (("none", "cannot be read (No such file"), ("empty", "is empty"), ("bytes", "is not UTF-8")):
        with pytest.raises(ConfigError, match=re.escape(f"[sink.security] password_file: {tmp_path / name} {why}")):
            settings(tmp_path, **plain, password_file=name)


def test_files_of_certificates(tmp_path: Path) -> None:
    """A file that is missing, no PEM or no key is refused by its key and path, before anything is connected to."""
    (tmp_path / "no.pem").write_text("certainly not")
    with pytest.raises(ConfigError, match=r"\[sink.security\] ca_file: .*no.pem holds no certificate in PEM"):
        settings(tmp_path, protocol="SSL", ca_file="no.pem")
    with pytest.raises(ConfigError, match=r"\[sink.security\] ca_file: .*gone.pem cannot be read \(No such file"):
        settings(tmp_path, protocol="SSL", ca_file="gone.pem")
    with pytest.raises(
        ConfigError, match=r"\[sink.security\] certificate_file, key_file: .*no.pem and the key in it cannot"
    ):
        settings(tmp_path, protocol="SSL", certificate_file="no.pem")
    context = settings(tmp_path, protocol="SSL", verify_hostname=False)["ssl_context"]
    assert (context.check_hostname, context.verify_mode.name) == (False, "CERT_REQUIRED")


def test_kerberos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GSSAPI without its package says what to install; with it, service and domain reach the client."""
    gssapi = {"protocol": "SASL_SSL", "mechanism": "GSSAPI", "kerberos_domain": "d"}
    monkeypatch.setattr("undertow.connectors.kafka.security.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"\[sink.security\] mechanism 'GSSAPI' needs .* pip install 'undertow\[kerberos\]'"
    ):
        settings(tmp_path, **gssapi)
    monkeypatch.setattr("undertow.connectors.kafka.security.find_spec", lambda name: name)
    found = settings(tmp_path, **gssapi)
    assert (found["sasl_kerberos_service_name"], found["sasl_kerberos_domain_name"]) == ("kafka", "d")


def from_files(folder: Path, guarantee: str) -> None:
    """A pipeline from a file to the sink of GOOD, its user's password from the environment."""
    artifact = lookahead_step(2)
    write_artifact(folder / "model.onnx", artifact.model, artifact.spec)
    text = GOOD[: GOOD.index("[source]")] + '[source]\ntype = "files"\npath = "in.csv"\n' + GOOD[GOOD.index("[sink]") :]
    text += f'[sink.security]\nprotocol = "SASL_PLAINTEXT"\n{PLAIN}\n[delivery]\nguarantee = "{guarantee}"\n'
    (folder / "in.csv").write_text("a,b,c\n1,2,3\n")
    (folder / "pipeline.toml").write_text(text)


def test_exactly_once_from_a_file_is_refused(tmp_path: Path) -> None:
    """What was sent to a topic cannot be cut, so files to Kafka is at-least-once; that is said before anything is connected to."""
    from_files(tmp_path, "exactly-once")
    placed = read_pipeline(tmp_path / "pipeline.toml", {"PASSWORD": SECRET})
    with pytest.raises(
        ConfigError, match=r"\[sink\] type = 'kafka' cannot take back .*; set guarantee = \"at-least-once\""
    ):
        open_parts(placed, None, None)


def test_the_command_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """`undertow run` against nothing that listens: its errors, aiokafka's log at DEBUG and the exit code; and no password in any."""
    from_files(tmp_path, "at-least-once")
    monkeypatch.setenv("PASSWORD", SECRET)
    for option, code in (("--check", 1), ("--json", 1)):
        monkeypatch.setattr(sys, "argv", ["undertow", "run", str(tmp_path / "pipeline.toml"), option])
        with caplog.at_level(logging.DEBUG, "aiokafka"), pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert ended.value.code == code, said
        assert "error: Kafka at 127.0.0.1:1: " in said.err
        assert SECRET not in said.out + said.err + caplog.text


class Tokens(BaseHTTPRequestHandler):
    """An authorisation server: what it was asked for, and what it answers next."""

    asked: list[tuple[str, dict[str, list[str]]]] = []  # noqa: RUF012
    answers: list[tuple[int, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.headers["Authorization"], parse_qs(body)))
        status, text = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Tokens.asked, Tokens.answers = [], []
    served = HTTPServer(("127.0.0.1", 0), Tokens)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/token"
    served.shutdown()
    thread.join()
    served.server_close()


def test_tokens_are_fetched_and_kept(server: str) -> None:
    """Client credentials as RFC 6749 has them; one request for four fifths of the token's life, however many ask at once."""
    now = [100.0]
    Tokens.answers = [(200, json.dumps({"access_token": f"t{i}", "expires_in": 10})) for i in range(2)]
    tokens = FetchedToken(server, "me:", Secret("a b%"), "kafka", lambda: now[0])

    async def ask() -> list[str]:
        given = await asyncio.gather(*(tokens.token() for _ in range(3)))
        now[0] += 7.9
        given.append(await tokens.token())
        now[0] += 0.2
        return [*given, await tokens.token()]

    assert asyncio.run(ask()) == ["t0", "t0", "t0", "t0", "t1"]
    basic, fields = Tokens.asked[0]
    assert basic == "Basic bWUlM0E6YStiJTI1"  # me%3A:a+b%25
    assert fields == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
    assert len(Tokens.asked) == 2


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (401, '{"error": "invalid_client", "error_description": "unknown", "got": "s3cret"}', "401 invalid_client, unknown"),
        (500, "s3cret", "500 Internal Server Error"),
        (302, "", "302 Found"),
        (200, "s3cret", "its answer is no JSON object with an access_token"),
        (200, "[]", "its answer is no JSON object with an access_token"),
    ],
)  # fmt: skip
def test_tokens_that_are_refused(server: str, status: int, text: str, why: str) -> None:
    """The error says where and why, is one that aiokafka takes for a refusal, follows nobody elsewhere and repeats no secret."""
    Tokens.answers = [(status, text)]
    with pytest.raises(AuthenticationFailedError) as refusal:
        asyncio.run(FetchedToken(server, "me", Secret("s3cret"), None).token())
    assert f"no token from {server}: {why}" in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
    assert len(Tokens.asked) == 1


def test_tokens_of_a_file(tmp_path: Path) -> None:
    """The file is read for each connection, so whoever renews it needs no restart; a plain text comes out, as aiokafka formats it."""
    tokens = FileToken(tmp_path / "token")
    for text in ("one", "two"):
        (tmp_path / "token").write_text(text + "\n")
        assert f"{asyncio.run(tokens.token())}" == text
    (tmp_path / "token").unlink()
    with pytest.raises(AuthenticationFailedError, match="token cannot be read"):
        asyncio.run(tokens.token())
