"""One HTTP/1 request as the lane's parser hands it over, and why it would not.

Owns: the shape that passes between the parser and the connection. Refuses to know: httptools, sockets, ASGI.
"""

from typing import Literal

__all__ = ["Refusal", "Request"]


class Refusal(Exception):
    """These bytes are no request that may be answered otherwise than by ``status`` and the end of the connection.

    ``status`` is 400 (malformed, or ambiguous about where it ends), 414, 431, 501 or 505; ``reason`` is a sentence for
    the developer who reads it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Request:
    """A request whose head is complete; its body comes in pieces.

    ``headers`` have lower-cased names and values without white space around them, in the order in which they came.
    """

    __slots__ = (
        "body_bytes",
        "chunked",
        "complete",
        "content_length",
        "expect_continue",
        "headers",
        "http_version",
        "keep_alive",
        "method",
        "pieces",
        "target",
        "upgrade",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        """As it was sent: origin-form (path and query) or absolute-form."""
        self.http_version: Literal["1.0", "1.1"] = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        """What the request itself allows."""
        self.expect_continue = False
        self.upgrade: Literal["websocket", "h2c"] | None = None
        """What the client wants to speak after this request; the bytes behind it are not HTTP/1 then."""
        self.pieces: list[bytes] = []
        """What has come of the body and was not taken yet."""
        self.body_bytes = 0
        """What has come of the body in all."""
        self.complete = False
        """The end of the body has come."""

    def __repr__(self) -> str:
        state = "complete" if self.complete else "open"
        return f"<Request {self.method} {self.target!r} {state}, {self.body_bytes} bytes of body>"

    def copy(self) -> "Request":
        """Another request with the same head, and nothing of a body yet."""
        other = Request()
        other.method = self.method
        other.target = self.target
        other.http_version = self.http_version
        other.headers = self.headers.copy()
        other.content_length = self.content_length
        other.chunked = self.chunked
        other.keep_alive = self.keep_alive
        other.expect_continue = self.expect_continue
        other.upgrade = self.upgrade
        return other

    def whole(self) -> bytes:
        """The body of a request that is complete and of which nothing was taken; `take` still gives it."""
        pieces = self.pieces
        if len(pieces) != 1:
            pieces[:] = [b"".join(pieces)]
        return pieces[0]

    def take(self) -> bytes:
        """What has come of the body since the last call; the memory is the caller's now."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
