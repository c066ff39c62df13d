"""The dialects: what each of the field's clients sends, as events, and the answers that it understands."""

from collections.abc import Callable, Mapping

from collector.config import LimitsConfig

from .base import Answer, ClientFault, Dialect, DialectRequest, Event, Keyring, Parsed, Rejection, Route
from .heap import Heap
from .segment import Segment

__all__ = [
    "DIALECTS",
    "Answer",
    "ClientFault",
    "Dialect",
    "DialectRequest",
    "Event",
    "Keyring",
    "Parsed",
    "Rejection",
    "Route",
    "make_dialects",
]

#: Every dialect by its name, which is also the websocket's ``api``.
DIALECTS: Mapping[str, Callable[[LimitsConfig], Dialect]] = {"heap": Heap, "segment": Segment}


def make_dialects(limits: LimitsConfig) -> Mapping[str, Dialect]:
    """Make one of each, with the operator's limits."""
    return {name: make(limits) for name, make in DIALECTS.items()}
