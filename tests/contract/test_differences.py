"""The two servers, and where they may differ: nowhere but here.

Everything else that is tested over a socket is tested on both (`ours` here, `serve` in tests/collector/web): the lane,
which serves by default, and the stock server, Hypercorn's own HTTP/1.1 (h11) as `collector.web.stock` runs it.

======================================  ==================================  ==================================
what                                    the lane                            the stock server
======================================  ==================================  ==================================
a head that is refused                  its status, a sentence, close       400 (501), empty, close
what h11 makes good (`LENIENT`)         refused, as RFC 9112 allows         taken
limits on heads (`LIMITED`)             414, 431: ``[limits]``              h11's: 16 KiB of an incomplete head
a head that stops                       408 after ``head_timeout_s``        closed after ``idle_timeout_s``
a broken body                           its status, a sentence, close       400, empty; extensions are taken
CONNECT                                 501, close                          given to the application
HTTP/2 where it is not configured       505; ``Upgrade: h2c`` overlooked    spoken
HTTP/1.0 with keep-alive                stays open                          closed
connections beyond the bound            503, close                          closed
idle connections, draining              answered once more, then closed     closed at once
frames sent with a websocket handshake  kept for the application            400 (test_websocket)
the phrase of an answer's status        ``200 OK``                          ``200`` and a space
======================================  ==================================  ==================================
"""

from dataclasses import replace

import pytest
import trio

from collector.config import Config, HttpConfig, LimitsConfig, ShutdownConfig
from tests.contract.test_http import GET, answer, reading

CONFIG = Config(http=HttpConfig(bind="127.0.0.1:0", send_timeout_s=1.0), shutdown=ShutdownConfig(drain_s=2.0))

LANE = pytest.mark.parametrize("ours", ["lane"], indirect=True)
STOCK = pytest.mark.parametrize("ours", ["stock"], indirect=True)

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Name, bytes, the lane's status; the stock server's is 200.
LENIENT = [
    ("a bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("a folded field", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    ("both lengths", CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"0\r\n\r\n", 400),
    ("equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", 400),
    ("chunks in HTTP/1.0", CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n", 400),
    ("another version", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2 in words", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("a host that is none", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("the asterisk for a GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a control character", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x01c\r\n\r\n", 400),
]
LIMITED = [
    ("a long request line", b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("many fields", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: x\r\n" * 200 + b"\r\n", 431),
    ("a long head", b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", 431),
]
REFUSED = [
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("a NUL", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00\r\n\r\n", 400),
    ("a length that is none", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n", 400),
    ("another coding", CHUNKED.replace(b"chunked", b"gzip, chunked"), 501),
]


def ids(value: object) -> str | None:
    """A case's name."""
    return value if isinstance(value, str) else ""


async def exchange(server, raw: bytes, *, seconds: float = 3.0) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to ``raw``, where the server closes behind it."""
    received = b""
    async with await server.connect() as client:
        await client.send_all(raw)
        with trio.fail_after(seconds):
            while data := await client.receive_some():
                received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head.lower(), body


async def first_status(server, raw: bytes) -> int:
    """The status of the answer to ``raw``, whatever becomes of the connection."""
    async with await server.connect() as client:
        await client.send_all(raw)
        with trio.fail_after(3):
            return int((await client.receive_some()).split(b" ")[1])


@LANE
@pytest.mark.parametrize(("name", "raw", "status"), [*REFUSED, *LENIENT, *LIMITED], ids=ids)
async def test_refused_head_lane_says_why_and_closes(ours, name: str, raw: bytes, status: int) -> None:
    async with ours(reading, CONFIG) as server:
        got, head, body = await exchange(server, raw)

    assert got == status, name
    assert b"\r\ncontent-type: text/plain" in head
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    assert 10 < len(body) < 300


@STOCK
@pytest.mark.parametrize(("name", "raw", "status"), REFUSED, ids=ids)
async def test_refused_head_stock_says_nothing_and_closes(ours, name: str, raw: bytes, status: int) -> None:
    async with ours(reading, CONFIG) as server:
        got, head, body = await exchange(server, raw)

    assert (got, body) == (status, b""), name
    assert b"\r\nconnection: close" in head


@STOCK
@pytest.mark.parametrize(("name", "raw", "status"), [*LENIENT, *LIMITED[:2]], ids=ids)
async def test_lenient_head_stock_takes(ours, name: str, raw: bytes, status: int) -> None:
    async with ours(reading, CONFIG) as server:
        assert await first_status(server, raw) == 200 != status, name


@LANE
async def test_head_that_stops_lane_is_told_408(ours) -> None:
    config = replace(CONFIG, http=replace(CONFIG.http, head_timeout_s=0.3))
    async with ours(reading, config) as server:
        status, head, _ = await exchange(server, b"POST /v1/track HTTP/1.1\r\nhost:")
        assert await server.wait_left(0, 1.0)

    assert status == 408
    assert b"\r\nconnection: close" in head


BROKEN_BODIES = [
    ("a size that is none", CHUNKED + b"5\r\nhello\r\nzz\r\n", 400),
    ("an extension", CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n", 400),
    ("a bare LF", CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    ("many trailers", CHUNKED + b"0\r\n" + b"A: x\r\n" * 200 + b"\r\n", 431),
]


@LANE
@pytest.mark.parametrize(("name", "raw", "status"), BROKEN_BODIES, ids=ids)
async def test_broken_body_lane_is_refused_whatever_the_application_says(
    ours, name: str, raw: bytes, status: int
) -> None:
    async with ours(reading, CONFIG) as server:
        got, head, body = await exchange(server, raw)
        assert await server.wait_left(0, 1.0)

    assert got == status, name
    assert b"\r\nconnection: close" in head
    assert b"ok" not in body


@STOCK
async def test_broken_body_stock_takes_extensions_and_refuses_sizes(ours) -> None:
    async with ours(reading, CONFIG) as server:
        assert [await first_status(server, raw) for _, raw, _ in BROKEN_BODIES[:2]] == [400, 200]


@LANE
async def test_connect_lane_refuses(ours) -> None:
    async with ours(reading, CONFIG) as server:
        assert (await exchange(server, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 501


@STOCK
async def test_connect_stock_gives_to_the_application(ours) -> None:
    async with ours(reading, CONFIG) as server:
        assert await first_status(server, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n") == 200


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
#: A SETTINGS frame's type, behind its length (RFC 9113, section 4.1).
SETTINGS = 4


H2C = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
)


async def speaks_http2(server) -> bool:
    """Whether the answer to a preface is a frame of settings."""
    async with await server.connect() as client:
        await client.send_all(PREFACE)
        with trio.fail_after(3):
            return (await client.receive_some())[3] == SETTINGS


@LANE
async def test_http2_lane_refuses_where_it_is_not_configured(ours) -> None:
    async with ours(reading, CONFIG) as server:
        assert (await exchange(server, PREFACE))[0] == 505
        assert await first_status(server, H2C) == 200


@STOCK
async def test_http2_stock_speaks_unasked(ours) -> None:
    async with ours(reading, CONFIG) as server:
        assert await speaks_http2(server)
        assert await first_status(server, H2C) == 101


async def test_http2_is_spoken_where_it_is_configured(ours) -> None:
    config = replace(CONFIG, http=replace(CONFIG.http, http2=True))
    async with ours(reading, config) as server:
        assert await speaks_http2(server)
        assert await first_status(server, H2C) == 101


KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


@LANE
async def test_http_1_0_with_keep_alive_lane_stays_open(ours) -> None:
    async with ours(reading, CONFIG) as server, await server.connect() as client:
        for _ in range(2):
            await client.send_all(KEPT)
            assert b"\r\nconnection: keep-alive\r\n" in await answer(client)


@STOCK
async def test_http_1_0_with_keep_alive_stock_closes(ours) -> None:
    async with ours(reading, CONFIG) as server:
        status, head, _ = await exchange(server, KEPT)

    assert status == 200
    assert b"\r\nconnection: close" in head


CROWDED = replace(CONFIG, limits=replace(LimitsConfig(), connections=1))


@LANE
async def test_connection_beyond_the_bound_lane_is_told_503(ours) -> None:
    async with ours(reading, CROWDED) as server, await server.connect() as first:
        await first.send_all(GET)
        await answer(first)
        assert (await exchange(server, GET))[0] == 503


@STOCK
async def test_connection_beyond_the_bound_stock_is_closed_without_a_word(ours) -> None:
    async with ours(reading, CROWDED) as server, await server.connect() as first:
        await first.send_all(GET)
        await answer(first)
        async with await server.connect() as second:
            with trio.fail_after(1):
                assert await second.receive_some() == b""


@STOCK
async def test_incomplete_head_stock_is_refused_beyond_16_kib(ours) -> None:
    async with ours(reading, CONFIG) as server:
        got, _, body = await exchange(server, b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 20_000)

    assert (got, body) == (431, b"")


@LANE
async def test_idle_connection_lane_is_answered_once_more_while_draining(ours) -> None:
    async with ours(reading, CONFIG) as server, await server.connect() as client:
        await client.send_all(GET)
        assert b"connection: close" not in await answer(client)
        server.shutdown.set()
        await trio.sleep(0.2)
        await client.send_all(GET)
        assert b"connection: close" in await answer(client)
        with trio.fail_after(2):
            assert await client.receive_some() == b""


@STOCK
async def test_idle_connection_stock_is_closed_when_draining_begins(ours) -> None:
    async with ours(reading, CONFIG) as server, await server.connect() as client:
        await client.send_all(GET)
        await answer(client)
        server.shutdown.set()
        with trio.fail_after(1):
            assert await client.receive_some() == b""


async def test_phrase_of_the_status_is_the_servers_own(ours, request) -> None:
    async with ours(reading, CONFIG) as server, await server.connect() as client:
        await client.send_all(GET)
        first_line = (await answer(client)).partition(b"\r\n")[0]

    assert first_line == {"lane": b"HTTP/1.1 200 OK", "stock": b"HTTP/1.1 200 "}[request.node.callspec.params["ours"]]
