"""Idle clients: ``python -m tests.bench.memory.hold KIND PORT COUNT BODY`` opens COUNT connections and holds them.

KIND is ``http`` (keep-alive) or ``ws``. Each has had one event acknowledged, so that what a server keeps for a
connection that has worked is there. Prints ``held`` when all of them are, and lets go when its standard input ends.
"""

import resource
import socket
import sys
import time
from collections.abc import Sequence

from tests.bench.ws.load import frame_of, handshake_of

__all__ = ["main", "open_some"]

#: Opened at a time: their requests wait for Kafka together.
_AT_ONCE = 100
_PATIENCE_S = 30.0
#: A busy server is asked again, as its clients do, only sooner.
_BUSY = b"HTTP/1.1 503"
_AGAIN_S = 0.5
#: Beside its connections a process has a few files open.
_OTHER_FILES = 50


def open_some(kind: str, port: int, count: int, body: bytes) -> list[socket.socket]:
    """Connect, have one event acknowledged on each; returns them, idle. Those that were answered 503 are closed.

    Raises:
        ValueError: an answer is neither, or a connection has ended.
    """
    opened = [socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) for _ in range(count)]
    if kind == "ws":
        opened = _exchange(opened, handshake_of(port), b'"op":"hello"', b"HTTP/1.1 101")
        return _exchange(opened, frame_of(b'{"op":"track","id":1,"api":"heap","body":%b}' % body), b'"op":"ack"', b"")
    request = f"POST /api/track HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return _exchange(opened, request + body, b"\r\n\r\n{}", b"HTTP/1.1 200")


def _exchange(opened: list[socket.socket], sent: bytes, until: bytes, first: bytes) -> list[socket.socket]:
    """Send to all, then read from all; returns those with an answer that begins with ``first``."""
    for each in opened:
        each.sendall(sent)
    taken = []
    for each in opened:
        if _read(each, until, first):
            taken.append(each)
        else:
            each.close()
    return taken


def _read(connection: socket.socket, until: bytes, first: bytes) -> bool:
    data = b""
    while until not in data:
        more = connection.recv(65_536)
        if not more:
            raise ValueError(f"the server closed the connection after {data[:200]!r}")
        data += more
        if data.startswith(_BUSY):
            return False
        if not data.startswith(first[: len(data)]):
            raise ValueError(f"the server said {data[:200]!r}")
    return True


def hold(kind: str, port: int, count: int, body: bytes) -> Sequence[socket.socket]:
    """Open all of them. Raises SystemExit where this process may not have so many files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if count + _OTHER_FILES > most:
        raise SystemExit(f"{count} connections need as many open files, and this process may have {most}: ulimit -n")
    held: list[socket.socket] = []
    while len(held) < count:
        asked = min(_AT_ONCE, count - len(held))
        taken = open_some(kind, port, asked, body)
        held += taken
        if len(taken) < asked:
            time.sleep(_AGAIN_S)
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
