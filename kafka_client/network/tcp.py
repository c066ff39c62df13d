"""The TCP socket to a broker.

Owns: how it is made and which options it gets. Refuses to know: TLS, Kafka.

Invariant: TCP_USER_TIMEOUT is ``request_timeout_s``, never less: it also ends a connection whose
peer acknowledges but does not read (zero window: a stopped broker, or any broker behind a long request). It is what
finds a black hole while data is unacknowledged; keep-alive finds dead idle connections only, since it rests meanwhile.

Source: tcp(7); RFC 5482; RFC 8305 (happy eyeballs, which Trio does).
"""

import socket

import trio

__all__ = ["connect_tcp"]

# Seconds of silence before the first probe, between probes, and probes without an answer: a dead idle peer is found
# after a minute. Brokers close idle connections themselves after ten (connections.max.idle.ms).
_KEEPALIVE_IDLE_S = 30
_KEEPALIVE_INTERVAL_S = 10
_KEEPALIVE_PROBES = 3


async def connect_tcp(host: str, port: int, *, user_timeout_s: float) -> trio.SocketStream:
    """Connect to ``host``, trying its addresses as RFC 8305 says. Raises OSError.

    On cancellation: nothing is left open.
    """
    stream = await trio.open_tcp_stream(host, port)
    set_options(stream, user_timeout_s)
    return stream


def set_options(stream: trio.SocketStream, user_timeout_s: float) -> None:
    """Set what `connect_tcp` promises; options that a system lacks are left out."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", round(user_timeout_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
