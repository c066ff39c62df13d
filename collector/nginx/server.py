"""nginx's server block: what it takes, how long it waits, where a request goes.

Owns: the locations and the proxy's settings. Refuses to know: the upstream block, the words of an answer.
"""

from collections.abc import Sequence

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.dialects import Dialect

from .errors import error_locations, error_pages
from .last_resort import body_buffer, kept_instead, last_resort_locations
from .place import NginxPlace
from .text import location, milliseconds, seconds
from .upstream import next_try

__all__ = ["server_block"]

#: Half a head is worth this long; a phone on a bad network sends one within a second.
CLIENT_HEADER_TIMEOUT_S = 10
#: Pixel requests carry an event in their address.
CLIENT_HEADER_BUFFER = "64k"


def server_block(
    config: Config, chain: DeadlineChain, dialects: Sequence[Dialect], listen: str, place: NginxPlace
) -> list[str]:
    """Return the server block."""
    gets = sorted({route.path for dialect in dialects for route in dialect.routes if route.method == "GET"})
    lines = [
        "server {",
        f"    listen {listen};",
        f"    client_max_body_size {config.limits.body_bytes};",
        *(f"    {line}" for line in body_buffer(config)),
        f"    client_body_timeout {seconds(chain.client_body_timeout_s)};",
        f"    client_header_timeout {CLIENT_HEADER_TIMEOUT_S}s;",
        "    client_header_buffer_size 4k;",
        f"    large_client_header_buffers 4 {CLIENT_HEADER_BUFFER};",
        f"    keepalive_timeout {seconds(config.http.idle_timeout_s)};",
        f"    send_timeout {seconds(config.http.send_timeout_s)};",
        "",
        "    proxy_http_version 1.1;",
        "    proxy_set_header Connection '';",
        *(f"    {line}" for line in _proxy_headers()),
        "    proxy_request_buffering on;",
        "    proxy_ignore_client_abort on;",
        "    proxy_socket_keepalive on;",
        f"    proxy_connect_timeout {milliseconds(chain.proxy_connect_timeout_s)};",
        f"    proxy_send_timeout {milliseconds(chain.proxy_send_timeout_s)};",
        f"    proxy_read_timeout {milliseconds(chain.proxy_read_timeout_s)};",
        *(f"    {line}" for line in next_try(chain)),
        "",
        *error_pages(kept_instead(config)),
    ]
    lines += location("/", ["proxy_pass http://collector;"])
    for path in gets:
        lines += location(f"= {path}", ["proxy_next_upstream off;", "proxy_pass http://collector;"])
    lines += location(
        "= /v1/ws",
        [
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection $upgrade_connection;",
            *_proxy_headers(),
            "proxy_buffering off;",
            "proxy_ignore_client_abort off;",
            f"proxy_read_timeout {seconds(chain.websocket_read_timeout_s)};",
            f"proxy_send_timeout {seconds(chain.websocket_read_timeout_s)};",
            "proxy_pass http://collector;",
        ],
    )
    lines += last_resort_locations(config, dialects, place)
    return [*lines, *error_locations(dialects), "}"]


def _proxy_headers() -> list[str]:
    return [
        "proxy_set_header Host $upstream_host;",
        "proxy_set_header X-Request-Id $passed_request_id;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
    ]
