"""Clients over websockets: each keeps one connection, sends at its pace, and never sends an event again.

Owns: sessions of ``collector.v1`` as far as a load needs them. Refuses to know: credit; what is open is far below it.

Invariant: a message is written once; one without an answer when its connection ends, or after `PATIENCE_S`, is put into
the log as that.
"""

import json
import random
import time

import msgspec
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

from tests.faults.entries import Entry
from tests.faults.load import PATIENCE_S, Log, track_body

__all__ = ["Session", "keep_open"]

#: What the same words mean over HTTP.
STATUSES = {"delivered": 200, "spooled": 200, "rejected": 400, "not_sent": 503, "busy": 503, "unknown": 503}

#: Before a connection that was refused or lost is opened anew.
AGAIN_S = 0.2

#: For the handshakes at both ends of a connection.
CLOSE_WITHIN_S = 5.0


class Session:
    """The messages of one connection and their answers."""

    def __init__(self, log: Log) -> None:
        self.leaving = False
        """The server has said that it drains."""
        self._settled = trio.Event()
        self._log = log
        self._open: dict[int, Entry] = {}
        self._last = 0

    def next_message(self) -> tuple[Entry, str]:
        """Make the next message; `written` says that it is out."""
        self._last += 1
        self._settled = trio.Event()
        entry = self._log.new(1, "websocket")
        entry.sent_at, entry.whole = time.monotonic(), False
        body = track_body(self._log.spec, entry)
        self._open[self._last] = entry
        return entry, json.dumps({"op": "track", "id": self._last, "api": "segment", "key": "faults", "body": body})

    def written(self, entry: Entry) -> None:
        """All of it was given to the kernel."""
        entry.sent_at, entry.whole = time.monotonic(), True

    def on_frame(self, frame: dict[str, object]) -> None:
        """Take one frame of the server's."""
        if frame.get("op") == "drain":
            self.leaving = True
        if frame.get("op") != "ack":
            return
        if isinstance(upto := frame.get("upto"), int):
            for id_ in [id_ for id_ in self._open if id_ <= upto]:
                self._answered(id_, "delivered")
        if isinstance(id_ := frame.get("id"), int):
            self._answered(id_, str(frame["status"]))

    def _answered(self, id_: int, status: str) -> None:
        entry = self._open.pop(id_, None)
        if entry is None:
            return
        entry.answered_at = time.monotonic()
        entry.status = STATUSES[status]
        entry.counted = True
        entry.delivered = int(entry.status == 200)
        entry.unknown = (0,) if status == "unknown" else ()
        self._log.put(entry)
        if not self._open:
            self._settled.set()

    async def wait_settled(self) -> None:
        """Wait until every message has its answer. On cancellation: some have none."""
        if not self._open:
            self._settled.set()
        await self._settled.wait()

    def end(self) -> None:
        """The connection is gone: what is open has no answer."""
        for entry in self._open.values():
            self._log.put(entry)
        self._open.clear()


async def keep_open(log: Log, per_s: float, number: int) -> None:
    """One client, until the load stops and all is answered."""
    random_ = random.Random(log.spec.seed * 1000 + number)
    await trio.lowlevel.checkpoint()
    while not log.stopping.is_set():
        session = Session(log)
        try:
            async with open_websocket_url(
                f"ws://{log.spec.address}/v1/ws",
                subprotocols=["collector.v1"],
                connect_timeout=CLOSE_WITHIN_S,
                disconnect_timeout=CLOSE_WITHIN_S,
            ) as socket:
                await _serve(log, session, socket, per_s, random_)
        except* (HandshakeError, ConnectionClosed, OSError):
            pass  # refused, or lost; the session says what had no answer
        finally:
            session.end()
        with trio.move_on_after(AGAIN_S):
            await log.stopping.wait()


async def _serve(log: Log, session: Session, socket: WebSocketConnection, per_s: float, random_: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, session, socket)
        while not log.stopping.is_set() and not session.leaving:
            with trio.move_on_after(random_.expovariate(per_s)):
                await log.stopping.wait()
            if log.stopping.is_set() or session.leaving:
                break
            entry, text = session.next_message()
            await socket.send_message(text)
            session.written(entry)
        with trio.move_on_after(PATIENCE_S):
            await session.wait_settled()
        nursery.cancel_scope.cancel(reason="every message is answered, or has waited for long enough")


async def _read(session: Session, socket: WebSocketConnection) -> None:
    while True:
        session.on_frame(msgspec.json.decode(await socket.get_message(), type=dict[str, object]))
