"""Java's default partitioner: murmur2 of the key's bytes.

Owns: which partition a key belongs to, so that a Java, Go or librdkafka (``partitioner=murmur2_random``) client puts
the same key where we do. Refuses to know: partitions without a leader: a key never moves.

Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive; KIP-480 left keyed records as they were.
"""

from murmurhash2 import murmurhash2

__all__ = ["key_hash", "murmur2", "partition_for_key"]

_SEED = 0x9747B28C
_POSITIVE = 0x7FFFFFFF


def murmur2(key: bytes) -> int:
    """The hash as an unsigned number of 32 bits (Java shows the same bits as a signed one)."""
    value: int = murmurhash2(key, _SEED)
    return value


def key_hash(key: bytes) -> int:
    """``toPositive(murmur2(key))``: 31 bits. Modulo the number of partitions it is the key's partition."""
    value: int = murmurhash2(key, _SEED) & _POSITIVE
    return value


def partition_for_key(key: bytes, partitions: int) -> int:
    """``toPositive(murmur2(key)) % partitions``."""
    return key_hash(key) % partitions
