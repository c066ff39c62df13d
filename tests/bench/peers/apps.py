"""The peers' applications: what one writes with FastAPI, with Starlette, and with neither.

Owns: the ways in, ``/api/track`` (one event), ``/bulk`` (some), ``/v1/ws`` (one a message). Refuses to know: which
producer sends the events, and which server calls.

The fair, fast version: msgspec takes a body apart, as far as a collector has to (it is JSON, it names an event; of a
bulk: where each event begins and ends); the record is the client's own bytes, without a key and without an envelope;
nothing is counted, logged or limited in time. An answer leaves after the acknowledgement; where the producer gives up,
its error becomes the server's 500. A websocket's messages are answered one after the other, which is cheaper than a
task for each.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from tests.bench.peers.sending import Sending

__all__ = ["OK", "OK_BODY", "App", "floor", "make_app", "read_body"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class Event(Struct):
    """As far as it has to be known."""

    app_id: str
    event: str
    identity: str


class Bulk(Struct):
    """A request with several."""

    events: list[Raw]


class Frame(Struct):
    """A message of a websocket."""

    id: int
    body: Raw


_EVENT, _BULK, _FRAME = msgspec.json.Decoder(Event), msgspec.json.Decoder(Bulk), msgspec.json.Decoder(Frame)

OK: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}
OK_BODY: Message = {"type": "http.response.body", "body": b"{}"}


def make_app(framework: str, sending: Sending) -> App:
    """One of ``fastapi``, ``starlette``, ``bare``; only that one is imported."""
    match framework:
        case "fastapi":
            return _make_fastapi(sending)
        case "starlette":
            return _make_starlette(sending)
        case "bare":
            return _make_bare(sending)
    raise SystemExit(f"no framework is called {framework}")


async def read_body(receive: Receive) -> bytes:
    """The whole body."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    pieces = [body]
    while message.get("more_body"):
        message = await receive()
        pieces.append(message.get("body", b""))
    return b"".join(pieces)


async def floor(scope: Message, receive: Receive, send: Send) -> None:
    """Answer when the body is there, and do nothing else."""
    if scope["type"] == "lifespan":
        await acknowledge_lifespan(receive, send)
        return
    await read_body(receive)
    await send(OK)
    await send(OK_BODY)


async def acknowledge_lifespan(receive: Receive, send: Send) -> None:
    """Say yes to the server's start and end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _make_bare(sending: Sending) -> App:
    one, many = sending.one, sending.many

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                body = await read_body(receive)
                if scope["path"] == "/api/track":
                    _EVENT.decode(body)
                    await one(body)
                else:
                    await many(list(map(bytes, _BULK.decode(body).events)))
                await send(OK)
                await send(OK_BODY)
            case "websocket":
                await websocket(receive, send)
            case _:
                await lifespan(receive, send)

    async def websocket(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "collector.v1"})
        await send({"type": "websocket.send", "text": '{"op":"hello","v":1}'})
        while (message := await receive())["type"] == "websocket.receive":
            frame = _FRAME.decode(message["text"])
            _EVENT.decode(frame.body)
            await one(bytes(frame.body))
            await send({"type": "websocket.send", "text": f'{{"op":"ack","upto":{frame.id}}}'})

    async def lifespan(receive: Receive, send: Send) -> None:
        await receive()
        await sending.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await sending.stop()
        await send({"type": "lifespan.shutdown.complete"})

    return app


def _make_starlette(sending: Sending) -> App:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def track(request: Request) -> Response:
        body = await request.body()
        _EVENT.decode(body)
        await sending.one(body)
        return Response(b"{}", media_type="application/json")

    async def bulk(request: Request) -> Response:
        await sending.many(list(map(bytes, _BULK.decode(await request.body()).events)))
        return Response(b"{}", media_type="application/json")

    async def websocket(socket: WebSocket) -> None:
        await socket.accept(subprotocol="collector.v1")
        await socket.send_text('{"op":"hello","v":1}')
        try:
            while True:
                frame = _FRAME.decode(await socket.receive_text())
                _EVENT.decode(frame.body)
                await sending.one(bytes(frame.body))
                await socket.send_text(f'{{"op":"ack","upto":{frame.id}}}')
        except WebSocketDisconnect:
            pass

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await sending.start()
        yield
        await sending.stop()

    return Starlette(
        routes=[
            Route("/api/track", track, methods=["POST"]),
            Route("/bulk", bulk, methods=["POST"]),
            WebSocketRoute("/v1/ws", websocket),
        ],
        lifespan=lifespan,
    )


def _make_fastapi(sending: Sending) -> App:
    from fastapi import FastAPI, Request, Response

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await sending.start()
        yield
        await sending.stop()

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/track")
    async def track(request: Request) -> Response:
        body = await request.body()
        _EVENT.decode(body)
        await sending.one(body)
        return Response(b"{}", media_type="application/json")

    @app.post("/bulk")
    async def bulk(request: Request) -> Response:
        await sending.many(list(map(bytes, _BULK.decode(await request.body()).events)))
        return Response(b"{}", media_type="application/json")

    return app
