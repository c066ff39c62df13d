"""The collectors behind nginx, which of them a request goes to, and which one next.

Owns: the upstream block, the choice by key, the next try. Refuses to know: what a key is worth.

Invariant: a POST of which a byte was sent is never sent to another collector. ``non_idempotent`` is not among the
reasons for a next try, so after ``error`` as after ``timeout`` only a try that could not connect has a next one.
"""

from collector.config import Config
from collector.deadlines import DeadlineChain

from .text import milliseconds, seconds

__all__ = ["collectors", "key_maps", "next_try", "upstream_block"]

#: Where the key of a request stands, the first that is there.
_KEY_PLACES = ("http_authorization", "arg_writeKey", "arg_key", "http_x_write_key")


def collectors(config: Config) -> tuple[str, ...]:
    """Return the addresses behind nginx."""
    return config.nginx.upstreams or (config.http.bind,)


def key_maps(config: Config) -> list[str]:
    """Return the maps that end in ``$collector_key``; none with one collector."""
    if len(collectors(config)) == 1:
        return []
    lines = ["# Authorization, else the key in the query, else X-Write-Key; nginx does not see a key in the body."]
    otherwise = "''"
    for place in reversed(_KEY_PLACES):
        chosen = "$collector_key" if place == _KEY_PLACES[0] else f"$key_from_{place.lower()}"
        lines += [f"map ${place} {chosen} {{", f"    '' {otherwise};", f"    default ${place};", "}"]
        otherwise = chosen
    return lines


def upstream_block(config: Config, chain: DeadlineChain) -> list[str]:
    """Return the upstream block."""
    addresses = collectors(config)
    lines = ["upstream collector {"]
    if len(addresses) > 1:
        lines += [
            "    # A client that comes back after a 503 finds the collector that it was at, whose memory knows which",
            "    # events of the batch it has accepted. It is chosen by key and address: by key alone all clients",
            "    # of an app would meet at one. A collector that cannot be reached is passed over; one more or",
            "    # less moves no more clients than it must.",
            "    hash $collector_key$remote_addr consistent;",
        ]
    return [
        *lines,
        *(f"    server {address} max_fails={chain.upstream_max_fails};" for address in addresses),
        f"    keepalive {config.nginx.keepalive};",
        f"    keepalive_timeout {seconds(chain.upstream_keepalive_timeout_s)};",
        f"    keepalive_requests {chain.upstream_keepalive_requests};",
        "}",
    ]


def next_try(chain: DeadlineChain) -> list[str]:
    """Return when a request goes to another collector."""
    return [
        "proxy_next_upstream error timeout;",
        f"proxy_next_upstream_timeout {milliseconds(chain.proxy_next_upstream_timeout_s)};",
        f"proxy_next_upstream_tries {chain.proxy_next_upstream_tries};",
    ]
