"""What a peer is told: one JSON value as its argument. Imports no peer: this side may not have them."""

from msgspec import Struct

__all__ = ["PeerSpec", "SendingSpec"]


class SendingSpec(Struct, frozen=True, kw_only=True):
    """Which producer, with which settings."""

    client: str
    """``aiokafka`` | ``librdkafka``."""
    bulk: str = "send"
    """How aiokafka takes many: ``send`` each, or ``send_batch``."""
    linger_ms: float = 0
    threaded: bool = False
    """For single events: librdkafka's answers are waited for in a thread of their own, which wakes the loop for each.
    Quick to hear of one, dear for many; otherwise the loop polls."""


class PeerSpec(Struct, frozen=True, kw_only=True):
    """What a peer is told."""

    port: int
    framework: str
    """``fastapi`` | ``starlette`` | ``bare`` | ``floor``: an application that answers at once, without Kafka."""
    sending: SendingSpec | None = None
    bootstrap_servers: str = ""
    topic: str = ""
    websockets: str = "none"
    """uvicorn's name of the implementation."""
