"""What a pipeline file says of Kafka: `[source]` and `[sink]` with `type = "kafka"`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..codec_config import CodecConfig, JsonCodecConfig
from ..secret import Secret

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Text = Annotated[str, Meta(min_length=1)]


class SecurityConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`security`: how the brokers are reached, and as whom. Files are relative to the pipeline file's folder.

    ca_file: PEM, whose signature the brokers' certificates need; by default the system's authorities.
    certificate_file, key_file: PEM, the client's own, where brokers ask for one; the key may be in the certificate's file.
    verify_hostname: the certificate has to name the host that is connected to; its signature is checked in any case.
    username, password: of PLAIN and SCRAM. kerberos_service, kerberos_domain: of GSSAPI; the ticket is in the process's cache.
    token_file: of OAUTHBEARER, read anew for each connection; or a token is fetched with the client credentials from token_url.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None = None
    username: Text | None = None
    password: Secret | None = None
    password_file: Text | None = None
    ca_file: Text | None = None
    certificate_file: Text | None = None
    key_file: Text | None = None
    key_password: Secret | None = None
    key_password_file: Text | None = None
    verify_hostname: bool = True
    kerberos_service: Text | None = None
    kerberos_domain: Text | None = None
    token_file: Text | None = None
    token_url: Text | None = None
    client_id: Text | None = None
    client_secret: Secret | None = None
    client_secret_file: Text | None = None
    scope: Text | None = None


class KafkaSourceConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="kafka", kw_only=True):
    """`[source] type = "kafka"`: a stream is a record's key within its partition.

    topics: their names; or topic_pattern: a regular expression that whole names match. group_id: by default the pipeline's name.
    group_instance_id: static membership, so that a restart within the session timeout moves no partition.
    start: where a partition begins that the group has no offset of: "earliest", "latest", or ISO 8601.
    read: "committed" passes over the records of open and aborted transactions.
    max_poll_records: records of a poll. session_timeout_s, heartbeat_interval_s, rebalance_timeout_s: as Kafka's.
    max_partition_fetch_bytes, fetch_max_bytes: of one answer to a fetch, from one partition and in all.
    fetch_wait_s: a broker without news answers after so long. A partition that has news is not asked for them while its
        broker still waits for news of others, so this is latency too.
    request_timeout_s: a broker that does not answer for longer is given up; so is one that cannot be reached.
    stop_at_end: the run ends once it has processed what the topics held when it began.
    """

    bootstrap_servers: Text
    topics: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    topic_pattern: Text | None = None
    group_id: Text | None = None
    group_instance_id: Text | None = None
    codec: CodecConfig = JsonCodecConfig()
    start: Text = "earliest"
    read: Literal["committed", "uncommitted"] = "committed"
    sample_rate_hz: Annotated[float, Meta(gt=0)] | None = None
    max_poll_records: Positive = 8192
    session_timeout_s: Seconds = 10.0
    heartbeat_interval_s: Seconds = 0.5
    rebalance_timeout_s: Seconds = 30.0
    max_partition_fetch_bytes: Positive = 2**20
    fetch_max_bytes: Positive = 50 * 2**20
    fetch_wait_s: Seconds = 0.1
    request_timeout_s: Seconds = 30.0
    stop_at_end: bool = False
    client_id: Text = "undertow"
    security: SecurityConfig | None = None


class KafkaSinkConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="kafka", kw_only=True):
    """`[sink] type = "kafka"`.

    topic: has to exist. compression: of the records.
    max_batch_bytes: the most of one batch; less where the topic's max.message.bytes is less.
    delivery_timeout_s: what no broker has acknowledged for longer ends the run.
    """

    bootstrap_servers: Text
    topic: Text
    codec: CodecConfig = JsonCodecConfig()
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    max_batch_bytes: Annotated[int, Meta(ge=1024)] = 2**20
    delivery_timeout_s: Seconds = 120.0
    request_timeout_s: Seconds = 30.0
    client_id: Text = "undertow"
    security: SecurityConfig | None = None
