"""What of a request's head goes into its records.

Owns: that the address is cut to what may be kept before it goes anywhere. Refuses to know: how a record looks.
"""

from collector.config import Config
from collector.ingest.record import RecordContext
from collector.privacy import kept_address
from collector.web.head import RequestHead

__all__ = ["context_of"]


def context_of(
    head: RequestHead,
    received_at_ms: int,
    *,
    node: str,
    config: Config,
    request_id: str | None = None,
    maybe_duplicate: bool = False,
) -> RecordContext:
    """The context of the events of one request, or of one message of a websocket (``request_id`` names it then)."""
    return RecordContext.from_headers(
        head.headers,
        received_at_ms=received_at_ms,
        request_id=request_id or head.request_id,
        node=node,
        ip=kept_address(head.ip, config.privacy.ip),
        maybe_duplicate=maybe_duplicate,
    )
