"""``collector.v1`` from the client's side, without any I/O: ids, credit, acknowledgements, what to send again.

Owns: the tickets between their submission and their final word. Refuses to know: sockets, time (it is told), Trio.

The protocol is ``collector.v1``. Its client's duties, all kept here:

* ids grow by one from 1 on each connection; a ticket gets its id when its frame is made, so a ticket that waits for
  credit has none;
* credit counts the UTF-8 bytes of track frames; what does not fit waits, it is never sent in the hope of more;
* ``{"op":"ack","upto":N}`` settles every id up to N *that was not named otherwise*: named ones have left the table;
* a lost connection leaves ids without an answer: their tickets are sent again, in their order, with ``"again":true``;
* ``busy`` and ``not_sent`` are proved absent from the log and are sent again plainly; ``unknown``, and batches of which
  a part is in the log, with ``again``;
* after ``drain`` nothing more is sent on this connection.

Invariant: a ticket is in exactly one of ``pending``, ``in_flight`` and settled; ``unsettled_bytes`` is the sum over the
first two.
"""

import bisect
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from .events import Api
from .outcome import Ack, AckStatus

__all__ = ["Hello", "ProtocolFault", "Session", "Ticket", "TicketState"]

SUBPROTOCOL = "collector.v1"
OVERHEAD_BYTES = 256
"""What a frame has beside key and body, generously: for the window only, credit is counted exactly."""

_STATUSES: Mapping[str, AckStatus] = {
    "delivered": "delivered",
    "spooled": "spooled",
    "rejected": "rejected",
    "not_sent": "not_sent",
    "unknown": "unknown",
    "busy": "busy",
}


class ProtocolFault(Exception):
    """The server's messages are not those of ``collector.v1``; the connection is given up."""


class Hello(NamedTuple):
    """The server's first message."""

    max_bytes: int
    credit: int
    ping_s: float


class TicketState(enum.Enum):
    """Where a ticket is."""

    PENDING = "pending"
    IN_FLIGHT = "in flight"
    SETTLED = "settled"


@dataclass(slots=True, eq=False)
class Ticket:
    """One submitted message, until its final word."""

    sequence: int
    body: bytes
    events: int
    state: TicketState = TicketState.PENDING
    attempts: int = 0
    again: bool = False
    ack: Ack | None = None
    on_settled: Callable[[], object] | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """What it counts for in the window."""
        return len(self.body) + OVERHEAD_BYTES


class Session:
    """The state of one client over all its connections.

    Args:
        api: the dialect of the bodies.
        key: the write key or app id, sent beside each body.
        deadline_ms: how long the server may take for each message; None leaves it to the server.
    """

    def __init__(self, *, api: Api, key: str, deadline_ms: int | None = None) -> None:
        self._api = api
        self._head = b'"api":' + msgspec.json.encode(api.name) + b',"key":' + msgspec.json.encode(key)
        if deadline_ms is not None:
            self._head += f',"deadline_ms":{deadline_ms}'.encode()
        self.hello: Hello | None = None
        self.pending: list[Ticket] = []
        self.in_flight: dict[int, Ticket] = {}
        self.credit = 0
        self.draining_s: float | None = None
        """Set by ``drain``: the server's retry_after_s."""
        self.refusals = 0
        """Busy and not_sent answers in a row: how hard to brake."""
        self.unsettled_bytes = 0
        self.settled_total = 0
        self._next_id = 1
        self._next_sequence = 0

    # Submitting

    def submit(self, body: bytes, events: int) -> Ticket:
        """Queue one message; its frame is made by `next_frame`."""
        ticket = Ticket(self._next_sequence, body, events)
        self._next_sequence += 1
        self.pending.append(ticket)
        self.unsettled_bytes += ticket.size_bytes
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket back that has not been sent; False where it is too late."""
        if ticket.state is not TicketState.PENDING:
            return False
        self.pending.remove(ticket)
        self._settle(ticket, Ack(status="not_sent", code="withdrawn", attempts=ticket.attempts))
        return True

    # Sending

    def next_frame(self) -> str | None:
        """The next message to send, as text, or None while there is none, no credit, or no hello.

        A message that the server would refuse for its size is settled as rejected here.
        """
        while self.hello is not None and self.draining_s is None and self.pending:
            ticket = self.pending[0]
            frame = self._frame(ticket)
            if len(frame) > min(self.hello.max_bytes, self.hello.credit):
                del self.pending[0]
                message = f"{len(frame)} bytes; the server takes {min(self.hello.max_bytes, self.hello.credit)}"
                self._settle(ticket, Ack(status="rejected", code="too_large", message=message))
                continue
            if len(frame) > self.credit:
                return None
            del self.pending[0]
            self.credit -= len(frame)
            ticket.state = TicketState.IN_FLIGHT
            ticket.attempts += 1
            self.in_flight[self._next_id] = ticket
            self._next_id += 1
            return frame.decode()
        return None

    def _frame(self, ticket: Ticket) -> bytes:
        again = b',"again":true' if ticket.again else b""
        return b'{"op":"track","id":%d,%b%b,"body":%b}' % (self._next_id, self._head, again, ticket.body)

    # Receiving

    def receive(self, message: str | bytes) -> None:
        """Take one message of the server's. Raises `ProtocolFault`; unknown ops are for newer clients."""
        try:
            decoded: object = msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolFault(f"not JSON: {error}") from error
        if not isinstance(decoded, dict):
            raise ProtocolFault("not a JSON object")
        op = decoded.get("op")
        if op == "error":
            raise ProtocolFault(f"the server says {decoded.get('code')}: {decoded.get('message')}")
        if self.hello is None and op != "hello":
            raise ProtocolFault(f"the first message is not hello but {op!r}")
        match op:
            case "hello":
                self._receive_hello(decoded)
            case "ack":
                self._receive_ack(decoded)
            case "credit":
                self.credit += _natural(decoded, "bytes")
            case "drain":
                after = decoded.get("retry_after_s", 1.0)
                self.draining_s = float(after) if isinstance(after, (int, float)) else 1.0
            case _:
                pass

    def _receive_hello(self, message: Mapping[str, object]) -> None:
        if message.get("v") != 1:
            raise ProtocolFault(f"the server speaks version {message.get('v')!r} of collector, this client 1")
        ping = message.get("ping_s", 20.0)
        self.hello = Hello(
            max_bytes=_natural(message, "max_bytes"),
            credit=_natural(message, "credit"),
            ping_s=float(ping) if isinstance(ping, (int, float)) and ping > 0 else 20.0,
        )
        self.credit = self.hello.credit

    def _receive_ack(self, message: Mapping[str, object]) -> None:
        if "upto" in message:
            highest = _natural(message, "upto")
            for number in [number for number in self.in_flight if number <= highest]:
                self._acknowledged(self.in_flight.pop(number), "delivered", message)
            return
        status = _STATUSES.get(str(message.get("status")))
        if status is None:
            raise ProtocolFault(f"ack with the status {message.get('status')!r}")
        # Only now: a ticket that leaves the table by a message that is none would never be settled.
        ticket = self.in_flight.pop(_natural(message, "id"), None)
        if ticket is not None:
            self._acknowledged(ticket, status, message)

    def _acknowledged(self, ticket: Ticket, status: AckStatus, message: Mapping[str, object]) -> None:
        counts = _counts(message)
        if status in ("busy", "not_sent", "unknown"):
            self.refusals += 1
            ticket.again = (
                ticket.again
                or status == "unknown"
                or any(counts.get(word) for word in ("delivered", "spooled", "unknown"))
            )
            self._put_back(ticket)
            return
        self.refusals = 0
        code, text = message.get("code"), message.get("message")
        self._settle(
            ticket,
            Ack(
                status=status,
                code=str(code) if code is not None else None,
                message=str(text) if text is not None else None,
                counts=counts,
                attempts=ticket.attempts,
            ),
        )

    # The connection's end

    def lost(self) -> int:
        """The connection is gone: what has no answer is to be sent again. Returns how many tickets that are."""
        unanswered = list(self.in_flight.values())
        self.in_flight.clear()
        for ticket in unanswered:
            ticket.again = True
            self._put_back(ticket)
        self.hello = None
        self.credit = 0
        self.draining_s = None
        self._next_id = 1
        return len(unanswered)

    @property
    def unsettled(self) -> int:
        """Tickets without their final word."""
        return len(self.pending) + len(self.in_flight)

    def __repr__(self) -> str:
        state = "no connection" if self.hello is None else "draining" if self.draining_s is not None else "open"
        return (
            f"<Session {state}, {len(self.pending)} pending, {len(self.in_flight)} in flight, credit {self.credit}, "
            f"{self.settled_total} settled>"
        )

    def _put_back(self, ticket: Ticket) -> None:
        ticket.state = TicketState.PENDING
        bisect.insort(self.pending, ticket, key=lambda each: each.sequence)

    def _settle(self, ticket: Ticket, ack: Ack) -> None:
        ticket.state = TicketState.SETTLED
        ticket.ack = ack
        self.unsettled_bytes -= ticket.size_bytes
        self.settled_total += 1
        if ticket.on_settled is not None:
            ticket.on_settled()


def _natural(message: Mapping[str, object], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolFault(f"{message.get('op')!r} with {name} = {value!r}")
    return value


def _counts(message: Mapping[str, object]) -> dict[str, int]:
    counts = message.get("counts")
    if not isinstance(counts, dict):
        return {}
    return {str(word): number for word, number in counts.items() if isinstance(number, int)}
