"""What a configuration's values may be beyond their types: ranges, addresses, names, and pairs that must fit.

Owns: the checks of one value and of neighbours. Refuses to know: files and environment; the chain of deadlines.

Invariant: each problem names the path of the key to change, and what would be allowed.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TypeAlias

from collector.config import (
    REMEMBERED_EVENT_BYTES,
    Config,
    HttpConfig,
    KafkaConfig,
    KeysConfig,
    LimitsConfig,
    NginxConfig,
)
from kafka_client.config import split_address
from kafka_client.errors import ConfigError
from kafka_client.network.client_credentials import token_endpoint_host
from kafka_client.security import check_spelling

__all__ = ["Problem", "problems_of", "split_bind"]

#: (path of the key, what would be allowed).
Problem: TypeAlias = tuple[str, str]

KEY_MAX_CHARS = 255
"""An app's name or a key; they stand in every record."""

WORKERS_MOST = 256
"""Processes; a typing error rather than a machine of that many cores is beyond it."""

# Zero means "not at all" for these; every other duration, size or count must be positive.
_MAY_BE_ZERO = frozenset(
    {
        "kafka.linger_s",
        "deadlines.spool_s",
        "shutdown.delay_s",
        "limits.discard_bytes",
        "limits.discard_s",
        "limits.bad_events_per_s",
    }
)
# What the kernel takes: a C int; a TCP_USER_TIMEOUT of 0 ms would be none.
_KERNELS: dict[str, tuple[float, float]] = {"http.backlog": (1, 2**31 - 1), "http.send_timeout_s": (0.001, 2_000_000)}
# Source: Kafka's org.apache.kafka.common.internals.Topic: legal characters and maximal length.
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_ORIGIN = re.compile(r"(\*|https?://[^/\s]+)\Z")
# Both stand in nginx's configuration as they are.
_UPSTREAM_HOST = re.compile(r"[A-Za-z0-9.:_-]+\Z")
_NGINX_FILE = re.compile(r"/[A-Za-z0-9._/+@-]*[A-Za-z0-9._+@-]\Z")


def problems_of(config: Config) -> Iterator[Problem]:
    """Everything that is wrong with ``config``, in the order of its tables."""
    yield from _numbers(config)
    yield from _addresses(config)
    yield from _http(config.http)
    yield from _kafka(config.kafka)
    yield from _limits(config.limits)
    yield from _spool(config)
    yield from _retry_memory(config)
    yield from _workers(config)
    yield from _keys(config.keys)
    yield from _nginx(config.nginx)


def split_bind(bind: str) -> tuple[str, int]:
    """``"host:port"`` or ``"[::1]:port"`` as (host, port); port 0 means any free one. Raises `ValueError`."""
    host, colon, port = bind.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"expected host:port with a port of 0 to 65535, got {bind!r}")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(f"expected host:port, an IPv6 address in brackets, got {bind!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _numbers(config: Config) -> Iterator[Problem]:
    for section in fields(config):
        table = getattr(config, section.name)
        for member in fields(table):
            value = getattr(table, member.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            path = f"{section.name}.{member.name}"
            if path in _MAY_BE_ZERO:
                if not value >= 0:
                    yield path, f"expected 0 or more, got {value}"
            elif not value > 0:
                yield path, f"expected more than 0, got {value}"
            least, most = _KERNELS.get(path, (value, value))
            if not least <= value <= most:
                yield path, f"expected {least} to {most}, got {value}"


def _addresses(config: Config) -> Iterator[Problem]:
    binds = {"http.bind": config.http.bind, "admin.bind": config.admin.bind, "nginx.listen": config.nginx.listen}
    if config.metrics.bind is not None:
        binds["metrics.bind"] = config.metrics.bind
    for path, bind in binds.items():
        try:
            split_bind(bind)
        except ValueError as error:
            yield path, str(error)
    for network in config.http.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield "http.trusted_proxies", f"expected networks such as 10.0.0.0/8 or ::1/128, got {network!r}"
    for origin in config.http.cors_origins:
        if not _ORIGIN.match(origin):
            yield "http.cors_origins", f'expected "*" or origins such as https://example.com, got {origin!r}'


def _http(http: HttpConfig) -> Iterator[Problem]:
    for name in ("ssl_keyfile", "ssl_keyfile_password"):
        if getattr(http, name) is not None and http.ssl_certfile is None:
            yield f"http.{name}", "needs http.ssl_certfile beside it"


def _kafka(kafka: KafkaConfig) -> Iterator[Problem]:
    if not kafka.bootstrap_servers:
        yield "kafka.bootstrap_servers", "is empty; expected at least one host:port"
    for server in kafka.bootstrap_servers:
        try:
            split_address(server)
        except ConfigError:
            yield "kafka.bootstrap_servers", f"expected host:port, got {server!r}"
    for path, topic in (("kafka.topic", kafka.topic), ("kafka.bad_topic", kafka.bad_topic)):
        if topic is not None and (not _TOPIC.match(topic) or topic in (".", "..")):
            yield path, f"expected 1 to 249 of letters, digits, '.', '_', '-', got {topic!r}"
    if kafka.bad_topic == kafka.topic:
        yield "kafka.bad_topic", "expected another topic than kafka.topic, or empty for none"
    if not kafka.produce_timeout_s < kafka.request_timeout_s < kafka.delivery_timeout_s:
        yield (
            "kafka.request_timeout_s",
            "expected produce_timeout_s < request_timeout_s < delivery_timeout_s, got "
            f"{kafka.produce_timeout_s:g}, {kafka.request_timeout_s:g}, {kafka.delivery_timeout_s:g}",
        )
    if kafka.ssl_keyfile is not None and kafka.ssl_certfile is None:
        yield "kafka.ssl_keyfile", "needs kafka.ssl_certfile beside it"
    if not kafka.security_protocol.endswith("SSL"):
        yield from _unused(kafka, _TLS_KEYS, 'kafka.security_protocol = "SSL" or "SASL_SSL"')
    if not kafka.security_protocol.startswith("SASL"):
        yield from _unused(kafka, _SASL_KEYS, 'kafka.security_protocol = "SASL_SSL" or "SASL_PLAINTEXT"')
    else:
        yield from _sasl(kafka)


_TLS_KEYS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password")
_PASSWORD_KEYS = ("sasl_username", "sasl_password", "sasl_password_file")
_ENDPOINT_KEYS = (
    "sasl_oauth_client_id",
    "sasl_oauth_client_secret",
    "sasl_oauth_client_secret_file",
    "sasl_oauth_scope",
    "sasl_oauth_ssl_cafile",
)
_OAUTH_KEYS = ("sasl_oauth_token_endpoint_url", "sasl_oauth_token_file", *_ENDPOINT_KEYS)
_SASL_KEYS = ("sasl_mechanism", *_PASSWORD_KEYS, *_OAUTH_KEYS)


def _unused(kafka: KafkaConfig, names: tuple[str, ...], where: str) -> Iterator[Problem]:
    for name in names:
        if getattr(kafka, name) is not None:
            yield f"kafka.{name}", f"is used only with {where}"


def _sasl(kafka: KafkaConfig) -> Iterator[Problem]:
    match kafka.sasl_mechanism:
        case None:
            yield (
                "kafka.sasl_mechanism",
                f'kafka.security_protocol = "{kafka.security_protocol}" needs one of "PLAIN", "SCRAM-SHA-256", '
                '"SCRAM-SHA-512", "OAUTHBEARER"',
            )
        case "OAUTHBEARER":
            yield from _unused(kafka, _PASSWORD_KEYS, "kafka.sasl_mechanism PLAIN and SCRAM-SHA-…")
            yield from _oauth(kafka)
        case mechanism:
            yield from _unused(kafka, _OAUTH_KEYS, 'kafka.sasl_mechanism = "OAUTHBEARER"')
            if not kafka.sasl_username:
                yield "kafka.sasl_username", f"is needed with kafka.sasl_mechanism = {mechanism}"
            yield from _one_of(kafka, "sasl_password", "sasl_password_file")
            for name in ("sasl_username", "sasl_password"):
                yield from _refused(partial(check_spelling, name, getattr(kafka, name) or "", mechanism))


def _refused(check: Callable[[], object]) -> Iterator[Problem]:
    """What kafka_client would refuse, whose names of the keys are ours."""
    try:
        check()
    except ConfigError as error:
        name, _, words = str(error).partition(": ")
        yield f"kafka.{name}", words


def _oauth(kafka: KafkaConfig) -> Iterator[Problem]:
    yield from _one_of(kafka, "sasl_oauth_token_endpoint_url", "sasl_oauth_token_file")
    if kafka.sasl_oauth_token_endpoint_url is None:
        yield from _unused(kafka, _ENDPOINT_KEYS, "kafka.sasl_oauth_token_endpoint_url")
        return
    if not kafka.sasl_oauth_client_id:
        yield "kafka.sasl_oauth_client_id", "is needed with kafka.sasl_oauth_token_endpoint_url"
    yield from _one_of(kafka, "sasl_oauth_client_secret", "sasl_oauth_client_secret_file")
    url = kafka.sasl_oauth_token_endpoint_url
    yield from _refused(partial(token_endpoint_host, url))
    for name in ("sasl_oauth_client_id", "sasl_oauth_client_secret", "sasl_oauth_scope"):
        yield from _refused(partial(check_spelling, name, getattr(kafka, name) or "", "OAUTHBEARER"))


def _one_of(kafka: KafkaConfig, one: str, other: str) -> Iterator[Problem]:
    if (getattr(kafka, one) is None) == (getattr(kafka, other) is None):
        yield f"kafka.{one}", f"either it or kafka.{other} is needed, and not both"


def _limits(limits: LimitsConfig) -> Iterator[Problem]:
    for small, large in (
        ("body_bytes", "in_work_bytes"),
        ("websocket_message_bytes", "websocket_credit_bytes"),
        ("websocket_message_bytes", "in_work_bytes"),
        ("in_flight_partition_bytes", "in_flight_bytes"),
        ("event_bytes", "queue_bytes"),
    ):
        if getattr(limits, small) > getattr(limits, large):
            least = getattr(limits, small)
            yield f"limits.{large}", f"expected at least limits.{small} ({least}), got {getattr(limits, large)}"


def _spool(config: Config) -> Iterator[Problem]:
    spool, limits = config.spool, config.limits
    if spool.path is None:
        return
    if config.deadlines.spool_s == 0:
        yield (
            "deadlines.spool_s",
            "is 0, so that no event could go to the spool at spool.path; expected more than 0, or no spool: "
            '[spool] path = ""',
        )
    for name in ("max_bytes", "replay_bytes"):
        value = getattr(spool, name)
        if value < limits.event_bytes:
            yield f"spool.{name}", f"expected at least limits.event_bytes ({limits.event_bytes}), got {value}"
    if spool.replay_bytes > limits.queue_bytes:
        yield (
            "spool.replay_bytes",
            f"expected at most limits.queue_bytes ({limits.queue_bytes}), got {spool.replay_bytes}",
        )


def _retry_memory(config: Config) -> Iterator[Problem]:
    events = config.limits.batch_events
    least = 2 * events * REMEMBERED_EVENT_BYTES
    if config.retry_memory.enabled and config.retry_memory.max_bytes < least:
        yield (
            "retry_memory.max_bytes",
            f"expected at least {least}, so that half of it holds a batch of limits.batch_events ({events}), or "
            f"retry_memory.enabled = false; got {config.retry_memory.max_bytes}",
        )


def _workers(config: Config) -> Iterator[Problem]:
    if config.workers.processes > WORKERS_MOST:
        yield "workers.count", f'expected 1 to {WORKERS_MOST} or "auto", got {config.workers.count}'
    if config.workers.hung_s <= config.limits.max_lag_s:
        yield "workers.hung_s", f"expected more than limits.max_lag_s ({config.limits.max_lag_s:g}): late is not hung"
    if config.workers.processes > 1 and sys.platform != "linux":
        yield "workers.count", "expected 1: only Linux spreads connections over several listeners of one address"


def _keys(keys: KeysConfig) -> Iterator[Problem]:
    owners: dict[tuple[str, str], str] = {}
    for app, given in keys.apps.items():
        if not 0 < len(app) <= KEY_MAX_CHARS or not app.isprintable():
            yield f"keys.{app[:40]}", f"expected a name of 1 to {KEY_MAX_CHARS} printable characters"
        if not given.write_keys and not given.app_ids:
            yield f"keys.{app}", "expected at least one of write_keys, app_ids"
        for kind in ("write_keys", "app_ids"):
            for key in getattr(given, kind):
                path = f"keys.{app}.{kind}"
                if not 0 < len(key) <= KEY_MAX_CHARS or not key.isprintable():
                    yield path, f"expected keys of 1 to {KEY_MAX_CHARS} printable characters"
                elif owners.setdefault((kind, key), app) != app:
                    yield path, f"a key of this list belongs to keys.{owners[kind, key]} already"


def _nginx(nginx: NginxConfig) -> Iterator[Problem]:
    for address in nginx.upstreams:
        try:
            host, port = split_bind(address)
        except ValueError as error:
            yield "nginx.upstreams", str(error)
        else:
            if not _UPSTREAM_HOST.match(host) or port == 0:
                yield "nginx.upstreams", f"expected host:port with a port of 1 to 65535, got {address!r}"
    if len(set(nginx.upstreams)) != len(nginx.upstreams):
        yield "nginx.upstreams", "expected each collector once"
    if not _NGINX_FILE.match(nginx.last_resort_file):
        yield (
            "nginx.last_resort_file",
            f"expected an absolute path of letters, digits and ._/+@-, got {nginx.last_resort_file!r}",
        )
