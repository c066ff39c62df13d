"""What a connection tells about itself.

Owns: the shape. Refuses to know: who looks.
"""

from dataclasses import dataclass

__all__ = ["ConnectionStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """What went over one connection so far."""

    address: str
    in_flight: int
    """Requests without an answer."""
    oldest_request_age_s: float
    """0 when nothing is in flight."""
    requests_total: int
    responses_total: int
    sent_bytes_total: int
    received_bytes_total: int
    reauthentications_total: int
    """How often the broker was convinced again on it (KIP-368)."""
