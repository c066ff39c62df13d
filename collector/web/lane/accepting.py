# flake8: noqa: ASYNC910
# Connections that are gone already cost nothing.
"""Connections as they come in: from Hypercorn's hands, and with them those that wait behind.

Owns: a connection before and after its requests: its socket, its addresses, its place among the others. Refuses to
know: requests.

Non-obvious: Hypercorn accepts one connection in a turn of the loop, by way of Trio's listener and stream. Each that it
starts here takes along who waits behind it in the kernel's queue, straight from the listening socket: they wait one
turn and not as many as they are, and cost less: 135 in place of 190 µs of the server for a connection with one request
(wrk with 64 clients that close, on a busy machine; uvicorn 155, the stock server 1070 there).
"""

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from collector.web.lane.connection import Address, Connection
from collector.web.lane.socket_transport import SocketTransport
from collector.web.lane.tls_transport import TlsTransport
from collector.web.lane.transport import Transport
from collector.web.listeners import refuse

if TYPE_CHECKING:
    from collector.web.lane.lane import Lane

__all__ = ["Accepted"]

#: So many are taken along at most, and begin in the next turn.
BURST = 64


class Accepted:
    """A connection that Hypercorn has accepted."""

    def __init__(self, lane: "Lane", state: dict[str, Any], stream: trio.SocketStream) -> None:
        self._lane = lane
        self._state = state
        self._stream = stream

    async def run(self) -> None:
        """Serve it; never raises for it. On cancellation: it is closed."""
        lane, state = self._lane, self._state
        # The nursery is Hypercorn's own for connections: it ends them when the time to drain is over.
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        for other in _waiting(lane.listener):
            nursery.start_soon(_serve, lane, other, state, name="lane: a connection")
        await _serve(lane, _take_socket(self._stream), state)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    for _ in range(BURST):
        try:
            sock, _address = listener.accept()
        except OSError:  # nobody; or no descriptors, which Hypercorn says
            return
        yield sock


def _take_socket(stream: trio.SocketStream) -> socket.socket:
    """The socket of a stream of Trio's, which is empty afterwards."""
    theirs = stream.socket
    return socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())


async def _serve(lane: "Lane", sock: socket.socket, state: dict[str, Any]) -> None:
    """One connection from its first byte to its last. On cancellation: it is closed."""
    sock.setblocking(False)
    try:
        client, server = _address(sock, sock.getpeername()), _address(sock, sock.getsockname())
    except OSError:  # it is gone
        sock.close()
        return
    plain = SocketTransport(sock, lane.reactor, lane.config.http.send_timeout_s)
    transport: Transport = plain if lane.tls is None else TlsTransport(plain, lane.tls)
    connection = Connection(lane, transport, client, server, state)
    if not lane.limits.take(connection):
        refuse(sock, cleartext=lane.tls is None)
        return
    lane.connections.add(connection)
    try:
        await connection.run()
    finally:
        lane.connections.discard(connection)
        lane.limits.give_back(connection)


def _address(sock: socket.socket, name: Any) -> Address:
    return (name[0], name[1]) if sock.family in (socket.AF_INET, socket.AF_INET6) else None
