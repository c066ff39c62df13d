"""Records that the protocol cannot carry are refused at the call, where their caller can be blamed.

Owns: the ranges of the fields that are encoded later than the call (key, value and headers are encoded there). Refuses
to know: what a broker thinks of them (a topic's name, a timestamp far off): that comes as an answer.

Invariant: what passed here is encoded without an exception, whenever that is: one would end the producer for everybody.
"""

from collections.abc import Sequence

from kafka_client.outcome import Record

__all__ = ["check_partition", "check_timestamp", "check_topic", "timestamps_of"]

_MAX_TOPIC_BYTES = 0x7FFF
_MAX_PARTITION = 2**31 - 1
_MAX_TIMESTAMP_MS = 2**63 - 1


def check_topic(topic: object) -> None:
    """Raises TypeError, ValueError unless it can stand as a string of the protocol."""
    if not isinstance(topic, str):
        raise TypeError(f"topic: a str, not {type(topic).__name__}")
    if len(topic.encode()) > _MAX_TOPIC_BYTES:
        raise ValueError(f"topic: at most {_MAX_TOPIC_BYTES} bytes")


def check_partition(partition: object) -> None:
    """Raises TypeError, ValueError unless it is an int32, and not negative."""
    if not isinstance(partition, int):
        raise TypeError(f"partition: an int or None, not {type(partition).__name__}")
    if not 0 <= partition <= _MAX_PARTITION:
        raise ValueError(f"partition: 0 to 2**31 - 1, not {partition}")


def check_timestamp(timestamp_ms: object) -> None:
    """Raises TypeError, ValueError unless it is an int64, and not negative (as Java's ProducerRecord)."""
    if not isinstance(timestamp_ms, int):
        raise TypeError(f"timestamp_ms: an int or None, not {type(timestamp_ms).__name__}")
    if not 0 <= timestamp_ms <= _MAX_TIMESTAMP_MS:
        raise ValueError(f"timestamp_ms: 0 to 2**63 - 1, not {timestamp_ms}")


def timestamps_of(records: Sequence[Record], now_ms: int) -> int | list[int]:
    """The records' timestamps, checked; one number when none has its own."""
    own = False
    for record in records:
        if record.timestamp_ms is not None:
            check_timestamp(record.timestamp_ms)
            own = True
    return [now_ms if (own_ms := record.timestamp_ms) is None else own_ms for record in records] if own else now_ms
