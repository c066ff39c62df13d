"""What a client's process is asked, and what it tells."""

from typing import Literal

from msgspec import Struct

__all__ = ["Closed", "Left", "Plan"]


class Plan(Struct, frozen=True):
    """One run of one client."""

    client: str
    scenario: Literal["left", "closed"]
    topic: str


class Left(Struct):
    """The values of the records, by what their callers were told."""

    not_sent: list[str]
    unknown: list[str]
    nothing: list[str]


class Closed(Struct):
    """How closing went."""

    seconds: float | None
    """None: it had not returned when the broker was let go on."""
    records: int
    results: int
    """Records with any result, good or bad, when closing had returned."""
