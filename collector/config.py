"""The collector's configuration: one frozen tree, every limit named with its unit.

Owns: the schema, its defaults, and what each value may be. Refuses to know: where the values come from
(`collector.cli` and `collector.asgi` load them) and what is done with them.
"""

import os
from dataclasses import dataclass, field
from typing import Literal

MIB = 1024 * 1024
KIB = 1024
REMEMBERED_EVENT_BYTES = 128
"""Of an entry of the retry memory at its worst moment, right after its table has grown: 60 B of table and two ints of
32 B (CPython 3.11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """``[http]``: the listener that faces clients (usually nginx)."""

    bind: str = "127.0.0.1:8080"
    server: Literal["lane", "stock"] = "lane"
    """Who speaks HTTP/1.1: our own lane under Hypercorn, or Hypercorn's own stack."""
    backlog: int = 1024
    """Connections that wait in the kernel to be accepted. Beyond it a connect gets no answer, and nginx says 503 after
    its ``proxy_connect_timeout``."""
    idle_timeout_s: float = 75.0
    """A connection without a request, or with half a head, is closed after this long; longer than nginx keeps it."""
    head_timeout_s: float = 10.0
    """A head must be complete this long after its first byte; then 408 and the connection is closed. The lane's."""
    body_timeout_s: float = 30.0
    """A body must be complete this long after its head; then 400 and the connection is closed."""
    send_timeout_s: float = 5.0
    """TCP_USER_TIMEOUT: a client that does not read what we wrote for this long is dropped. Below ``drain_s``."""
    ssl_certfile: str | None = None
    """PEM, with the whole chain; with it the listener speaks TLS."""
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    http2: bool = False
    """Take HTTP/2 too (by ALPN with TLS, else by its preface): through Hypercorn's own stack."""
    ping_s: float = 20.0
    """Websocket ping interval; shorter than nginx's ``proxy_read_timeout`` for websockets."""
    websocket_deflate: bool = False
    """Take permessage-deflate from websockets that offer it (without context takeover): fewer bytes, more CPU. The
    lane's."""
    cors_origins: tuple[str, ...] = ("*",)
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Peers whose X-Forwarded-For and X-Request-Id are believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """``[admin]``: metrics, debug pages, control. Keep it private."""

    bind: str = "127.0.0.1:8081"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """``[metrics]``: where ``/metrics`` is served; None serves it with ``[admin]`` only."""

    bind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """``[kafka]``: where the events go."""

    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    topic: str = "events"
    bad_topic: str | None = "events-bad"
    format: Literal["envelope"] = "envelope"
    key: Literal["identity", "app+identity", "hash", "none"] = "identity"
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    linger_s: float = 0.002
    produce_timeout_s: float = 10.0
    request_timeout_s: float = 30.0
    delivery_timeout_s: float = 120.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_password_file: str | None = None
    """Instead of ``sasl_password``; read again at each authentication, as every ``_file`` here."""
    sasl_oauth_token_endpoint_url: str | None = None
    """For OAUTHBEARER: where tokens are got with client credentials (RFC 6749 section 4.4)."""
    sasl_oauth_client_id: str | None = None
    sasl_oauth_client_secret: str | None = field(default=None, repr=False)
    sasl_oauth_client_secret_file: str | None = None
    sasl_oauth_scope: str | None = None
    sasl_oauth_ssl_cafile: str | None = None
    """Certificates to trust at the token endpoint; none takes the system's."""
    sasl_oauth_token_file: str | None = None
    """Instead of an endpoint: a file with a token that somebody else keeps fresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinesConfig:
    """``[deadlines]``: the client's chain. The clock starts when the body is complete, less the loop lag of then."""

    kafka_s: float = 3.0
    spool_s: float = 0.8
    """The disk's share. Without a spool it is Kafka's."""
    answer_s: float = 0.2
    stall_s: float = 1.0

    @property
    def enqueue_s(self) -> float:
        """What one request may take from its complete body to its answer."""
        return self.kafka_s + self.spool_s + self.answer_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """``[limits]``: every bound of memory, in bytes, and the loop-lag bound."""

    request_line_bytes: int = 8 * KIB
    head_bytes: int = 32 * KIB
    """A request's line and all its header fields, trailers too; beyond it 431."""
    head_fields: int = 128
    read_ahead_bytes: int = 64 * KIB
    """Of one connection: what is read of a body that nobody takes, or of requests behind the one in work."""
    body_bytes: int = 4 * MIB
    """One request body, as sent and inflated alike."""
    event_bytes: int = 1_000_000
    """One event's own bytes; checked against the topic's ``max.message.bytes`` less the envelope."""
    batch_events: int = 2500
    """In one body. Parsing has no checkpoint: so many of Segment's, of 300 bytes each, hold the loop for 6.6 ms."""
    batch_copies_bytes: int = 16 * MIB
    """A batch's top level stands in the record of each of its events: all these copies together."""
    bad_events_per_s: float = 10.0
    """Of one key, to the bad topic; what is beyond is counted only. 0 sends none."""
    in_work_bytes: int = 64 * MIB
    """Bodies admitted and not answered. One write key may hold half of it while others are being shed."""
    discard_bytes: int = 8 * MIB
    """How much of a refused body is read and thrown away, for at most ``discard_s``, before the answer."""
    discard_s: float = 1.0
    connections: int = 10_000
    websocket_message_bytes: int = 1 * MIB
    websocket_credit_bytes: int = 4 * MIB
    queue_bytes: int = 64 * MIB
    waiting_bytes: int = 64 * MIB
    in_flight_bytes: int = 64 * MIB
    in_flight_partition_bytes: int = 8 * MIB
    max_lag_s: float = 0.3
    """Loop lag above which new requests are shed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppKeys:
    """``[keys.<app>]``: what a client may present to be this app."""

    write_keys: tuple[str, ...] = ()
    app_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolConfig:
    """``[spool]``: what Kafka does not take now waits here, on the local disk."""

    path: str | None = ".collector/spool"
    """A directory; each process has a file of its own in it. Empty: no spool. ":memory:": a volatile one, for tests."""
    max_bytes: int = 1024 * MIB
    """Records in the spool, dead ones too; beyond it events are refused (503)."""
    order: Literal["none", "key"] = "none"
    """"key": events of one key keep their order through an outage; new ones wait behind those in the spool."""
    age_alarm_s: float = 900.0
    """A row older than this is an alarm, and nothing else: no row is ever deleted for its age."""
    replay_bytes: int = 4 * MIB
    """The replay's share of the producer: records in work at once."""
    replay_events_per_s: float = 5000.0
    """The replay's pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryMemoryConfig:
    """``[retry_memory]``: which events were accepted lately, so that a repeated batch sends only what is missing."""

    enabled: bool = True
    max_bytes: int = 32 * MIB
    """A remembered event takes up to `REMEMBERED_EVENT_BYTES`, so this is a quarter of a million of them."""
    minutes: float = 10.0
    """An event is remembered for at least half of this where the bytes suffice, and never longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysConfig:
    """``[keys]``: ``open = true`` takes any key, and the app is that key."""

    open: bool = False
    apps: dict[str, AppKeys] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """``[workers]``: how many processes serve ``[http] bind``. Every limit of this file is one process's."""

    count: int | Literal["auto"] = 1
    """``auto``: one for each core that this process may run on."""
    hung_s: float = 10.0
    """A worker whose loop says nothing for this long is replaced: its stacks go to the log, then SIGTERM, SIGKILL."""

    @property
    def processes(self) -> int:
        """``count`` as a number."""
        return len(os.sched_getaffinity(0)) if self.count == "auto" else self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """``[shutdown]``: not ready for ``delay_s`` while still accepting, then at most ``drain_s`` for what is in work."""

    delay_s: float = 5.0
    drain_s: float = 10.0
    """For clients and the producer together: what the clients leave of it is the producer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """``[quota]``: the dialects' own rate limits; off unless the operator asks."""

    heap_per_identity: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """``[privacy]``: what of a client's address is kept: truncated (/24, /48), full, or none."""

    ip: Literal["truncated", "full", "none"] = "truncated"


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxConfig:
    """``[nginx]``: what the rendered nginx listens on. Its timeouts are derived, never typed."""

    listen: str = "127.0.0.1:8088"
    worker_connections: int = 4096
    keepalive: int = 64
    """Idle connections that each nginx worker keeps to the collector."""
    upstreams: tuple[str, ...] = ()
    """The collectors, ``host:port``; empty: ``[http] bind``. With several, a key's requests go to one of them."""
    last_resort: Literal["off", "accept"] = "off"
    """``accept``: nginx itself keeps an event request and answers 200 where no collector can be reached."""
    last_resort_file: str = "/var/lib/collector/last-resort/requests.log"
    """Where it keeps them, for ``collector replay``: mode 0600, in a directory 0700, on a place of limited size."""
    last_resort_body_bytes: int = 1 * MIB
    """The largest body that nginx holds in memory, hence keeps (at most ``limits.body_bytes``); larger ones: 503."""
    last_resort_free_bytes: int = 256 * MIB
    """``collector check`` fails where less is free beside the file: a full disk loses what was answered 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """``[check]``: ``strict`` makes ``min.insync.replicas = 1`` an error."""

    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole tree, one member a table of the file."""

    http: HttpConfig = HttpConfig()
    admin: AdminConfig = AdminConfig()
    metrics: MetricsConfig = MetricsConfig()
    kafka: KafkaConfig = KafkaConfig()
    deadlines: DeadlinesConfig = DeadlinesConfig()
    limits: LimitsConfig = LimitsConfig()
    spool: SpoolConfig = SpoolConfig()
    retry_memory: RetryMemoryConfig = RetryMemoryConfig()
    keys: KeysConfig = KeysConfig()
    workers: WorkersConfig = WorkersConfig()
    shutdown: ShutdownConfig = ShutdownConfig()
    quota: QuotaConfig = QuotaConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    nginx: NginxConfig = NginxConfig()
    check: CheckConfig = CheckConfig()
    log: LogConfig = LogConfig()
