"""The baseline: what one writes with FastAPI and aiokafka, in the fast version, with the same three ways in.

Owns: the application. Refuses to know: what happens to it.

uvloop, httptools, msgspec for JSON, no access log; the producer with acks=all and idempotence, a key for each event,
otherwise with its defaults. An answer leaves after the acknowledgement: 200, or 503 where aiokafka gives up. Run as
``python -m tests.faults.peer_fastapi PORT BOOTSTRAP TOPIC``; ``FAULTS_HOLD_S`` as for the collector.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # the same
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

__all__ = ["make_app"]


class Event(msgspec.Struct, rename="camel"):
    """One event, as far as it has to be known."""

    user_id: str
    message_id: str


class Batch(msgspec.Struct):
    """A request with several."""

    batch: list[msgspec.Raw]


class Frame(msgspec.Struct):
    """A message of a websocket."""

    id: int
    body: msgspec.Raw


EVENT, BATCH, FRAME = msgspec.json.Decoder(Event), msgspec.json.Decoder(Batch), msgspec.json.Decoder(Frame)
ACCEPTED = Response(b'{"success":true}', media_type="application/json")


class Sending:
    """Events on their way to Kafka."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, hold_s: float) -> None:
        self._producer = producer
        self._topic = topic
        self._hold_s = hold_s

    async def accept(self, bodies: Sequence[bytes]) -> bool:
        """Send them, and wait until all are acknowledged; False where aiokafka gave one up."""
        if self._hold_s:
            time.sleep(self._hold_s)  # noqa: ASYNC251  # holding the loop is the purpose
        try:
            for future in [await self._send(body) for body in bodies]:
                await future
        except KafkaError:
            return False  # noqa: ASYNC910  # asyncio's, which has no such rule
        return True  # noqa: ASYNC910  # the same

    async def _send(self, body: bytes) -> "asyncio.Future[object]":
        event = EVENT.decode(body)
        value = msgspec.json.encode({"id": event.message_id, "body": msgspec.Raw(body)})
        future: asyncio.Future[object] = await self._producer.send(self._topic, value, key=event.user_id.encode())
        return future

    async def answer(self, socket: WebSocket, frame: Frame) -> None:
        """One message of a websocket."""
        status = "delivered" if await self.accept([bytes(frame.body)]) else "not_sent"
        try:
            await socket.send_text(f'{{"op":"ack","id":{frame.id},"status":"{status}"}}')
        except (WebSocketDisconnect, RuntimeError):
            pass  # nobody is there any more

    async def serve(self, socket: WebSocket) -> None:
        """One websocket; each message waits in a task of its own."""
        await socket.accept(subprotocol="collector.v1")
        await socket.send_text('{"op":"hello"}')
        open_: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self.answer(socket, FRAME.decode(await socket.receive_text())))
                open_.add(task)
                task.add_done_callback(open_.discard)
        except WebSocketDisconnect:
            pass


def make_app(bootstrap_servers: str, topic: str, hold_s: float) -> FastAPI:
    """The application; it has its producer while it runs."""
    running: list[Sending] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
        await producer.start()
        running.append(Sending(producer, topic, hold_s))
        try:
            yield
        finally:
            await producer.stop()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/track")
    async def track(request: Request) -> Response:
        return ACCEPTED if await running[0].accept([await request.body()]) else Response(status_code=503)

    @app.post("/v1/batch")
    async def batch(request: Request) -> Response:
        events = [bytes(event) for event in BATCH.decode(await request.body()).batch]
        return ACCEPTED if await running[0].accept(events) else Response(status_code=503)

    @app.websocket("/v1/ws")
    async def websocket(socket: WebSocket) -> None:
        await running[0].serve(socket)

    return app


def main() -> None:
    """Serve until SIGTERM."""
    port, bootstrap_servers, topic = sys.argv[1:]
    app = make_app(bootstrap_servers, topic, float(os.environ.get("FAULTS_HOLD_S") or 0))
    uvicorn.run(app, port=int(port), loop="uvloop", http="httptools", access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
