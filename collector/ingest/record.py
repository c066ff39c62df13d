"""From a good event to the record in Kafka.

Owns: the value's members and their order, the key, the headers, the ids that clients leave out. Refuses to know:
dialects, deadlines, the bad topic (`collector.ingest.bad_record`), what becomes of a record.

Invariants: the value is one JSON object with all members, in the contract's order; ``body`` is the client's slice,
byte for byte (base64 of it where it is not JSON); the key's bytes are made of the identity's UTF-8; equal arguments
give equal records.

Theory: what all events of a request share is written once, as two pieces of text between the members of an event; an
event then costs one join, which makes what goes into a batch: value, key and headers with their lengths. A `Record`,
its value and its headers would cost twice as much again; who needs them (the spool, when an event goes there) has them
made of that. An id that a client left out is cut out of one SHAKE-128 stream over the request's id: a
hash of (request id, position) for 0.04 µs an event, where a hash object per event would cost 0.7 µs.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from collector.config import Config
from collector.dialects.base import Event, Parsed
from collector.times import moment_json, rfc3339_json
from kafka_client.buffer.encoded import NO_KEY, Encoded, keyed
from kafka_client.wire.record_tail import LENGTHS, LENGTHS_KEPT, length_of, sized

__all__ = [
    "MAYBE_DUPLICATE",
    "USER_AGENT_MAX_CHARS",
    "Client",
    "RecordContext",
    "encode_events",
    "new_node",
]

MAYBE_DUPLICATE = ("maybe-duplicate", b"1")
"""The header that tells a consumer: an earlier copy of this event may be in the log."""

ID_HEX_CHARS = 32
"""128 bits: no two events of the field's history share one."""

USER_AGENT_MAX_CHARS = 512
"""It stands in every record of a request; browsers send 100 to 200."""

_quote = msgspec.json.Encoder().encode
# Source: the substrings that the IAB/ABC list and matomo's device-detector have in common. CUBOT makes phones.
_BOT = re.compile(r"(?<!cu)bot\b|crawl|spider|slurp|headless|lighthouse|phantomjs|preview", re.IGNORECASE)


class Client(Struct, frozen=True, kw_only=True):
    """What records say of who sent a request; the same for many requests. ``ip`` is as much of it as may be kept."""

    ip: str | None = None
    user_agent: str | None = None
    bot: bool | None = None
    dnt: bool | None = None
    gpc: bool | None = None

    @classmethod
    def from_headers(cls, ip: str | None, user_agent: str | None, dnt: str | None, gpc: str | None) -> "Client":
        """Read what the headers say of the client; what they do not say is None."""
        if user_agent is not None:
            user_agent = user_agent[:USER_AGENT_MAX_CHARS]
        return cls(
            ip=ip,
            user_agent=user_agent,
            bot=None if user_agent is None else _BOT.search(user_agent) is not None,
            dnt=_switch(dnt),
            gpc=_switch(gpc),
        )

    @property
    def members(self) -> bytes:
        """The members of a record that say it, up to the skew."""
        # A header decoded with surrogateescape may hold what UTF-8 cannot.
        agent = None if self.user_agent is None else self.user_agent.encode(errors="replace").decode()
        flags = _quote({"bot": self.bot, "dnt": self.dnt, "gpc": self.gpc})
        return b',"ip":%b,"user_agent":%b,"flags":%b,"skew_ms":' % (_quote(self.ip), _quote(agent), flags[:-1])


class RecordContext(Struct, frozen=True, kw_only=True):
    """What the web knows of a request beside its body."""

    received_at_ms: int
    request_id: str
    node: str
    """The incarnation of this process: `new_node`, once at its start."""
    client: bytes
    """`Client.members`."""
    maybe_duplicate: bool = False
    """A repeat of what may be in the topic already: replays, and a websocket's ``"again": true``."""


def new_node() -> str:
    """Name an incarnation of this process; no two are the same."""
    return secrets.token_hex(8)


def encode_events(
    events: Sequence[Event],
    parsed: Parsed,
    context: RecordContext,
    first_seq: int,
    config: Config,
    doubtful: Collection[int] = (),
) -> Encoded:
    """Encode the record of each of ``events``, a run of ``parsed.events``; the first is number ``first_seq``.

    ``doubtful`` are the positions of those that may be in the topic already.
    """
    keys, node, again = config.kafka.key, context.node, context.maybe_duplicate
    keyed, before_identity = _KEYED[keys], f"{parsed.app}:" if keys == "app+identity" else ""
    json = parsed.encoding == "json"
    before_body = _before_body(parsed, context)
    around_bytes = len(_BEFORE_ID) + len(before_body) + len(_AFTER_BODY)
    type_, head = None, b""
    ids = b""
    before_message_id = _BEFORE_MESSAGE_ID_AGAIN if again else _BEFORE_MESSAGE_ID
    digits = len(str(first_seq))
    longer_seq, after_message_id = _after_message_id(node, digits, again)
    tails: list[bytes] = []
    routes: list[int] = []
    for seq, event in enumerate(events, first_seq):
        if seq == longer_seq:
            digits += 1
            longer_seq, after_message_id = _after_message_id(node, digits, again)
        id_ = event.id
        if id_:
            quoted, message_id = _quote(id_), id_.encode()
        else:
            ids = ids or (_id if parsed.single else _ids)(context.request_id, events[-1].position)
            place = event.position * ID_HEX_CHARS
            message_id = ids[place : place + ID_HEX_CHARS]
            quoted = b'"%b"' % message_id
        if event.type != type_:
            type_ = event.type
            head = _head(parsed.api, parsed.app, type_, context.received_at_ms, parsed.sent_at_ms)
        moment = event.timestamp
        when = b"null" if moment is None else moment_json(moment)
        body = event.body if json else _quote(event.body)
        size = around_bytes + len(quoted) + len(head) + len(when) + len(body)
        identity = event.identity
        key, route = NO_KEY if identity is None else keyed(before_identity + identity)
        before, after = before_message_id, after_message_id
        if doubtful and not again and event.position in doubtful:
            before, after = _BEFORE_MESSAGE_ID_AGAIN, _after_message_id(node, digits, True)[1]
        tails.append(
            b"".join(
                (
                    key,
                    LENGTHS[size] if size < LENGTHS_KEPT else length_of(size),
                    _BEFORE_ID,
                    quoted,
                    head,
                    when,
                    before_body,
                    body,
                    before[len(message_id)],
                    message_id,
                    after % seq,
                )
            )
        )
        routes.append(route)
    return Encoded(config.kafka.topic, context.received_at_ms, tails, routes)


def _id(request_id: str, last: int) -> bytes:
    """As `_ids`, where there is no other event: for half the price."""
    return hashlib.blake2s(request_id.encode(errors="replace"), digest_size=ID_HEX_CHARS // 2).hexdigest().encode()


def _ids(request_id: str, last: int) -> bytes:
    """Ids for events that have none, up to this position: 128 bits each, in one stream over the request's id."""
    stream = hashlib.shake_128(request_id.encode(errors="replace"))
    return stream.hexdigest((last + 1) * ID_HEX_CHARS // 2).encode()


_BEFORE_ID = b'{"v":1,"id":'
_AFTER_BODY = b"}"
_MESSAGE_ID, _NODE, _SEQ = sized(b"message-id"), sized(b"node"), sized(b"seq")
_AGAIN = sized(MAYBE_DUPLICATE[0].encode()) + sized(MAYBE_DUPLICATE[1])


class _BeforeMessageId(dict[int, bytes]):
    """What stands between the body and an id of so many bytes, where there are so many headers."""

    def __init__(self, headers: int) -> None:
        self._headers = headers

    def __missing__(self, size: int) -> bytes:
        made = b"".join((_AFTER_BODY, length_of(self._headers), _MESSAGE_ID, length_of(size)))
        if size < LENGTHS_KEPT:
            self[size] = made
        return made


_BEFORE_MESSAGE_ID = _BeforeMessageId(3)
_BEFORE_MESSAGE_ID_AGAIN = _BeforeMessageId(4)


@lru_cache(maxsize=64)
def _after_message_id(node: str, digits: int, again: bool) -> tuple[int, bytes]:
    """The first number with more digits; and a format: how a record ends whose number has so many."""
    before = _NODE + sized(node.encode()) + _SEQ + length_of(digits)
    return 10**digits, before.replace(b"%", b"%%") + b"%d" + (_AGAIN if again else b"")


# Those who send much send again: 0.1 µs remembered, 0.6 µs anew. An entry has about 300 B, 9 kB at worst (a key of
# 1024 characters of four bytes), which nobody sends a thousand of.
@lru_cache(maxsize=4096)
def _keyed(identity: str) -> tuple[bytes, int]:
    return keyed(identity.encode())


@lru_cache(maxsize=4096)
def _keyed_by_hash(identity: str) -> tuple[bytes, int]:
    return keyed(hashlib.sha256(identity.encode()).hexdigest().encode())


_KEYED: Mapping[str, Callable[[str], tuple[bytes, int]]] = {
    "identity": _keyed,
    "app+identity": _keyed,
    "hash": _keyed_by_hash,
    "none": lambda identity: NO_KEY,
}


# Under load many requests come in a millisecond: 0.2 µs remembered, 1 µs anew.
@lru_cache(maxsize=256)
def _head(api: str, app: str, type_: str, received_at_ms: int, sent_at_ms: int | None) -> bytes:
    """What events of one type share, between the id and the time."""
    return b',"api":%b,"type":%b,"app":%b,"received_at":%b,"sent_at":%b,"timestamp":' % (
        _quote(api),
        _quote(type_),
        _quote(app),
        rfc3339_json(received_at_ms),
        b"null" if sent_at_ms is None else rfc3339_json(sent_at_ms),
    )


def _before_body(parsed: Parsed, context: RecordContext) -> bytes:
    """What all events of a request share, between the time and the body."""
    if parsed.sent_at_ms is None and parsed.batch is None and parsed.encoding == "json":
        return _before_single_body(context.client)
    skew = b"null" if parsed.sent_at_ms is None else b"%d" % (context.received_at_ms - parsed.sent_at_ms)
    return b'%b%b},"batch":%b,"encoding":%b,"body":' % (
        context.client,
        skew,
        b"null" if parsed.batch is None else parsed.batch,
        b'"json"' if parsed.encoding == "json" else b'"base64"',
    )


@lru_cache(maxsize=1024)
def _before_single_body(client: bytes) -> bytes:
    return client + b'null},"batch":null,"encoding":"json","body":'


def _switch(value: str | None) -> bool | None:
    return {"1": True, "0": False}.get(value.strip()) if value is not None else None
