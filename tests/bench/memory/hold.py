"""Idle clients: ``python -m tests.bench.memory.hold KIND PORT COUNT BODY`` opens COUNT connections and holds them.

KIND is ``http`` (keep-alive) or ``ws``. Each has had one event acknowledged, so that what a server keeps for a
connection that has worked is there. Prints ``held`` when all of them are, and lets go when its standard input ends.
"""

import resource
import socket
import sys
from collections.abc import Sequence

from tests.bench.ws.load import frame_of, handshake_of

__all__ = ["main", "open_some"]

#: Opened at a time: their requests wait for Kafka together.
_AT_ONCE = 100
_PATIENCE_S = 30.0
#: Beside its connections a process has a few files open.
_OTHER_FILES = 50


def open_some(kind: str, port: int, count: int, body: bytes) -> list[socket.socket]:
    """Connect, have one event acknowledged on each; returns them, idle.

    Raises:
        ValueError: an answer is none that accepts an event, or a connection has ended.
    """
    opened = [socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) for _ in range(count)]
    if kind == "ws":
        for each in opened:
            each.sendall(handshake_of(port))
        for each in opened:
            _read(each, b'"op":"hello"', b"HTTP/1.1 101")
        for each in opened:
            each.sendall(frame_of(b'{"op":"track","id":1,"api":"heap","body":%b}' % body))
        for each in opened:
            _read(each, b'"op":"ack"', b"")
    else:
        request = f"POST /api/track HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for each in opened:
            each.sendall(request + body)
        for each in opened:
            _read(each, b"\r\n\r\n{}", b"HTTP/1.1 200")
    return opened


def _read(connection: socket.socket, until: bytes, first: bytes) -> None:
    data = b""
    while until not in data:
        more = connection.recv(65_536)
        if not more:
            raise ValueError(f"the server closed the connection after {data[:200]!r}")
        data += more
        if not data.startswith(first[: len(data)]):
            raise ValueError(f"the server said {data[:200]!r}")


def hold(kind: str, port: int, count: int, body: bytes) -> Sequence[socket.socket]:
    """Open all of them. Raises SystemExit where this process may not have so many files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if count + _OTHER_FILES > most:
        raise SystemExit(f"{count} connections need as many open files, and this process may have {most}: ulimit -n")
    held: list[socket.socket] = []
    while len(held) < count:
        held += open_some(kind, port, min(_AT_ONCE, count - len(held)), body)
    return held


def main() -> None:
    """Hold until standard input ends."""
    kind, port, count, body = sys.argv[1:]
    try:
        held = hold(kind, int(port), int(count), body.encode())
    except (ValueError, OSError) as error:
        raise SystemExit(f"the connections cannot be held: {error}") from None
    print("held", flush=True)
    sys.stdin.read()
    for each in held:
        each.close()


if __name__ == "__main__":
    main()
