"""Real nginx, configured as `collector render nginx` does, in front of a server that writes down what it is sent.

Each connection to nginx comes from a loopback address of its own, which nginx passes on in X-Forwarded-For: so the
requests of one connection are found again behind it, in their order.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from collector.config import Config
from collector.devtools.nginx import open_nginx
from collector.web.lane.parser import RequestParser
from tests.smuggling.case import Read
from tests.smuggling.verdict import NginxView

__all__ = ["Stage", "open_stage"]

#: The status of an answer that came from behind nginx, and not from itself.
SEEN = 299
ANSWER = b"HTTP/1.1 299 Seen\r\nContent-Length: 0\r\n\r\n"

#: nginx passes these on: control characters in a value, bytes beyond ASCII in a target, a Host that is none. The lane
#: answers 400, as RFC 9110, 5.5 and RFC 9112, 3 and 3.2 have it; about where such a request ends the two agree.
FORWARDED_AND_REFUSED = re.compile(r"control character|no request line|the Host field is no host")

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CLOSE = b"\r\nConnection: close\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
_CLIENT = re.compile(rb"\r\nX-Forwarded-For: (?:[^\r]*, )?(127\.\d+\.\d+\.\d+)\r\n")

ANSWER_TIMEOUT_S = 20.0


@dataclass
class Stage:
    """What stands behind nginx, and has seen of each client address."""

    address: tuple[str, int]
    seen: dict[bytes, list[Read]] = field(default_factory=lambda: defaultdict(list))
    forwarded: int = 0
    refused: list[tuple[str, bytes]] = field(default_factory=list)
    """What nginx forwarded and the lane's parser refused: why, and the bytes."""
    differing: list[bytes] = field(default_factory=list)
    """What nginx forwarded and the lane's parser understood otherwise than by its length."""
    _hosts: "itertools.count[int]" = field(default_factory=lambda: itertools.count(2))

    async def ask(self, raw: bytes) -> NginxView:
        """Send ``raw`` over a connection of its own and close our side of it; what nginx made of it.

        Raises:
            trio.TooSlowError: nginx did not come to an end.
        """
        number = next(self._hosts)
        host = f"127.{number >> 16 & 127}.{number >> 8 & 255}.{number & 255}"
        sock = trio.socket.socket()
        await sock.bind((host, 0))
        answers = b""
        with trio.fail_after(ANSWER_TIMEOUT_S):
            await sock.connect(self.address)
            async with trio.SocketStream(sock) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream, raw)
                while data := await _received(stream):
                    answers += data
                    if _CLOSE in answers:
                        break  # its last word; where it refused a body it would linger for 5 s
                nursery.cancel_scope.cancel(reason="nginx has closed")
        return _view(answers, self.seen.pop(host.encode(), []))

    async def _send(self, stream: trio.SocketStream, raw: bytes) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await stream.send_all(raw)
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass  # nginx has refused and closed before it read everything

    async def serve(self, stream: trio.SocketStream) -> None:
        """One of nginx's connections."""
        parser = RequestParser(Config().limits)
        buffered = b""
        while data := await _received(stream):
            buffered += data
            while (end := buffered.find(b"\r\n\r\n")) >= 0:
                head = buffered[: end + 4]
                length = _LENGTH.search(head)
                whole = len(head) + (int(length[1]) if length else 0)
                if len(buffered) < whole:
                    break
                request, buffered = buffered[:whole], buffered[whole:]
                if not self._note(parser, request, len(head)):
                    parser = RequestParser(Config().limits)
                await stream.send_all(ANSWER)

    def _note(self, parser: RequestParser, request: bytes, head: int) -> bool:
        """Write down one forwarded request; False where the lane's parser would have ended the connection."""
        self.forwarded += 1
        method, target, _ = request.split(b" ", 2)
        read = Read(method.decode(), target, request[head:])
        client = _CLIENT.search(request, 0, head)
        assert client is not None, request
        self.seen[client[1]].append(read)
        parser.feed(request)
        if parser.refusal is not None:
            self.refused.append((str(parser.refusal), request))
            return False
        ours = [Read(each.method, each.target, each.take()) for each in parser.requests]
        if ours != [read] or not parser.requests[0].complete or parser.rest or not parser.requests[0].keep_alive:
            self.differing.append(request)
            return False
        parser.requests.clear()
        return True


async def _received(stream: trio.SocketStream) -> bytes:
    await trio.lowlevel.checkpoint()
    try:
        return bytes(await stream.receive_some(65536))
    except trio.BrokenResourceError:
        return b""  # nginx resets where it closes on bytes that it has not read


def _view(answers: bytes, seen: list[Read]) -> NginxView:
    """Put the requests that were seen behind nginx where nginx passed on an answer."""
    statuses = [int(status) for status in _STATUS.findall(answers)]
    final = [status for status in statuses if status != 100]
    view = NginxView()
    behind = iter(seen)
    for status in final:
        view.reads.append(next(behind, None) if status == SEEN else None)
    # What is left was answered, and the answer lost, as nginx reset the connection on bytes that it did not want.
    view.reads.extend(behind)
    refused = bool(final) and final[-1] != SEEN
    if refused:
        # Its own word about bytes that are no request, not about one.
        view.reads.pop()
    view.ending = "closed" if refused or _CLOSE in answers else "waiting"
    return view


def _without_access_log(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "access.log").symlink_to("/dev/null")


@asynccontextmanager
async def open_stage(directory: Path, config: Config) -> AsyncIterator[Stage]:
    """nginx and what stands behind it, for as long as the block lasts. nginx's access log goes nowhere."""
    _without_access_log(directory)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    port = listener.socket.getsockname()[1]
    async with (
        trio.open_nursery() as nursery,
        open_nginx(config, directory, upstreams=[f"127.0.0.1:{port}"], listen="127.0.0.1:0") as nginx,
    ):
        host, _, nginx_port = nginx.address.rpartition(":")
        stage = Stage((host, int(nginx_port)))
        await nursery.start(partial(trio.serve_listeners, stage.serve, [listener]))
        yield stage
        nursery.cancel_scope.cancel(reason="the stage is struck")
