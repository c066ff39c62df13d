"""What a record is, and what can have become of it: three outcomes, never two.

Owns: the values that cross the library's door. Refuses to know: how an outcome was found out.

Invariant: ``NotSent`` is only ever constructed where it is *proved* that the record is not in the log and never will
be. Whatever is not proved either way is ``Unknown``; a caller who sends it again may create a duplicate and should
carry an id by which a consumer can tell.

What there is one of for every record is a msgspec Struct: frozen and slotted like a dataclass, but made in 0.1 µs
instead of 0.7, and no work for the garbage collector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

__all__ = ["Delivered", "NotSent", "Outcome", "Record", "TopicPartition", "Unknown"]

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class TopicPartition:
    """One partition of one topic."""

    topic: str
    partition: int


class Record(Struct, frozen=True, gc=False):
    """One record to produce.

    ``key`` decides the partition unless ``partition`` is given: Java's murmur2 over the key's bytes. A record with
    neither goes to a sticky partition. ``value=None`` is a tombstone. ``timestamp_ms`` is milliseconds since the Unix
    epoch (CreateTime); None takes the wall clock at the call. ``headers`` are pairs of name and bytes.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None
    partition: int | None = None


class Delivered(Struct, frozen=True, gc=False):
    """The broker acknowledged the record with acks=all.

    ``offset`` is -1 where the broker knows the record but not where it stands (DUPLICATE_SEQUENCE_NUMBER, or an
    acknowledgement of a later batch that proves this one). ``attempts`` counts the Produce requests that carried it.
    """

    partition: TopicPartition
    offset: int
    timestamp_ms: int
    attempts: int


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proved: the record is not in the log and never will be. Sending it again cannot duplicate it.

    ``reason`` starts with one of the words ``withdrawn``, ``timeout``, ``overloaded``, ``closed``, ``too_large``,
    ``rejected`` or the name of a Kafka error; after a colon may follow prose for people.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The record may be in the log, now or later. Sending it again may duplicate it.

    ``reason`` starts with one of the words ``withdrawn``, ``timeout``, ``abandoned``, ``closed`` or the name of a Kafka
    error; after a colon may follow prose for people.
    """

    reason: str


Outcome: TypeAlias = Delivered | NotSent | Unknown
