"""Hypercorn's websockets on Trio: what they do by themselves, and that our way with them holds."""

import base64
import os
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
import trio

from collector.config import Config, HttpConfig, LimitsConfig, ShutdownConfig
from collector.web.asgi_types import Receive, Scope, Send
from collector.web.handle import handle_of

CONFIG = Config(
    http=HttpConfig(bind="127.0.0.1:0", server="stock", ping_s=30.0),
    limits=LimitsConfig(websocket_message_bytes=1000),
    shutdown=ShutdownConfig(drain_s=20.0),
)

UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)


def frame(payload: bytes, *, opcode: int = 0x81, compressed: bool = False) -> bytes:
    """One frame of a client; RFC 6455 section 5.2."""
    mask = os.urandom(4)
    length = len(payload)
    if length < 126:
        size = struct.pack("!B", 0x80 | length)
    elif length < 65536:
        size = struct.pack("!BH", 0x80 | 126, length)
    else:
        size = struct.pack("!BQ", 0x80 | 127, length)
    key = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
    return bytes([opcode | (0x40 if compressed else 0)]) + size + mask + masked


async def upgraded(server, extra: bytes = b"") -> tuple[trio.SocketStream, bytes]:
    client = await server.connect()
    await client.send_all(UPGRADE % extra)
    head = b""
    with trio.fail_after(2):  # noqa: ASYNC912  # the loop waits
        while b"\r\n\r\n" not in head:
            head += await client.receive_some(1)
    return client, head


async def lifespan(receive: Receive, send: Send) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


class Application:
    """Accepts and reads until the connection is gone; remembers what it was told."""

    def __init__(self, *, slow_s: float = 0.0, accept_after_s: float = 0.0) -> None:
        self.slow_s = slow_s
        self.accept_after_s = accept_after_s
        self.received: list[object] = []
        self.disconnected = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        await trio.sleep(self.accept_after_s)
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                self.disconnected.set()
                return


async def closing(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes and returns while the queue is full of messages that nobody took."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await trio.sleep(0.2)
    await send({"type": "websocket.close", "code": 1012})


async def test_closing_with_a_full_queue_stock_never_ends_the_connection(stock) -> None:
    async with stock(closing) as server:
        client, _ = await upgraded(server)
        async with client:
            await client.send_all(frame(b"x") * 40)
            await trio.sleep(0.4)
        assert not await server.wait_left(0, 1.0), "Hypercorn ends the connection now: must sessions still read on?"


REFUSED = (
    (b"sec-websocket-version: 13", b"sec-websocket-version: 8"),
    (b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
)


@pytest.mark.parametrize(("good", "bad"), REFUSED)
async def test_refused_handshake_stock_never_ends_the_connection(stock, good, bad) -> None:
    async with stock(Application(), keep_alive_timeout=0.2) as server:
        async with await server.connect() as client:
            await client.send_all((UPGRADE % b"").replace(good, bad))
            assert b" 400 " in await client.receive_some()
            with trio.move_on_after(0.6) as waiting:
                await client.receive_some()
            assert waiting.cancelled_caught, "Hypercorn closes the connection now: is the cure still needed?"


@pytest.mark.parametrize(("good", "bad"), REFUSED)
async def test_refused_handshake_ours_says_why_and_closes(ours, good, bad) -> None:
    async with ours(Application(), CONFIG) as server:
        async with await server.connect() as client:
            await client.send_all((UPGRADE % b"").replace(good, bad))
            received = b""
            with trio.fail_after(2):
                async for data in client:
                    received += data
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"sec-websocket-version: 13\r\n" in received.lower()
        assert b"no websocket handshake" in received
        assert await server.wait_left(0, 1.0)


async def test_aborting_ours_frees_a_connection_that_nobody_reads(ours) -> None:
    handles = []

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        handle = handle_of(scope)
        handles.append(handle)
        await trio.sleep(0.2)
        handle.abort()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with ours(deaf, CONFIG) as server:
        client, _ = await upgraded(server)
        async with client:
            await client.send_all(frame(b"x") * 40)
            assert await server.wait_left(0, 1.0)
        assert handles[0].gone.is_set()


async def test_pings_stock_outlive_their_connection(stock) -> None:
    async with stock(Application(), websocket_ping_interval=3.0) as server:
        client, _ = await upgraded(server)
        await client.aclose()
        assert not await server.wait_left(0, 1.0), "pings end with their connection now: is _Context still needed?"


async def test_pings_ours_end_with_their_connection(ours) -> None:
    async with ours(Application(), CONFIG) as server:
        client, _ = await upgraded(server)
        await client.aclose()
        assert await server.wait_left(0, 1.0)


async def test_pings_are_sent(ours) -> None:
    async with ours(Application(), replace(CONFIG, http=replace(CONFIG.http, ping_s=0.1))) as server:
        client, _ = await upgraded(server)
        async with client:
            received = b""
            with trio.fail_after(3):  # noqa: ASYNC912  # the loop waits
                while received.count(b"\x89\x00") < 3:
                    received += await client.receive_some()


async def test_early_frames_stock_never_tells_the_application(stock) -> None:
    application = Application(accept_after_s=0.2)
    async with stock(application) as server:
        async with await server.connect() as client:
            await client.send_all(UPGRADE % b"" + frame(b"too early"))
            assert b" 400 " in await client.receive_some()
        with trio.move_on_after(0.7):
            await application.disconnected.wait()
        assert not application.disconnected.is_set(), "Hypercorn tells it now: is Websocket.handle still needed?"


@pytest.mark.parametrize("ours", ["stock"], indirect=True)
async def test_early_frames_ours_on_hypercorns_stack_tells_the_application(ours) -> None:
    application = Application(accept_after_s=0.2)
    async with ours(application, CONFIG) as server:
        async with await server.connect() as client:
            await client.send_all(UPGRADE % b"" + frame(b"too early"))
            with trio.fail_after(2):
                assert b" 400 " in await client.receive_some()
                await application.disconnected.wait()
        assert await server.wait_left(0, 1.0)


@pytest.mark.parametrize("ours", ["lane"], indirect=True)
async def test_early_frames_the_lane_keeps_for_the_application(ours) -> None:
    application = Application(accept_after_s=0.2)
    async with ours(application, CONFIG) as server:
        async with await server.connect() as client:
            await client.send_all(UPGRADE % b"" + frame(b"early"))
            assert b" 101 " in await client.receive_some()
            await client.send_all(frame(b"in time"))
            with trio.fail_after(2):  # noqa: ASYNC912  # the loop waits
                while len(application.received) < 2:  # noqa: ASYNC110  # the application has no event for it
                    await trio.sleep(0.01)
        assert [message["text"] for message in application.received[:2]] == ["early", "in time"]
        assert await server.wait_left(0, 1.0)


def continued(total: int, piece: int) -> bytes:
    """A message of many frames that never ends."""
    return frame(b"a" * piece, opcode=0x01) + frame(b"a" * piece, opcode=0x00) * (total // piece)


async def peak_while_sending(server, whole: bytes) -> int:
    """How much memory the server gains, at most, while a client sends this."""
    client, _ = await upgraded(server)
    tracemalloc.start()
    try:
        async with client:
            before = tracemalloc.get_traced_memory()[0]
            with trio.move_on_after(1.5):
                await client.send_all(whole)
                await trio.sleep(0.3)
            return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def test_message_above_the_limit_stock_keeps_all_that_follows(stock) -> None:
    endless = continued(8_000_000, 500)
    async with stock(Application(), websocket_max_message_size=1000) as server:
        peak = await peak_while_sending(server, endless)
        assert peak > 4_000_000, "what follows is dropped now: is Websocket._handle_events still needed?"


async def test_message_above_the_limit_ours_keeps_nothing(ours) -> None:
    endless = continued(8_000_000, 500)
    async with ours(Application(), CONFIG) as server:
        assert await peak_while_sending(server, endless) < 1_500_000


async def test_message_above_the_limit_ours_is_told_1009_and_cut(ours) -> None:
    application = Application()
    async with ours(application, CONFIG) as server:
        client, _ = await upgraded(server)
        async with client:
            await client.send_all(continued(100_000, 500))
            received = b""
            with trio.fail_after(4):  # the client never answers the close frame
                while data := await client.receive_some():
                    received += data
            assert struct.pack("!H", 1009) in received
        with trio.fail_after(1):
            await application.disconnected.wait()
        assert await server.wait_left(0, 1.0)


DEFLATE = b"sec-websocket-extensions: permessage-deflate\r\n"


async def test_deflate_stock_inflates_without_bound(stock) -> None:
    application = Application()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (compressor.compress(bytes(16 * 1024 * 1024)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with stock(application, websocket_max_message_size=64 * 1024 * 1024) as server:
        client, head = await upgraded(server, DEFLATE)
        async with client:
            assert b"permessage-deflate" in head.lower()
            await client.send_all(frame(bomb, opcode=0x82, compressed=True))
            with trio.fail_after(5):  # noqa: ASYNC912  # the loop waits
                while not application.received:  # noqa: ASYNC110  # the application has no event for it
                    await trio.sleep(0.01)
        assert len(bomb) < 20_000
        assert len(application.received[0]["bytes"]) == 16 * 1024 * 1024


async def test_deflate_ours_is_not_negotiated(ours) -> None:
    async with ours(Application(), CONFIG) as server:
        client, head = await upgraded(server, DEFLATE)
        async with client:
            assert b"101" in head
            assert b"sec-websocket-extensions" not in head.lower()


def test_the_accept_token_of_the_handshake_is_the_rfcs() -> None:
    # RFC 6455 section 1.3; the key of UPGRADE is the one of the RFC.
    from wsproto.utilities import generate_accept_token

    assert generate_accept_token(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert len(base64.b64decode(b"dGhlIHNhbXBsZSBub25jZQ==")) == 16


def test_seam_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import hypercorn.trio.run as hypercorn_run

    from collector.web.stock import install

    monkeypatch.setattr(hypercorn_run, "TCPServer", object)
    with pytest.raises(RuntimeError, match="not known"):
        install()
