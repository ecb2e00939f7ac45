"""The Kafka sink on a real broker: what arrives, what is refused, what ends in time."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertow import ConnectorError
from undertow.connectors.codec_config import RawCodecConfig
from undertow.connectors.codecs import make_codec
from undertow.connectors.columns import Answers
from undertow.connectors.kafka.config import KafkaSinkConfig
from undertow.connectors.kafka.output_records import partitioner
from undertow.connectors.kafka.sink import KafkaSink
from undertow.engine.artifact import write_artifact

from .checks import assert_close
from .kafka_calls import make, read_back, run, security, token
from .kafka_secure import PASSWORD, SESSION_MS, Secure
from .naive import NaiveEngine
from .step_graph import lookahead_step
from .test_kafka_outputs import answers

SPEC = lookahead_step(2).spec
PIPELINE = """
name = "to-kafka"
model = {{ path = "model.onnx", backend = "numba" }}
source = {{ type = "files", path = "in.csv", key_column = "key", time_column = "time" }}
delivery.guarantee = "at-least-once"
[sink]
type = "kafka"
bootstrap_servers = "{servers}"
topic = "{topic}"
compression = "zstd"
security = {{ protocol = "SASL_SSL", mechanism = "SCRAM-SHA-256", username = "alice", password = "${{WORD}}", ca_file = "{ca}" }}
"""


def of_values(keys: list[Any], value: Callable[[int], np.ndarray], **columns: Any) -> Answers:
    """An answer a key with one output (3,), its value that of `value`."""
    given = answers(keys, **columns)
    given.values = {"y": np.stack([value(i) for i in range(len(keys))]) if keys else np.zeros((0, 3), np.float32)}
    return given


def sink(secure: Secure, topic: str, **more: Any) -> KafkaSink:
    config = KafkaSinkConfig(bootstrap_servers=secure.plain, topic=topic, **more)
    return KafkaSink(config, secure.folder, make_codec(RawCodecConfig(), SPEC))


async def written(to: KafkaSink, polls: list[Answers]) -> None:
    try:
        await to.open(None)
        for poll in polls:
            await to.write(poll)
            assert await to.flush() == {}
    finally:
        await to.close()


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_the_sink_writes_each_answer_once(secure: Secure, compression: str) -> None:
    """Keys, values, times and headers come back as they were given, in order, in Java's partition, whatever the compression."""
    topic, count = make(secure, f"out-{compression}", 4), 300
    keys = [f"stream-{i % 17}" for i in range(count)]
    times = [1_700_000_000_123_000_000 + i * 10**6 for i in range(count)]
    polls = [
        of_values(
            keys,
            lambda i: np.full(3, i, np.float32),
            steps=list(range(count)),
            times_ns=times,
            ends=[i == 299 for i in range(count)],
        )
    ]
    run(written(sink(secure, topic, compression=compression), [*polls, of_values([], lambda i: np.zeros(3))]))
    found, partition_of = run(read_back(secure, topic, 4, count)), partitioner(4)
    seen = []
    for partition, some in found.items():
        steps = [int(dict(r.headers)["undertow-step"]) for r in some]
        assert steps == sorted(steps)
        for step, r in zip(steps, some, strict=True):
            assert (r.key.decode(), r.timestamp) == (keys[step], times[step] // 10**6)
            assert np.frombuffer(r.value, "<f4").tolist() == [step] * 3
            assert partition_of(r.key) == partition
            headers = [
                ("undertow-step", b"%d" % step),
                ("undertow-source", b"frames/%d/%d" % (11 * (step % 2), 100 + step)),
            ]
            assert list(r.headers) == headers + [("undertow-end", b"1")] * (step == 299)
        seen += steps
    assert sorted(seen) == list(range(count))


def test_the_sink_keeps_to_what_the_topic_takes(secure: Secure) -> None:
    """Batches are cut to a small max.message.bytes; a record that is larger than it alone is an error that says so."""
    topic = make(secure, "small", 1, max_message_bytes="4000")
    run(written(sink(secure, topic), [of_values(["k"] * 400, lambda i: np.full(3, i))]))
    assert len(run(read_back(secure, topic, 1, 400))[0]) == 400
    large = of_values(["k", "l"], lambda i: np.zeros(500))
    with pytest.raises(
        ConnectorError, match=r"stream 'k': an output of 4000 bytes makes a record of up to \d+, the topic takes 4000"
    ):
        run(written(sink(secure, topic), [large]))
    noise = of_values(["k"], lambda i: np.random.default_rng(0).random(1000))
    with pytest.raises(
        ConnectorError, match=r"topic 'small': a batch is larger than the topic takes; raise its max.message.bytes"
    ):
        run(written(sink(secure, topic, compression="gzip"), [noise]))


def test_the_sink_says_what_the_topic_refuses(secure: Secure) -> None:
    """No such topic, at the check too; and event times that lie further ahead than the topic takes."""
    with pytest.raises(ConnectorError, match=r"topic 'no-such': does not exist"):
        sink(secure, "no-such").check()
    topic = make(secure, "timely", 1)
    sink(secure, topic).check()
    ahead = of_values(["k"], lambda i: np.zeros(3), times_ns=[int((time.time() + 86400 * 365) * 1e9)])
    with pytest.raises(
        ConnectorError, match=r"topic 'timely': the topic does not take the event time; see its message.timestamp"
    ):
        run(written(sink(secure, topic), [ahead]))


def test_from_a_file_to_a_topic(secure: Secure, tmp_path: Path) -> None:
    """`undertow run` over a listener with TLS and a password: what a file's run gives is in the topic."""
    topic = make(secure, "lines", 3)
    artifact = lookahead_step(2)
    write_artifact(tmp_path / "model.onnx", artifact.model, artifact.spec)
    frames = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    rows = [f"{'ab'[i % 2]},{i},{x},{y},{z}" for i, (x, y, z) in enumerate(frames.tolist())]
    (tmp_path / "in.csv").write_text("\n".join(["key,time,x,y,z", *rows]) + "\n")
    text = PIPELINE.format(servers=secure.sasl_tls, topic=topic, ca=secure.folder / "ca.pem")
    (tmp_path / "pipeline.toml").write_text(text)
    command = [Path(sys.executable).with_name("undertow"), "run", "pipeline.toml"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"WORD": PASSWORD}, capture_output=True, text=True, check=False
    )
    assert PASSWORD not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    found = [r for some in run(read_back(secure, topic, 3, 1)).values() for r in some]
    for n, key in enumerate("ab"):
        mine = [r for r in found if r.key == key.encode()]
        outputs = np.concatenate([np.array(json.loads(r.value)) for r in mine])
        naive = NaiveEngine(artifact)
        assert_close(outputs.astype(np.float32), np.concatenate([naive.push(key, frames[n::2]), naive.close(key)]))
        assert [dict(r.headers).get("undertow-end") for r in mine] == [None] * (len(mine) - 1) + [b"1"]
        assert mine[0].timestamp == n * 1000


def test_tokens_that_end(secure: Secure, caplog: pytest.LogCaptureFixture) -> None:
    """The broker drops connections whose session has ended; a new one is made, and what was being sent arrives, once."""
    topic = make(secure, "renewed", 1)
    (secure.folder / "token").write_text(token("alice"))
    secured = security("SASL_PLAINTEXT", "OAUTHBEARER", token_file="token")
    config = KafkaSinkConfig(bootstrap_servers=secure.sasl, topic=topic, security=secured)

    async def on_and_on() -> None:
        to = KafkaSink(config, secure.folder, make_codec(RawCodecConfig(), SPEC))
        try:
            await to.open(None)
            caplog.clear()
            for i in range(8):
                await to.write(of_values([f"k{i}"], lambda i: np.zeros(3)))
                await to.flush()
                await asyncio.sleep(SESSION_MS / 4000)
        finally:
            await to.close()

    with caplog.at_level(logging.INFO, "aiokafka"):
        run(on_and_on())
    assert caplog.text.count("Authenticated via OAUTHBEARER") >= 1  # anew, after open
    assert [r.key for r in run(read_back(secure, topic, 1, 8))[0]] == [b"k%d" % i for i in range(8)]


def test_a_broker_that_stands_still(secure: Secure) -> None:
    """What no broker acknowledges ends with an error after delivery_timeout_s, and closing takes a bounded time too."""
    topic = make(secure, "still", 1)
    to = sink(secure, topic, delivery_timeout_s=1, request_timeout_s=0.5)

    async def stopped() -> None:
        await to.open(None)
        os.kill(secure.process.pid, signal.SIGSTOP)
        try:
            await to.write(of_values(["k"], lambda i: np.zeros(3)))
            with pytest.raises(
                ConnectorError, match=r"topic 'still': not acknowledged within 1 s; are its partitions' leaders up"
            ):
                await to.flush()
        finally:
            began = time.monotonic()
            await to.close()
            taken_s = time.monotonic() - began
            os.kill(secure.process.pid, signal.SIGCONT)
        assert taken_s < 4

    run(stopped())
