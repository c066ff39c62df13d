"""Milliseconds since 1970 and their written forms: RFC 3339 out, ISO 8601 in.

Owns: both directions. Refuses to know: clocks.

Invariant: `rfc3339` never raises; what the calendar of four-digit years cannot hold is None.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

__all__ = ["moment_json", "moment_of", "parse_iso8601", "rfc3339", "rfc3339_json", "shifted", "to_ms"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
ISO8601_MAX_CHARS = 64

# `datetime.fromisoformat` takes any character between date and time; ISO 8601 knows "T", and people write a space.
_ISO8601 = re.compile(r"[0-9]{4}[0-9W-]*(?:[Tt ][0-9:.,]+ ?(?:[Zz]|[+-][0-9:]+)?)?\Z")


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, rounded down; a moment without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // MILLISECOND


def parse_iso8601(text: str) -> datetime | None:
    """Read a date, or a date and a time, in any of ISO 8601's usual spellings; None where it is none."""
    if len(text) > ISO8601_MAX_CHARS or not _ISO8601.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper().replace(" Z", "Z"))
    except ValueError:
        return None


def rfc3339(time_ms: int) -> str | None:
    """Write milliseconds since 1970 as ``2026-11-20T08:15:30.123Z``; None outside of the years 1 to 9999."""
    written = rfc3339_json(time_ms)
    return None if written == b"null" else written[1:-1].decode()


def rfc3339_json(time_ms: int) -> bytes:
    """Write the same as a JSON string, or as ``null``."""
    second, ms = divmod(time_ms, 1000)
    written = _second(second)
    return b"null" if written is None else b'%b.%03dZ"' % (written, ms)


# Clients that send no time get that of receipt, and many requests come in one millisecond.
@lru_cache(maxsize=64)
def moment_of(time_ms: int) -> datetime | None:
    """Milliseconds since 1970 as a moment in UTC; None outside of the years 1 to 9999."""
    try:
        return EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return None


def shifted(moment: datetime, by: timedelta) -> datetime | None:
    """The moment so much later; None outside of the years 1 to 9999."""
    try:
        return moment + by
    except OverflowError:
        return None


def moment_json(moment: datetime) -> bytes:
    """Write a moment as `rfc3339_json` would write its milliseconds; one without a zone is UTC.

    msgspec writes what it read, with six digits of a second's fraction or none: 0.1 µs, where the way through a number
    of milliseconds takes 0.5.
    """
    written = _written(moment)
    if len(written) == _WITH_FRACTION:
        return written[:24] + b'Z"'
    if len(written) == _WITHOUT_FRACTION:
        return written[:20] + b'.000Z"'
    try:
        return moment_json(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
    except OverflowError:
        return b"null"


_written = msgspec.json.Encoder().encode
#: Of a moment in UTC; others have no Z, or an offset, and other lengths.
_WITH_FRACTION, _WITHOUT_FRACTION = len('"2026-11-20T08:15:30.123456Z"'), len('"2026-11-20T08:15:30Z"')


# The events of one request lie within few seconds: 0.1 µs remembered, 1.5 µs anew. 4096 entries hold about 500 kB.
@lru_cache(maxsize=4096)
def _second(second: int) -> bytes | None:
    try:
        moment = EPOCH + timedelta(seconds=second)
    except OverflowError:
        return None
    return b'"' + moment.isoformat(timespec="seconds")[:19].encode()
