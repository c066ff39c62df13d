"""nginx's side of the collector, rendered from the collector's own configuration.

Owns: the text of ``nginx.conf``: the proxy and its timeouts, the forms of nginx's own errors, its log. Refuses to know:
how nginx is installed, started or supervised.

Invariants: no number is typed here that stands in the configuration or in the deadline chain; nginx's own errors have
the words of the dialect whose path was asked for, since those words are the dialect's own answers; and no client ever
sees a 502 or a 504.

How it works:
- A body is read whole before the collector sees it (``proxy_request_buffering on``): a slow phone costs nginx a
  buffer, not the collector a reservation, and the client's clock starts when the body is complete. A body that stops
  half-way ends with nginx's ``client_body_timeout``: nginx closes such a connection without an answer, and nothing
  can make it say one.
- A client that hangs up after its last byte is not a reason to stop (``proxy_ignore_client_abort on``).
- A POST that was sent is never sent again (no ``non_idempotent``); one that found no connection, or none in time,
  goes to the next collector. A GET counts as repeatable for nginx, so where a GET carries an event the next try is off;
  a websocket's handshake carries none. ``proxy_next_upstream_timeout`` leaves no time for another try after a late
  answer.
- ``error_page`` takes its address from the path asked for, so one set of lines serves every location, and the broken
  heads that never reach one.
- The access log has the status that nginx meant (``status``) beside the one it sent (``sent``), and a client's address
  only as far as ``[privacy] ip`` allows; the error log names addresses in full, hence its level.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.dialects import Answer, ClientFault, Dialect, make_dialects
from collector.web.answers import RETRY_AFTER_S, plain
from collector.web.cors import EXPOSED_HEADERS

__all__ = ["NginxPlace", "render_nginx"]

#: Half a head is worth this long; a phone on a bad network sends one within a second.
CLIENT_HEADER_TIMEOUT_S = 10
#: Pixel requests carry an event in their address.
CLIENT_HEADER_BUFFER = "64k"
#: Above it a body goes through a temporary file. Most are a few kB.
CLIENT_BODY_BUFFER = "256k"
#: The form of paths that no dialect owns.
PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxPlace:
    """Where one nginx keeps its files. The default is where Debian's package has them."""

    pid: str = "/run/nginx.pid"
    error_log: str = "/var/log/nginx/error.log"
    access_log: str = "/var/log/nginx/access.log"
    temporary: str | None = None
    """A directory for request bodies; None takes the built-in one."""
    user: str | None = "www-data"
    """None where nginx is not started as root."""
    processes: str = "auto"
    daemon: bool = True

    @classmethod
    def within(cls, directory: Path, *, user: str | None) -> "NginxPlace":
        """Everything in one directory, in the foreground, with one worker: for ``collector dev`` and the tests."""
        return cls(
            pid=f"{directory}/nginx.pid",
            error_log=f"{directory}/error.log",
            access_log=f"{directory}/access.log",
            temporary=str(directory),
            user=user,
            processes="1",
            daemon=False,
        )


#: What nginx's own errors come to: the page's name, the statuses that it answers, the code and words of the answer; no
#: code where the error is temporary. 494 is nginx's word for a header above the buffers.
_ERRORS: tuple[tuple[str, tuple[int, ...], str | None, str], ...] = (
    ("bad_request", (400, 411, 421, 501, 505), "bad_request", "the request cannot be read"),
    ("not_found", (404,), "not_found", "there is nothing at this path"),
    ("bad_method", (405,), "method_not_allowed", "this method is not known here"),
    ("body_too_large", (413,), "too_large", "the body is too large"),
    ("head_too_large", (414, 494), "too_large", "the request's head is too large"),
    ("overloaded", (500, 503), None, "the proxy is overloaded; send it again later"),
    ("unreachable", (502,), None, "the collector cannot be reached; send it again later"),
    ("late", (504,), None, "the collector did not answer in time, the outcome is unknown; send it again later"),
)


def render_nginx(
    config: Config,
    *,
    upstreams: Sequence[str] = (),
    listen: str | None = None,
    place: NginxPlace | None = None,
) -> str:
    """Return the whole ``nginx.conf`` for this configuration.

    Args:
        upstreams: Addresses of the collectors, ``host:port``; by default ``[http] bind``.
        listen: What nginx listens on; by default ``[nginx] listen``.
        place: Where it keeps its files.
    """
    chain = DeadlineChain.from_config(config)
    place = place or NginxPlace()
    dialects = tuple(make_dialects(config.limits).values())
    blocks = (
        _main(config, place),
        "http {",
        *_indented(
            (
                _general(place),
                _log(config, place),
                _maps(config, dialects),
                _upstream(config, chain, upstreams or (config.http.bind,)),
                _server(config, chain, dialects, listen or config.nginx.listen),
            )
        ),
        "}\n",
    )
    return "\n".join(blocks)


def _indented(blocks: Iterable[str]) -> list[str]:
    return ["\n".join(f"    {line}" if line else "" for line in block.split("\n")) for block in blocks]


def _main(config: Config, place: NginxPlace) -> str:
    # An error names the client's whole address and the request line with its keys.
    level = "warn" if config.privacy.ip == "full" else "crit"
    lines = ["# Rendered by `collector render nginx`: change the collector's configuration, not this file."]
    if place.user is not None:
        lines.append(f"user {place.user};")
    lines += [f"worker_processes {place.processes};", f"pid {place.pid};", f"error_log {place.error_log} {level};"]
    if not place.daemon:
        lines.append("daemon off;")
    lines += ["", "events {", f"    worker_connections {config.nginx.worker_connections};", "}", ""]
    return "\n".join(lines)


def _general(place: NginxPlace) -> str:
    lines = ["server_tokens off;", "default_type application/octet-stream;", "uninitialized_variable_warn off;"]
    if place.temporary is not None:
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        lines += [f"{name}_temp_path {place.temporary}/{name};" for name in names]
    return "\n".join([*lines, ""])


_ADDRESS_MAPS = {
    "truncated": r"""
    ~^(?<four>\d+\.\d+\.\d+)\.\d+$ $four.0;
    ~^(?<three>[0-9a-f]+:[0-9a-f]+:[0-9a-f]+): $three::;
    ~^(?<two>[0-9a-f]+:[0-9a-f]+):: $two::;
    ~^(?<one>[0-9a-f]+):: $one::;
    default -;""",
    "none": "\n    default -;",
    "full": "\n    default $remote_addr;",
}

_LOG_MEMBERS = (
    ("time", "$time_iso8601"),
    ("request_id", "$passed_request_id"),
    ("ip", "$logged_address"),
    ("method", "$requested_method"),
    ("path", "$requested_path"),
    ("status", "$meant_status"),
    ("sent", "$status"),
    ("request_bytes", "$request_length"),
    ("bytes", "$bytes_sent"),
    ("seconds", "$request_time"),
    ("upstream", "$upstream_addr"),
    ("upstream_status", "$upstream_status"),
    ("upstream_connect_s", "$upstream_connect_time"),
    ("upstream_s", "$upstream_response_time"),
)


def _log(config: Config, place: NginxPlace) -> str:
    members = ",".join(f'"{name}":"{variable}"' for name, variable in _LOG_MEMBERS)
    return "\n".join(
        [
            f"map $remote_addr $logged_address {{{_ADDRESS_MAPS[config.privacy.ip]}",
            "}",
            "# Keys stand in queries: the log has the path alone.",
            "map $request_uri $requested_path {",
            "    ~^(?<asked>[^?]*) $asked;",
            "    default -;",
            "}",
            "# An error page makes a GET of every request.",
            "map $request $requested_method {",
            "    '~^(?<verb>[A-Z]{1,16}) ' $verb;",
            "    default -;",
            "}",
            "map $nginx_status $meant_status {",
            "    '' $status;",
            "    default $nginx_status;",
            "}",
            f"log_format collector escape=json '{{{members}}}';",
            f"access_log {place.access_log} collector{' buffer=64k flush=1s' if place.daemon else ''};",
            "",
        ]
    )


def _maps(config: Config, dialects: Sequence[Dialect]) -> str:
    lines = [
        "# A client's own request id is passed on where it is one, else nginx gives one.",
        "map $http_x_request_id $passed_request_id {",
        "    '~^[A-Za-z0-9._:/+=-]{1,128}$' $http_x_request_id;",
        "    default $request_id;",
        "}",
        "# HTTP/1.0 needs no Host; HTTP/1.1, which the collector is spoken to, does.",
        "map $http_host $upstream_host {",
        "    '' localhost;",
        "    default $http_host;",
        "}",
        "map $http_upgrade $upgrade_connection {",
        "    '' '';",
        "    default upgrade;",
        "}",
        "map $requested_path $error_form {",
    ]
    for dialect in dialects:
        lines += [f"    ~^{prefix} {dialect.name};" for prefix in _prefixes(dialect)]
    lines += [f"    default {PLAIN};", "}", *_origins(config)]
    least, most = RETRY_AFTER_S
    parts = [f"    {100 // (most - least + 1)}% {seconds};" for seconds in range(least, most)]
    lines += ["split_clients $request_id $retry_after_s {", *parts, f"    * {most};", "}"]
    temporary = "|".join(str(status) for _, statuses, code, _ in _ERRORS if code is None for status in statuses)
    lines += [
        "map $nginx_status $error_retry_after_s {",
        f"    ~^({temporary})$ $retry_after_s;",
        "    default '';",
        "}",
    ]
    lines.append("")
    return "\n".join(lines)


def _origins(config: Config) -> list[str]:
    """Which origin a browser is told about; as the collector's own answers do."""
    lines = ["map $http_origin $allowed_origin {"]
    if "*" in config.http.cors_origins:
        lines += ["    default $http_origin;"]
    else:
        lines += [f"    {_quoted(origin)} $http_origin;" for origin in config.http.cors_origins]
        lines += ["    default '';"]
    lines += ["}", "map $allowed_origin $allowed_credentials {", "    '' '';", "    default true;", "}"]
    lines += ["map $allowed_origin $exposed_headers {", "    '' '';", f"    default '{EXPOSED_HEADERS.decode()}';", "}"]
    return [*lines, "map $http_origin $vary_by {", "    '' '';", "    default Origin;", "}"]


def _upstream(config: Config, chain: DeadlineChain, upstreams: Sequence[str]) -> str:
    servers = [f"    server {address} max_fails={chain.upstream_max_fails};" for address in upstreams]
    return "\n".join(
        [
            "upstream collector {",
            *servers,
            f"    keepalive {config.nginx.keepalive};",
            f"    keepalive_timeout {_seconds(chain.upstream_keepalive_timeout_s)};",
            f"    keepalive_requests {chain.upstream_keepalive_requests};",
            "}",
            "",
        ]
    )


def _server(config: Config, chain: DeadlineChain, dialects: Sequence[Dialect], listen: str) -> str:
    gets = sorted({route.path for dialect in dialects for route in dialect.routes if route.method == "GET"})
    lines = [
        "server {",
        f"    listen {listen};",
        f"    client_max_body_size {config.limits.body_bytes};",
        f"    client_body_buffer_size {CLIENT_BODY_BUFFER};",
        f"    client_body_timeout {_seconds(chain.client_body_timeout_s)};",
        f"    client_header_timeout {CLIENT_HEADER_TIMEOUT_S}s;",
        "    client_header_buffer_size 4k;",
        f"    large_client_header_buffers 4 {CLIENT_HEADER_BUFFER};",
        f"    keepalive_timeout {_seconds(config.http.idle_timeout_s)};",
        f"    send_timeout {_seconds(config.http.send_timeout_s)};",
        "",
        "    proxy_http_version 1.1;",
        "    proxy_set_header Connection '';",
        *_proxy_headers(),
        "    proxy_request_buffering on;",
        "    proxy_ignore_client_abort on;",
        "    proxy_socket_keepalive on;",
        f"    proxy_connect_timeout {_milliseconds(chain.proxy_connect_timeout_s)};",
        f"    proxy_send_timeout {_milliseconds(chain.proxy_send_timeout_s)};",
        f"    proxy_read_timeout {_milliseconds(chain.proxy_read_timeout_s)};",
        "    proxy_next_upstream error timeout;",
        f"    proxy_next_upstream_timeout {_milliseconds(chain.proxy_next_upstream_timeout_s)};",
        f"    proxy_next_upstream_tries {chain.proxy_next_upstream_tries};",
        "",
    ]
    for name, statuses, _, _ in _ERRORS:
        lines += [f"    error_page {status} = /_error/$error_form/{name}/{status};" for status in statuses]
    lines += _location("/", ["proxy_pass http://collector;"])
    for path in gets:
        lines += _location(f"= {path}", ["proxy_next_upstream off;", "proxy_pass http://collector;"])
    lines += _location(
        "= /v1/ws",
        [
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection $upgrade_connection;",
            *(line.strip() for line in _proxy_headers()),
            "proxy_buffering off;",
            "proxy_ignore_client_abort off;",
            f"proxy_read_timeout {_seconds(chain.websocket_read_timeout_s)};",
            f"proxy_send_timeout {_seconds(chain.websocket_read_timeout_s)};",
            "proxy_pass http://collector;",
        ],
    )
    lines += _error_pages(dialects)
    return "\n".join([*lines, "}"])


def _proxy_headers() -> list[str]:
    return [
        "    proxy_set_header Host $upstream_host;",
        "    proxy_set_header X-Request-Id $passed_request_id;",
        "    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "    proxy_set_header X-Forwarded-Proto $scheme;",
    ]


def _location(name: str, lines: Iterable[str]) -> list[str]:
    return ["", f"    location {name} {{", *(f"        {line}" if line else "" for line in lines), "    }"]


def _error_pages(dialects: Sequence[Dialect]) -> list[str]:
    """The addresses that ``error_page`` leads to; the headers are the same for all of them."""
    lines = [
        "internal;",
        "add_header X-Request-Id $passed_request_id always;",
        "add_header Retry-After $error_retry_after_s always;",
        "add_header Access-Control-Allow-Origin $allowed_origin always;",
        "add_header Access-Control-Allow-Credentials $allowed_credentials always;",
        "add_header Access-Control-Expose-Headers $exposed_headers always;",
        "add_header Vary $vary_by always;",
    ]
    for dialect in (*dialects, None):
        form = PLAIN if dialect is None else dialect.name
        for name, _, code, text in _ERRORS:
            answer = _answer(dialect, code, text)
            lines += [
                "",
                f"location ~ ^/_error/{form}/{name}/(?<nginx_status>[0-9]+)$ {{",
                "    internal;",
                f"    default_type {_quoted(answer.content_type)};",
                f"    return {answer.status} {_quoted(answer.body.decode())};",
                "}",
            ]
    return _location("/_error/", lines)


def _answer(dialect: Dialect | None, code: str | None, text: str) -> Answer:
    """Bad for ever is 400, everything temporary is 503, in the dialect's words."""
    if code is None:
        return plain(503, text) if dialect is None else dialect.unavailable(None, text)
    return plain(400, text) if dialect is None else dialect.refused(None, ClientFault(code, text))


def _prefixes(dialect: Dialect) -> list[str]:
    """The first segments under which a dialect's paths lie: ``/v1/``."""
    found = {f"/{route.path.split('/')[1]}/" for route in dialect.routes if route.path.count("/") >= 2}
    return sorted(found)


def _seconds(value: float) -> str:
    return f"{value:g}s" if value == int(value) else _milliseconds(value)


def _milliseconds(value: float) -> str:
    return f"{round(value * 1000)}ms"


def _quoted(text: str) -> str:
    """nginx's single quotes. A dollar sign would name a variable and cannot be escaped, so there may be none."""
    if "$" in text:
        raise ValueError(f"cannot stand in nginx's configuration: {text!r}")
    for plain_text, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\r", "\\r"), ("\n", "\\n")):
        text = text.replace(plain_text, escaped)
    return f"'{text}'"
