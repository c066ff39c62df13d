"""What one client sent and what it was told: the load's log, one line a request.

Owns: the form of the log, and the names of events. Refuses to know: how requests are sent, what their fate means.

Invariant: an event's name is made of its request's number and its position, so whoever finds one somewhere knows whose
it is, and the log needs no list of names.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["Entry", "event_id", "owner_of", "read_entries"]


class Entry(msgspec.Struct, kw_only=True, gc=False):
    """One request over HTTP or one message over a websocket. Times are the machine's monotonic clock, in seconds."""

    number: int
    """Of this run; counts from 1."""
    events: int
    sent_at: float
    """When its last byte was given to the kernel, or its connection broke before."""
    how: str = "http"
    """``http`` or ``websocket``."""
    whole: bool = True
    """All of it was given to the kernel."""
    connected: bool = True
    """False: there was no connection to send it on; nobody has seen a byte of it."""
    rude: bool = False
    """Sent by a client that does not read its answers, or sends byte by byte."""
    answered_at: float | None = None
    status: int = 0
    """0: no answer. A message's ``ack`` counts as the status that the same words have over HTTP."""
    counted: bool = False
    """The answer counts what became of the events (``X-Collector-Outcome``, or an ``ack``)."""
    delivered: int = 0
    """By those counts: delivered or spooled."""
    unknown: tuple[int, ...] = ()
    """Positions that the answer names as unknown."""


def event_id(run: str, number: int, position: int) -> str:
    """The message id of one event."""
    return f"{run}-{number}-{position}"


def owner_of(run: str, name: str) -> tuple[int, int] | None:
    """Number of the request and position in it; None for an event of somebody else."""
    found, _, rest = name.partition("-")
    if found != run:
        return None
    number, _, position = rest.partition("-")
    return int(number), int(position)


def read_entries(file: Path) -> Iterator[Entry]:
    """The log of one load.

    Raises:
        msgspec.DecodeError: A line is no entry.
    """
    decoder = msgspec.json.Decoder(Entry)
    with file.open("rb") as lines:
        for line in lines:
            yield decoder.decode(line)
