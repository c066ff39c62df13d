"""The sockets that clients connect to.

Owns: making and binding them, and what the kernel is told to do about clients that do not read. Refuses to know: which
server accepts on them.

Non-obvious: the stock server shields its sends from every deadline, so a client that does not read would hold a
connection, its tasks and its buffers for ever, and a graceful timeout would not free them. TCP_USER_TIMEOUT on the
listening socket is inherited by every accepted one, and ends it: unread data is data without acknowledgement.
Source: tcp(7); Linux counts zero-window probes as unacknowledged.
"""

import socket

import trio

from collector.config import HttpConfig
from collector.config_rules import split_bind

__all__ = ["address_of", "open_listener"]


async def open_listener(config: HttpConfig, *, key: str = "http.bind") -> socket.socket:
    """Bind and listen at ``[http] bind``; port 0 is any free one.

    Raises:
        OSError: the name does not resolve or the address is taken; the message names the key and the address.

    On cancellation: nothing is bound.
    """
    host, port = split_bind(config.bind)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"{key}: {config.bind}: {error.strerror or error}") from error
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.send_timeout_s * 1000))
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(config.backlog)
    except OSError as error:
        listener.close()
        raise OSError(f"{key}: {config.bind}: {error.strerror or error}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """``host:port`` of a listening socket, for a URL; a wildcard is shown as the loopback address of its family."""
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        return f"[{'::1' if host == '::' else host}]:{port}"
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
