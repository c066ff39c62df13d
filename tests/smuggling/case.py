"""What a case of the corpus is, and the few shapes most of them have."""

from dataclasses import dataclass

from collector.config import LimitsConfig

__all__ = ["FOLLOWER", "LIMITS", "Case", "Read", "chunked", "field", "line"]

#: Small, so that a case at a limit is short enough to be cut at every byte.
LIMITS = LimitsConfig(request_line_bytes=120, head_bytes=400, head_fields=8)

#: Sent behind every case: it is read as a request of its own, or what is before it was refused.
FOLLOWER = b"GET /follower HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Read:
    """One request, as somebody understood it."""

    method: str
    target: bytes
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Bytes, and what the lane must make of them.

    ``status`` is how the connection ends: with that refusal, or, 0, not at all: the follower is read. ``closes``: it
    ends after the last of ``reads`` without a refusal, and nothing of what follows is read.
    """

    name: str
    raw: bytes
    status: int = 0
    reads: tuple[Read, ...] = ()
    closes: bool = False

    @property
    def sent(self) -> bytes:
        return self.raw + FOLLOWER

    @property
    def expected(self) -> tuple[Read, ...]:
        """What is read whole of `sent`."""
        return self.reads if self.status or self.closes else (*self.reads, Read("GET", b"/follower"))


def line(text: bytes, name: str, status: int = 400, *reads: Read, closes: bool = False) -> Case:
    """A request line, or what stands for one, before a head in order."""
    return Case(name=name, raw=text + b"Host: a\r\n\r\n", status=status, reads=reads, closes=closes)


def field(text: bytes, name: str, status: int = 400, *reads: Read, body: bytes = b"5\r\nhello\r\n0\r\n\r\n") -> Case:
    """Field lines, each with its CRLF, in a POST to ``/`` that has a Host; behind it a body in chunks."""
    return Case(name=name, raw=b"POST / HTTP/1.1\r\nHost: a\r\n" + text + b"\r\n" + body, status=status, reads=reads)


def chunked(body: bytes, name: str, status: int = 400, *reads: Read) -> Case:
    """A body behind ``Transfer-Encoding: chunked``."""
    return field(b"Transfer-Encoding: chunked\r\n", name, status, *reads, body=body)
