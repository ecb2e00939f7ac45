"""What a pipeline file says of Kafka: `[source]` and `[sink]` with `type = "kafka"`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..files_config import CodecConfig

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Text = Annotated[str, Meta(min_length=1)]


class KafkaSourceConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="kafka", kw_only=True):
    """`[source] type = "kafka"`: a stream is a record's key within its partition.

    topics: their names; or topic_pattern: a regular expression that whole names match. group_id: by default the pipeline's name.
    group_instance_id: static membership, so that a restart within the session timeout moves no partition.
    start: where a partition begins that the group has no offset of: "earliest", "latest", or ISO 8601.
    read: "committed" passes over the records of open and aborted transactions.
    max_poll_records: records of a poll. session_timeout_s, heartbeat_interval_s, rebalance_timeout_s: as Kafka's.
    """

    bootstrap_servers: Text
    topics: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    topic_pattern: Text | None = None
    group_id: Text | None = None
    group_instance_id: Text | None = None
    codec: CodecConfig = CodecConfig()
    start: Text = "earliest"
    read: Literal["committed", "uncommitted"] = "committed"
    sample_rate_hz: Annotated[float, Meta(gt=0)] | None = None
    max_poll_records: Positive = 8192
    session_timeout_s: Seconds = 10.0
    heartbeat_interval_s: Seconds = 0.5
    rebalance_timeout_s: Seconds = 30.0


class KafkaSinkConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="kafka", kw_only=True):
    """`[sink] type = "kafka"`. topic: has to exist. compression: of the records."""

    bootstrap_servers: Text
    topic: Text
    codec: CodecConfig = CodecConfig()
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
