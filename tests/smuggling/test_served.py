"""The corpus and random connections over real sockets: the lane answers what its parser reads, refuses, and closes."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest
import trio

from collector.config import Config, HttpConfig
from collector.web.connections import ConnectionLimits
from collector.web.lane.parser import RequestParser
from collector.web.listeners import open_listener
from collector.web.server import serve_http
from tests.smuggling.case import LIMITS
from tests.smuggling.generator import LAST, connections
from tests.smuggling.test_corpus import CORPUS

pytestmark = pytest.mark.integration

CONFIG = Config(http=HttpConfig(bind="127.0.0.1:0"), limits=replace(LIMITS, connections=1000))
CLOSING_FOLLOWER = LAST
AT_ONCE = 16
#: The lines of an answer that begin one; no body here has anything like them.
_STATUS = re.compile(rb"(?:^|\n)HTTP/1\.1 (\d{3}) ")
_TOLD = re.compile(rb"<([^>]*)>")


async def telling(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked, and with how much; says nothing where the body does not come to its end."""
    if scope["type"] != "http":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    told = b"<%b %b %d>\n" % (scope["method"].encode(), path.replace(b"<", b"").replace(b">", b""), length)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, int]]:
    """The lane on a port."""
    listener = await open_listener(CONFIG.http)
    address = listener.getsockname()
    limits = ConnectionLimits(CONFIG.limits.connections)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_http, telling, CONFIG, listener, limits, shutdown=trio.sleep_forever))
        yield address
        nursery.cancel_scope.cancel(reason="the test is over")


def expected(raw: bytes) -> tuple[list[int], list[bytes]]:
    """The statuses that the parser makes one expect, and what the application tells."""
    parser = RequestParser(CONFIG.limits)
    parser.feed(raw)
    told = []
    whole = [request for request in parser.requests if request.complete]
    for request in whole:
        path, _, query = request.target.partition(b"?")
        target = path + (b"?" + query if query else b"")
        clean = target.replace(b"<", b"").replace(b">", b"")
        told.append(b"%b %b %d" % (request.method.encode(), clean, request.body_bytes))
    statuses = [200] * len(whole)
    open_body = len(whole) < len(parser.requests)
    if parser.refusal is not None:
        statuses.append(parser.refusal.status)
    elif parser.started or open_body:
        statuses.append(400)  # the client's end has come first
    return statuses, [each for each in told if not each.startswith(b"HEAD ")]


async def answered(address: tuple[str, int], raw: bytes) -> tuple[list[int], list[bytes]]:
    """The statuses that come back, and what the application told."""
    answers = b""
    with trio.fail_after(20):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(raw)
            await stream.send_eof()
            while data := await stream.receive_some():
                answers += data
    statuses = [status for status in map(int, _STATUS.findall(b"\n" + answers)) if status != 100]
    return statuses, _TOLD.findall(answers)


async def wrong(raws: Iterable[bytes]) -> list[tuple[bytes, object, object]]:
    """Connections that were answered otherwise than the parser reads them."""
    found: list[tuple[bytes, object, object]] = []
    waiting = iter(raws)
    async with served() as address:

        async def one_after_the_other() -> None:
            await trio.lowlevel.checkpoint()
            for raw in waiting:
                want, got = expected(raw), await answered(address, raw)
                if want != got:
                    found.append((raw, want, got))

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(one_after_the_other)
    return found


async def test_corpus_is_answered_as_it_is_read() -> None:
    assert await wrong(case.raw + CLOSING_FOLLOWER for case in CORPUS) == []


async def test_random_connections_are_answered_as_they_are_read() -> None:
    assert await wrong(raw for raw, _ in islice(connections(seed=11), 400)) == []
