"""librdkafka's mock cluster, inside the test process: a stand-in for a broker where none can be started.

It speaks enough for producers, consumers, groups and committed offsets. It has no admin requests (topics come into being
when they are first asked for, with four partitions), and it takes transactions without keeping them: what is aborted stays visible.
"""

import contextlib
from collections.abc import Iterator

from confluent_kafka import Producer


@contextlib.contextmanager
def mock_cluster(brokers: int = 1) -> Iterator[str]:
    """Bootstrap servers; the cluster lives as long as the block."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": brokers, "log_level": 2})
    metadata = producer.list_topics(timeout=10)
    yield ",".join(f"{b.host}:{b.port}" for b in metadata.brokers.values())
    producer.flush(0)
