"""The whole ``nginx.conf``, put together.

Owns: the order of its parts. Refuses to know: their lines.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.dialects import make_dialects

from .errors import error_maps
from .last_resort import last_resort_maps
from .log import log_lines
from .maps import head_maps, real_address
from .place import NginxPlace
from .server import server_block
from .text import indented
from .upstream import collectors, key_maps, upstream_block

__all__ = ["render_nginx"]


def render_nginx(
    config: Config,
    *,
    upstreams: Sequence[str] = (),
    listen: str | None = None,
    place: NginxPlace | None = None,
) -> str:
    """Return the whole ``nginx.conf`` for this configuration.

    Args:
        upstreams: Addresses of the collectors, ``host:port``; by default ``[nginx] upstreams``, else ``[http] bind``.
        listen: What nginx listens on; by default ``[nginx] listen``.
        place: Where it keeps its files.
    """
    if upstreams:
        config = replace(config, nginx=replace(config.nginx, upstreams=tuple(upstreams)))
    chain = DeadlineChain.from_config(config)
    place = place or NginxPlace()
    dialects = tuple(make_dialects(config.limits).values())
    parts = (
        _general(config, place),
        log_lines(config, place),
        [*head_maps(config), *error_maps(dialects), *key_maps(config), *last_resort_maps(config, dialects)],
        upstream_block(config, chain),
        server_block(config, chain, dialects, listen or config.nginx.listen, place),
    )
    return "\n".join([*_main(config, place), "http {", *indented(_apart(parts)), "}\n"])


def _apart(parts: Iterable[Sequence[str]]) -> list[str]:
    """One empty line between two parts."""
    blocks = ["\n".join(part) for part in parts]
    return [f"{block}\n" for block in blocks[:-1]] + blocks[-1:]


def _main(config: Config, place: NginxPlace) -> list[str]:
    # An error names the client's whole address and the request line with its keys.
    level = "warn" if config.privacy.ip == "full" else "crit"
    lines = ["# Rendered by `collector render nginx`: change the collector's configuration, not this file."]
    if place.user is not None:
        lines.append(f"user {place.user};")
    lines += [f"worker_processes {place.processes};", f"pid {place.pid};", f"error_log {place.error_log} {level};"]
    if not place.daemon:
        lines.append("daemon off;")
    return [*lines, "", "events {", f"    worker_connections {config.nginx.worker_connections};", "}", ""]


def _general(config: Config, place: NginxPlace) -> list[str]:
    lines = ["server_tokens off;", "default_type application/octet-stream;", "uninitialized_variable_warn off;"]
    if place.temporary is not None:
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        lines += [f"{name}_temp_path {place.temporary}/{name};" for name in names]
    if config.nginx.last_resort == "accept" or len(collectors(config)) > 1:
        lines += real_address(config)
    return lines
