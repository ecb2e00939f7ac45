"""Fixtures of the Kafka tests: a broker for the session, the program that starts workers, and a scene.

KAFKA_BOOTSTRAP_SERVERS names a running cluster, else KAFKA_HOME a distribution whose broker is started. Without both,
librdkafka's mock cluster carries what needs neither admin requests nor real transactions, and the rest is skipped by name.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .broker import Cluster
from .chaos import Scene
from .worker import Workers

NEEDS = "needs a real broker: set KAFKA_HOME to a Kafka distribution, or KAFKA_BOOTSTRAP_SERVERS to a running cluster"
NEEDS_HOME = "starts and kills brokers of its own: set KAFKA_HOME to a Kafka distribution"


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """aiokafka's warnings of brokers that are being killed would bury what a failure has to say."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip(NEEDS_HOME)
    return Path(home)


@pytest.fixture(scope="session")
def needs_broker() -> None:
    """Skips where there is only the mock cluster."""
    if not (os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or os.environ.get("KAFKA_HOME")):
        pytest.skip(NEEDS)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers: of the cluster that is named, of a broker that is started, or of the mock cluster."""
    named, home = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KAFKA_HOME")
    if named:
        yield named
    elif home:
        cluster = Cluster(Path(home), tmp_path_factory.mktemp("kafka"))
        yield cluster.bootstrap
        cluster.close()
    else:
        from .mock_cluster import mock_cluster

        with mock_cluster() as servers:
            yield servers


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.close()


@pytest.fixture
def scene(needs_broker: None, kafka: str, workers: Workers, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes scenes; their workers end with the test."""
    made: list[Scene] = []

    def make(guarantee: str = "exactly-once", **how: Any) -> Scene:
        made.append(Scene(kafka, tmp_path, workers, guarantee, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()
