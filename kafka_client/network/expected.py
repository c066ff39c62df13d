"""The answers that a connection waits for, in the order of their requests.

Owns: correlation ids, the FIFO, and until when silence is to be borne. Refuses to know: streams, tasks, clocks (the
time is passed in).

Invariant: an expectation leaves the FIFO by its answer alone, and answers come in the order of requests (Kafka promises
it), so an answer whose correlation id does not match the oldest expectation ends the connection.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TypeAlias

from msgspec import Struct

from kafka_client.errors import ProtocolError
from kafka_client.wire.frames import API_NAMES, decode_response_header, encode_request_frame
from kafka_client.wire.primitives import Buffer

__all__ = ["ExpectedAnswers", "OnResponse", "Request"]

OnResponse: TypeAlias = Callable[[memoryview], None]

_LAST_CORRELATION_ID = 0x7FFFFFFF


class Request(Struct, frozen=True):
    """One request before it has a place in the FIFO."""

    api_key: int
    version: int
    body: bytes | Sequence[Buffer]
    on_response: OnResponse
    """Called with the answer's body. A `ProtocolError` out of it ends the connection, anything else is a bug."""
    timeout_s: float
    """How long silence may last while this is the oldest request."""


class _Expectation(Struct, frozen=True):
    correlation_id: int
    registered_at: float
    request: Request


class ExpectedAnswers:
    """The FIFO of one connection."""

    __slots__ = ("_client_id", "_fifo", "_last_received_at", "_next_id")

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._fifo: deque[_Expectation] = deque()
        self._next_id = 0
        self._last_received_at = -inf

    def __len__(self) -> int:
        return len(self._fifo)

    def __repr__(self) -> str:
        return f"<ExpectedAnswers {', '.join(API_NAMES[one.request.api_key] for one in self._fifo) or 'none'}>"

    @property
    def oldest(self) -> Request | None:
        """The request whose answer comes next."""
        return self._fifo[0].request if self._fifo else None

    def oldest_age_s(self, now: float) -> float:
        """How long the oldest request has been waiting; 0 if there is none."""
        return now - self._fifo[0].registered_at if self._fifo else 0.0

    def register(self, request: Request, now: float) -> bytes:
        """Give ``request`` its place and return its frame, which must be written next."""
        correlation_id = self._next_id
        frame = encode_request_frame(request.api_key, request.version, correlation_id, self._client_id, request.body)
        self._next_id = (correlation_id + 1) & _LAST_CORRELATION_ID
        self._fifo.append(_Expectation(correlation_id, now, request))
        return frame

    def take(self, frame: memoryview) -> None:
        """Hand ``frame`` to the request that it answers; raises `ProtocolError` if it answers none."""
        if not self._fifo:
            raise ProtocolError("an answer came to a request that was not sent")
        expectation = self._fifo.popleft()
        request = expectation.request
        correlation_id, body = decode_response_header(frame, request.api_key, request.version)
        if correlation_id != expectation.correlation_id:
            name = API_NAMES[request.api_key]
            raise ProtocolError(f"answer {correlation_id} came where {expectation.correlation_id} ({name}) was due")
        request.on_response(body)

    def heard(self, now: float) -> None:
        """Bytes came, a whole answer or not: the silence begins anew."""
        self._last_received_at = now

    def silent_until(self) -> float:
        """When silence will have lasted too long: from the last byte, or from the oldest request if that is later."""
        if not self._fifo:
            return inf
        oldest = self._fifo[0]
        return max(oldest.registered_at, self._last_received_at) + oldest.request.timeout_s
