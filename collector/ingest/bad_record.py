"""The record of an event that was rejected: why, where in its request, and a piece of it, for the bad topic.

Owns: the form of bad events: at most 10 kB of the original, keys and addresses removed. Refuses to know: how
many may be written (`collector.ingest.bad_limit`), and whether that worked.

Invariants: the value is one JSON object, UTF-8, whatever the original was; no member that holds a credential or an
address is in it, nor an app that is a key itself (open mode); the record has no key, so that the flood of one client
does not meet one partition alone.

The original stands there as text: JSON as the client wrote it, msgpack translated; what cannot be translated is left
out, since keys could not be found in it.
"""

import re

import msgspec

from collector.config import Config
from collector.dialects.base import ClientFault, Parsed, Rejection
from collector.dialects.codec import MSGPACK
from collector.times import rfc3339
from kafka_client.outcome import Record

from .record import RecordContext

__all__ = ["ORIGINAL_MAX_BYTES", "bad_record"]

ORIGINAL_MAX_BYTES = 10_000
# A secret that begins within the kept part is found whole if it ends within this much behind it.
_LOOK_AHEAD_BYTES = 2_000

REMOVED = "removed"

# The members that hold keys or addresses in any of the dialects, in any case of letters. The text may be broken JSON,
# so no parser helps; a string may be cut off at the end of the text.
_SECRET = re.compile(
    r'("(?:write_?key|app_?id|api_?key|token|authorization|ip|context_ip|ip_?address)"\s*:\s*)'
    r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[^\s,\[\]{}"]+)',
    re.IGNORECASE | re.DOTALL,
)


def bad_record(rejection: Rejection, parsed: Parsed, context: RecordContext, config: Config) -> Record:
    """Build the record of one rejected event. Called only where ``[kafka] bad_topic`` is set."""
    topic = config.kafka.bad_topic
    if topic is None:
        raise ValueError("kafka.bad_topic is not set")
    original, cut = _original(rejection, parsed)
    value = msgspec.json.encode(
        {
            "v": 1,
            "api": parsed.api,
            "app": None if config.keys.open else parsed.app,
            "received_at": rfc3339(context.received_at_ms),
            "request_id": context.request_id,
            "position": rejection.position,
            "code": rejection.code,
            "reason": _writable(rejection.message),
            "bytes": len(rejection.original),
            "cut": cut,
            "original": original,
        }
    )
    headers = (("node", context.node.encode()), ("code", rejection.code.encode()))
    return Record(topic, value, None, headers, context.received_at_ms)


def _original(rejection: Rejection, parsed: Parsed) -> tuple[str | None, bool]:
    """As much of the original as may be kept, as text, and whether something was cut off its end."""
    raw = rejection.original
    if parsed.encoding == "msgpack":
        try:
            raw = MSGPACK.as_json(raw)
        except ClientFault:
            return None, True
    seen = raw[: ORIGINAL_MAX_BYTES + _LOOK_AHEAD_BYTES]
    kept = _SECRET.sub(rf'\1"{REMOVED}"', seen.decode(errors="replace")).encode()
    cut = len(seen) < len(raw) or len(kept) > ORIGINAL_MAX_BYTES
    return kept[:ORIGINAL_MAX_BYTES].decode(errors="ignore"), cut


def _writable(text: str) -> str:
    return text.encode(errors="replace").decode()
