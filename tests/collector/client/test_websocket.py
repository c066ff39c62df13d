"""The websocket client against a scripted server, over memory streams and in virtual time."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from collector.client import (
    EventError,
    Refused,
    RetryDetails,
    Unreachable,
    WebsocketTrackClient,
    open_websocket_track_client,
)
from collector.client.websocket import CONNECT_S

URL = "ws://collector/v1/ws"

Script = Callable[["Peer"], Awaitable[object]]


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Peer:
    """The server's side of one connection."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket

    async def say(self, **message: object) -> None:
        await self.socket.send_message(json.dumps(message))

    async def hello(self, credit: int = 10_000) -> None:
        await self.say(op="hello", v=1, max_bytes=10_000, credit=credit, ping_s=20)

    async def hear(self) -> dict[str, object]:
        heard: dict[str, object] = json.loads(await self.socket.get_message())
        return heard


async def acknowledge_everything(peer: Peer) -> None:
    """A server that takes all."""
    await peer.hello()
    while True:
        heard = await peer.hear()
        await peer.say(op="ack", upto=heard["id"])
        await peer.say(op="credit", bytes=len(json.dumps(heard)))


class Server:
    """Plays one script a connection, the last one for ever; None refuses the connection."""

    def __init__(self, nursery: trio.Nursery, *scripts: Script | None) -> None:
        self._nursery = nursery  # Connections outlive the call that opens them.
        self._scripts = list(scripts)
        self.connections = 0
        self.requested: list[tuple[str, tuple[str, ...]]] = []

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if script is None:
            raise ConnectionRefusedError("refused")
        self.connections += 1
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, ours, script)
        return theirs

    async def _serve(self, stream: trio.abc.Stream, script: Script) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)  # type: ignore[arg-type]  # any stream will do
            self.requested.append((request.path, tuple(request.proposed_subprotocols)))
            socket = await request.accept(subprotocol="collector.v1")
            try:
                await script(Peer(socket))
            except ConnectionClosed:
                pass
            await socket.aclose()


@asynccontextmanager
async def _client(
    *scripts: Script | None, retries: list[RetryDetails] | None = None
) -> AsyncIterator[tuple[WebsocketTrackClient, Server]]:
    async with trio.open_nursery() as nursery:
        server = Server(nursery, *scripts)
        async with open_websocket_track_client(
            URL,
            key="k",
            connect=server.connect,
            on_retry=None if retries is None else retries.append,
            rng=NoJitter(),
        ) as client:
            yield client, server
        nursery.cancel_scope.cancel(reason="the test is over")


def _event(number: int) -> Mapping[str, object]:
    return {"type": "track", "event": "e", "messageId": f"m{number}"}


async def test_a_tracked_event_is_acknowledged(autojump_clock: MockClock) -> None:
    async with _client(acknowledge_everything) as (client, server):
        ack = await client.track(_event(1))
        assert ack.accepted
        assert ack.status == "delivered"
        assert server.requested == [("/v1/ws", ("collector.v1",))]
        assert client.session.unsettled_bytes == 0
        assert repr(client).startswith("<WebsocketTrackClient ws://collector/v1/ws segment: <Session open, 0 pending")


async def test_many_are_in_work_at_once_and_keep_their_order(autojump_clock: MockClock) -> None:
    heard: list[dict[str, object]] = []

    async def late(peer: Peer) -> None:
        await peer.hello()
        heard.extend([await peer.hear() for _ in range(20)])
        await peer.say(op="ack", upto=20)
        await trio.sleep_forever()

    async with _client(late) as (client, _):
        messages = [await client.submit(_event(number)) for number in range(20)]
        assert [(await message.wait()).status for message in messages] == ["delivered"] * 20
    assert [each["id"] for each in heard] == list(range(1, 21))
    assert [each["body"] for each in heard] == [_event(number) for number in range(20)]


async def test_above_the_credit_submit_waits_and_goes_on_with_new_credit(autojump_clock: MockClock) -> None:
    async def stingy(peer: Peer) -> None:
        await peer.hello(credit=400)
        while True:
            heard = await peer.hear()
            await trio.sleep(1)
            await peer.say(op="ack", id=heard["id"], status="delivered")
            await peer.say(op="credit", bytes=len(json.dumps(heard, separators=(",", ":"))))

    async with _client(stingy) as (client, _):
        await client.track(_event(0))
        began = trio.current_time()
        messages = [await client.submit(_event(number)) for number in range(4)]
        assert trio.current_time() - began == 3
        await messages[-1].wait()
        assert trio.current_time() - began == 4


async def test_a_lost_connection_is_opened_again_and_the_unanswered_repeated(autojump_clock: MockClock) -> None:
    repeated: list[dict[str, object]] = []
    retries: list[RetryDetails] = []

    async def hangs_up(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await peer.hear()
        await peer.say(op="ack", id=1, status="delivered")
        await peer.socket.aclose(1011, "bug")

    async def second(peer: Peer) -> None:
        await peer.hello()
        repeated.append(await peer.hear())
        await peer.say(op="ack", upto=1)
        await trio.sleep_forever()

    async with _client(hangs_up, second, retries=retries) as (client, server):
        first, other = await client.submit(_event(1)), await client.submit(_event(2))
        assert (await first.wait()).attempts == 1
        assert (await other.wait()).attempts == 2
        assert (server.connections, client.connections_opened_total) == (2, 2)
    assert repeated[0]["again"] is True
    assert repeated[0]["body"] == _event(2)
    assert [(retry.attempt, retry.events, retry.unknown) for retry in retries] == [(1, 1, 1)]
    assert "1011" in retries[0].reason


async def test_drain_is_followed_after_what_it_asked_for(autojump_clock: MockClock) -> None:
    async def drains(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await peer.say(op="drain", retry_after_s=5)
        await peer.say(op="ack", upto=1)
        await trio.sleep_forever()

    async with _client(drains, acknowledge_everything) as (client, server):
        await client.track(_event(1))
        began = trio.current_time()
        ack = await client.track(_event(2))
        assert ack.attempts == 1
        assert 5 <= trio.current_time() - began < 5.2
        assert server.connections == 2


async def test_busy_brakes_and_is_sent_again(autojump_clock: MockClock) -> None:
    async def overloaded(peer: Peer) -> None:
        await peer.hello()
        for status in ("busy", "not_sent", "unknown", "delivered"):
            heard = await peer.hear()
            await peer.say(op="ack", id=heard["id"], status=status)
        await trio.sleep_forever()

    async with _client(overloaded) as (client, _):
        began = trio.current_time()
        ack = await client.track(_event(1))
        assert (ack.status, ack.attempts) == ("delivered", 4)
        assert trio.current_time() - began == pytest.approx(0.1 + 0.2 + 0.4)


async def test_a_rejected_event_is_refused_and_a_batch_with_good_ones_is_not(autojump_clock: MockClock) -> None:
    async def picky(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await peer.say(op="ack", id=1, status="rejected", code="invalid_key", message="no such key")
        await peer.hear()
        await peer.say(op="ack", id=2, status="rejected", code="too_long", counts={"delivered": 1, "rejected": 1})
        await trio.sleep_forever()

    async with _client(picky) as (client, _):
        with pytest.raises(Refused, match="invalid_key: no such key"):
            await client.track(_event(1))
        ack = await client.batch([_event(1), _event(2)])
        assert ack.counts == {"delivered": 1, "rejected": 1}


async def test_connecting_is_tried_again_with_growing_pauses(autojump_clock: MockClock) -> None:
    retries: list[RetryDetails] = []
    async with _client(None, None, None, acknowledge_everything, retries=retries) as (client, _):
        await client.track(_event(1))
    assert [retry.wait_s for retry in retries] == [0.1, 0.2, 0.4]
    assert retries[0].reason == "no connection: refused"


async def test_a_server_that_never_says_hello_is_left(autojump_clock: MockClock) -> None:
    async def mute(_peer: Peer) -> None:
        await trio.sleep_forever()

    retries: list[RetryDetails] = []
    async with _client(mute, acknowledge_everything, retries=retries) as (client, _):
        await client.track(_event(1))
    assert f"no hello within {CONNECT_S:g} s" in retries[0].reason


async def test_a_server_that_breaks_the_protocol_is_left_and_tried_again(autojump_clock: MockClock) -> None:
    async def nonsense(peer: Peer) -> None:
        await peer.hello()
        await peer.say(op="ack", id=1, status="perhaps")
        await trio.sleep_forever()

    retries: list[RetryDetails] = []
    async with _client(nonsense, acknowledge_everything, retries=retries) as (client, _):
        await client.track(_event(1))
    assert "ack with the status 'perhaps'" in retries[0].reason


async def test_a_cancelled_wait_takes_back_what_was_not_sent(autojump_clock: MockClock) -> None:
    async with _client(None) as (client, _):
        with trio.move_on_after(3) as scope:
            await client.track(_event(1))
        assert scope.cancelled_caught
        assert client.session.unsettled == 0
    # The block ended: had the message stayed, the flush at its end would wait for ever.


async def test_the_end_of_the_block_flushes(autojump_clock: MockClock) -> None:
    async def slow(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await trio.sleep(7)
        await peer.say(op="ack", upto=1)
        await trio.sleep_forever()

    began = trio.current_time()
    async with _client(slow) as (client, _):
        message = await client.submit(_event(1))
        assert message.ack is None
    assert message.ack is not None
    assert trio.current_time() - began == 7


async def test_an_exception_in_the_block_passes_ungrouped_and_does_not_flush(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        server = Server(nursery, None)
        with pytest.raises(ZeroDivisionError):
            async with open_websocket_track_client(URL, key="k", connect=server.connect) as client:
                await client.submit(_event(1))
                raise ZeroDivisionError


async def test_an_event_that_is_none_is_refused_here(autojump_clock: MockClock) -> None:
    async with _client(acknowledge_everything) as (client, _):
        with pytest.raises(EventError, match="event 1: "):
            await client.batch([_event(1), b"[]"])


async def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(Unreachable, match="is not an address like ws://"):
        async with open_websocket_track_client("http://c", key="k"):
            raise AssertionError("never entered")


async def test_something_else_at_the_address_ends_every_wait() -> None:
    """On a real socket: the library's own connect is what reports a refused handshake."""

    async def not_found(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\nConnection: close\r\n\r\nnothing")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, not_found, 0, host="127.0.0.1"))
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/v1/ws"
        with pytest.raises(Unreachable, match="refused the websocket: 404"), trio.fail_after(10):
            async with open_websocket_track_client(url, key="k") as client:
                await client.track(_event(1))
        nursery.cancel_scope.cancel(reason="the test is over")
