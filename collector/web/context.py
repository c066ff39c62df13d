"""What of a request's head goes into its records.

Owns: that the address is cut to what may be kept before it goes anywhere; the memory of what clients look like. Refuses
to know: how a record looks.
"""

from functools import lru_cache
from typing import Literal

from collector.config import Config
from collector.ingest.record import USER_AGENT_MAX_CHARS, Client, RecordContext
from collector.privacy import kept_address
from collector.web.head import RequestHead

__all__ = ["context_of"]

#: Longer values of Dnt and Sec-Gpc say nothing.
SWITCH_MAX_BYTES = 16


def context_of(
    head: RequestHead,
    received_at_ms: int,
    node: str,
    config: Config,
    *,
    request_id: str | None = None,
    maybe_duplicate: bool = False,
) -> RecordContext:
    """The context of the events of one request, or of one message of a websocket (``request_id`` names it then)."""
    field = head.headers.fields.get
    agent, dnt, gpc = field(b"user-agent"), field(b"dnt"), field(b"sec-gpc")
    if agent is not None:
        agent = agent[:USER_AGENT_MAX_CHARS]
    if dnt is not None and len(dnt) > SWITCH_MAX_BYTES:
        dnt = None
    if gpc is not None and len(gpc) > SWITCH_MAX_BYTES:
        gpc = None
    return RecordContext(
        received_at_ms=received_at_ms,
        request_id=request_id or head.request_id,
        node=node,
        client=_client(head.ip, config.privacy.ip, agent, dnt, gpc),
        maybe_duplicate=maybe_duplicate,
    )


# 0.2 µs remembered, 20 µs anew, most of it for the address. An entry has about 1 kB, 2 kB at worst.
@lru_cache(maxsize=4096)
def _client(
    ip: str | None,
    kept: Literal["truncated", "full", "none"],
    agent: bytes | None,
    dnt: bytes | None,
    gpc: bytes | None,
) -> bytes:
    client = Client.from_headers(kept_address(ip, kept), _text(agent), _text(dnt), _text(gpc))
    return client.members


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
