"""What is looked for before a pipeline runs, on a real broker: topics, retention, the changelog."""

import asyncio
import logging
from collections.abc import Awaitable

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from undertow import ConnectorError
from undertow.connectors.kafka import topics

from .kafka_calls import WHERE, administered, make, on, run, security, source
from .kafka_secure import Secure


def test_topics_are_looked_for_and_never_made(secure: Secure) -> None:
    """This broker makes topics that clients name; asking how many partitions one has makes none. A pattern takes whole names, not our own."""
    for name in ("seen-a", "seen-b", "seen-out", "p-seen-a-changelog"):
        make(secure, name, 3)

    async def look(client: AIOKafkaAdminClient) -> None:
        assert await topics.partition_counts(client, WHERE, ["seen-a", "seen-b"]) == {"seen-a": 3, "seen-b": 3}
        with pytest.raises(ConnectorError, match=r"topic 'unseen': does not exist"):
            await topics.partition_counts(client, WHERE, ["seen-a", "unseen"])
        assert "unseen" not in await client.list_topics()
        found = await topics.matching_topics(client, WHERE, ".*seen-.*", "p", ["seen-out"])
        assert found == ["seen-a", "seen-b"]
        with pytest.raises(ConnectorError, match=r"topic_pattern 'seen' matches none of \d+ topics"):
            await topics.matching_topics(client, WHERE, "seen", "p", [])

    on(secure, look)


def test_a_broker_that_hears_of_the_changelog_late(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request may go to another broker: one that does not know yet what was just made is asked again, for a while."""

    async def made(client: AIOKafkaAdminClient) -> None:
        asked, listed = 0, client.list_topics

        async def late() -> list[str]:
            nonlocal asked
            asked += 1
            return [t for t in await listed() if t != "late" or asked == 2 or asked > 5]

        monkeypatch.setattr(client, "list_topics", late)
        assert await topics.ensure_changelog(client, WHERE, "late", 3, None, 100)
        assert asked > 5

    on(secure, made)


def test_the_changelog_is_made_once_and_has_to_fit(secure: Secure) -> None:
    """The first worker makes it, two at once make one; one with other partitions, clean-up or too small rows is refused with the remedy."""
    make(secure, "wrong-policy", 2, cleanup_policy="compact,delete")

    async def cases(client: AIOKafkaAdminClient) -> None:
        def ensure(name: str, partitions: int, row_bytes: int = 100) -> Awaitable[bool]:
            return topics.ensure_changelog(client, WHERE, name, partitions, None, row_bytes)

        assert sorted(await asyncio.gather(ensure("c", 3), ensure("c", 3))) == [False, True]
        assert not await ensure("c", 3)
        found = (await topics.topic_settings(client, WHERE, ["c"]))["c"]
        assert (found["cleanup.policy"], found["segment.bytes"]) == ("compact", str(16 * 2**20))
        assert found["min.cleanable.dirty.ratio"] == "0.3"
        for name, partitions, row_bytes, words in (
            ("c", 4, 100, r"changelog 'c': has 3 partitions, its input 4\. Input that grew .*kafka-topics.sh --alter"),
            ("c", 2, 100, "changelog 'c': has 3 partitions, its input 2; it is another topic's"),
            ("c", 3, 2**21, "changelog 'c': max.message.bytes is 1048588, a row may need 2098176; raise it"),
            (
                "wrong-policy",
                2,
                100,
                "changelog 'wrong-policy': cleanup.policy is 'compact,delete', expected 'compact'",
            ),
        ):
            with pytest.raises(ConnectorError, match=words):
                await ensure(name, partitions, row_bytes)
        assert await ensure("large", 1, 2**21)
        assert not await ensure("large", 1, 2**21)
        with pytest.raises(
            ConnectorError,
            match=r"changelog 'copies': cannot be created: .*only 1 broker.* \[store\] replication_factor",
        ):
            await topics.ensure_changelog(client, WHERE, "copies", 1, 3, 100)

    on(secure, cases)


def test_a_changelog_name_is_a_topic_name() -> None:
    """Pipeline and topic make its name; one that is too long is refused rather than cut."""
    assert topics.changelog_topic("p", "frames") == "p-frames-changelog"
    with pytest.raises(ConnectorError, match=r"251 characters, a topic's name has at most 249"):
        topics.changelog_topic("p" * 120, "t" * 120)


def test_input_that_would_be_gone_is_refused(secure: Secure) -> None:
    """Retention below ten checkpoint intervals, and compaction; what is kept for ever, or long enough, is taken."""
    make(secure, "short", retention_ms="299999")
    make(secure, "enough", retention_ms="300000")
    make(secure, "ever", retention_ms="-1")
    make(secure, "compacted", cleanup_policy="compact")

    async def cases(client: AIOKafkaAdminClient) -> None:
        await topics.check_input(client, WHERE, ["enough", "ever"], 30)
        with pytest.raises(
            ConnectorError, match=r"topic 'short': retention.ms is 299999, expected at least 300000, 10 checkpoint"
        ):
            await topics.check_input(client, WHERE, ["ever", "short"], 30)
        with pytest.raises(ConnectorError, match=r"topic 'compacted': cleanup.policy is 'compact'"):
            await topics.check_input(client, WHERE, ["compacted"], 30)

    on(secure, cases)


def test_settings_that_may_not_be_seen_are_taken_as_usual(secure: Secure, caplog: pytest.LogCaptureFixture) -> None:
    """Without DescribeConfigs the topic's largest batch is taken for the default, and a line in the log says so."""
    name = make(secure, "hidden")
    config = source(secure.sasl, security("SASL_PLAINTEXT", "PLAIN", "mallory"))
    with caplog.at_level(logging.WARNING, "undertow"):
        size = run(administered(config, secure.folder, lambda c: topics.largest_message(c, WHERE, name)))
    assert size == 1_048_588
    assert "topic 'hidden': no DescribeConfigs on it" in caplog.text
