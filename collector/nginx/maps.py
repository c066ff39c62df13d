"""Variables that nginx derives from a request's head for the collector.

Owns: the request's id, the host, the upgrade, the client's address behind other proxies, and what a browser from
elsewhere may read. Refuses to know: who uses them.
"""

from collector.config import Config
from collector.web.cors import EXPOSED_HEADERS

from .text import quoted

__all__ = ["head_maps", "real_address"]


def real_address(config: Config) -> list[str]:
    """Return what makes ``$remote_addr`` the client's address where this nginx stands behind proxies of ours."""
    return [
        "# The client's address, also behind proxies of ours: found as the collector finds it.",
        *(f"set_real_ip_from {network};" for network in config.http.trusted_proxies),
        "real_ip_header X-Forwarded-For;",
        "real_ip_recursive on;",
    ]


def head_maps(config: Config) -> list[str]:
    """Return the maps that every location uses."""
    return [
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
        *_origins(config),
    ]


def _origins(config: Config) -> list[str]:
    """Which origin a browser is told about; as the collector's own answers do."""
    lines = ["map $http_origin $allowed_origin {"]
    if "*" in config.http.cors_origins:
        lines += ["    default $http_origin;"]
    else:
        lines += [f"    {quoted(origin)} $http_origin;" for origin in config.http.cors_origins]
        lines += ["    default '';"]
    lines += ["}", "map $allowed_origin $allowed_credentials {", "    '' '';", "    default true;", "}"]
    lines += ["map $allowed_origin $exposed_headers {", "    '' '';", f"    default '{EXPOSED_HEADERS.decode()}';", "}"]
    return [*lines, "map $http_origin $vary_by {", "    '' '';", "    default Origin;", "}"]
