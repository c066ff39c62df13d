"""From a good event to the record in Kafka: contracts.md §6.

Owns: the value's members and their order, the key, the headers, the ids that clients leave out. Refuses to know:
dialects, deadlines, the bad topic (`collector.ingest.bad_record`), what becomes of a record.

Invariants: the value is one JSON object with all members, in the contract's order; ``body`` is the client's slice,
byte for byte (base64 of it where it is not JSON); the key's bytes are made of the identity's UTF-8; equal arguments
give equal records.

Theory: what all events of a request share is written once, as three pieces of text between the members of an event;
an event then costs one join. An id that a client left out is cut out of one SHAKE-128 stream over the request's id: a
hash of (request id, position) for 0.04 µs an event, where a hash object per event would cost 0.7 µs.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from collector.config import Config
from collector.dialects.base import Event, Parsed
from collector.times import rfc3339
from kafka_client.outcome import Record

__all__ = ["RecordContext", "build_record", "build_records", "new_node"]

ID_HEX_CHARS = 32
"""128 bits: no two events of the field's history share one."""

USER_AGENT_MAX_CHARS = 512
"""It stands in every record of a request; browsers send 100 to 200."""

_quote = msgspec.json.Encoder().encode
# Source: the substrings that the IAB/ABC list and matomo's device-detector have in common. CUBOT makes phones.
_BOT = re.compile(r"(?<!cu)bot\b|crawl|spider|slurp|headless|lighthouse|phantomjs|preview", re.IGNORECASE)


class RecordContext(Struct, frozen=True, kw_only=True):
    """What the web knows of a request beside its body. ``ip`` is as much of the address as may be kept."""

    received_at_ms: int
    request_id: str
    node: str
    """The incarnation of this process: `new_node`, once at its start."""
    ip: str | None = None
    user_agent: str | None = None
    bot: bool | None = None
    dnt: bool | None = None
    gpc: bool | None = None
    maybe_duplicate: bool = False
    """A repeat of what may be in the topic already: replays, and a websocket's ``"again": true``."""

    @classmethod
    def from_headers(
        cls,
        headers: Mapping[str, str],
        *,
        received_at_ms: int,
        request_id: str,
        node: str,
        ip: str | None,
        maybe_duplicate: bool = False,
    ) -> "RecordContext":
        """Read what the headers (names in lower case) say of the client; what they do not say is None."""
        user_agent = headers.get("user-agent")
        return cls(
            received_at_ms=received_at_ms,
            request_id=request_id,
            node=node,
            ip=ip,
            user_agent=None if user_agent is None else user_agent[:USER_AGENT_MAX_CHARS],
            bot=None if user_agent is None else _BOT.search(user_agent) is not None,
            dnt=_switch(headers.get("dnt")),
            gpc=_switch(headers.get("sec-gpc")),
            maybe_duplicate=maybe_duplicate,
        )


def new_node() -> str:
    """Name an incarnation of this process; no two are the same."""
    return secrets.token_hex(8)


def build_records(
    events: Sequence[Event], parsed: Parsed, context: RecordContext, first_seq: int, config: Config
) -> list[Record]:
    """Build the record of each of ``events``, a run of ``parsed.events``; the first is number ``first_seq``."""
    if not events:
        return []
    kafka = config.kafka
    topic, keyed, app, json = kafka.topic, kafka.key, parsed.app, parsed.encoding == "json"
    received_at_ms, node = context.received_at_ms, ("node", context.node.encode())
    tail = (("maybe-duplicate", b"1"),) if context.maybe_duplicate else ()
    before_type, before_time, before_body = _shared(parsed, context)
    ids = _Ids(context.request_id, events[-1].position)
    records: list[Record] = []
    for seq, event in enumerate(events, first_seq):
        id_ = event.id or ids.of(event.position)
        moment = None if event.timestamp_ms is None else rfc3339(event.timestamp_ms)
        value = b"".join(
            (
                b'{"v":1,"id":',
                _quote(id_),
                before_type,
                _quote(event.type),
                before_time,
                _quote(moment),
                before_body,
                event.body if json else _quote(event.body),
                b"}",
            )
        )
        identity = event.identity
        records.append(
            Record(
                topic,
                value,
                None if identity is None else _key(keyed, app, identity),
                (("message-id", id_.encode()), node, ("seq", b"%d" % seq), *tail),
                received_at_ms,
            )
        )
    return records


def build_record(event: Event, parsed: Parsed, context: RecordContext, seq: int, config: Config) -> Record:
    """Build the record of one of ``parsed.events``."""
    return build_records((event,), parsed, context, seq, config)[0]


class _Ids:
    """Ids for events that have none: 128 bits at their position in one stream over the request's id."""

    __slots__ = ("_hex", "_last", "_request_id")

    def __init__(self, request_id: str, last: int) -> None:
        self._request_id = request_id
        self._last = last
        self._hex = ""

    def of(self, position: int) -> str:
        if not self._hex:
            stream = hashlib.shake_128(self._request_id.encode(errors="replace"))
            self._hex = stream.hexdigest((self._last + 1) * ID_HEX_CHARS // 2)
        return self._hex[position * ID_HEX_CHARS : (position + 1) * ID_HEX_CHARS]


def _key(keyed: str, app: str, identity: str) -> bytes | None:
    match keyed:
        case "identity":
            return identity.encode()
        case "app+identity":
            return f"{app}:{identity}".encode()
        case "hash":
            return hashlib.sha256(identity.encode()).hexdigest().encode()
        case _:
            return None


def _shared(parsed: Parsed, context: RecordContext) -> tuple[bytes, bytes, bytes]:
    """What the events of a request share: before the type, before the timestamp, before the body."""
    skew_ms = None if parsed.sent_at_ms is None else context.received_at_ms - parsed.sent_at_ms
    flags = {"bot": context.bot, "dnt": context.dnt, "gpc": context.gpc, "skew_ms": skew_ms}
    before_type = b',"api":%b,"type":' % _quote(parsed.api)
    before_time = b',"app":%b,"received_at":%b,"sent_at":%b,"timestamp":' % (
        _quote(parsed.app),
        _quote(rfc3339(context.received_at_ms)),
        _quote(None if parsed.sent_at_ms is None else rfc3339(parsed.sent_at_ms)),
    )
    before_body = b',"ip":%b,"user_agent":%b,"flags":%b,"batch":%b,"encoding":%b,"body":' % (
        _quote(context.ip),
        _quote(_clean(context.user_agent)),
        _quote(flags),
        b"null" if parsed.batch is None else parsed.batch,
        b'"json"' if parsed.encoding == "json" else b'"base64"',
    )
    return before_type, before_time, before_body


def _clean(text: str | None) -> str | None:
    """A header decoded with surrogateescape may hold what UTF-8 cannot."""
    return None if text is None else text.encode(errors="replace").decode()


def _switch(value: str | None) -> bool | None:
    return {"1": True, "0": False}.get(value.strip()) if value is not None else None
