"""Partitions as Java's default partitioner chooses them."""

import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_client.wire.murmur2 import murmur2, partition_for_key

# Source: UtilsTest.testMurmur2 of Apache Kafka.
GOLDEN = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
    (bytes([97, 98, 99]), 479470107),
]


@pytest.mark.parametrize(("key", "signed"), GOLDEN)
def test_murmur2_equals_javas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "signed"), GOLDEN)
def test_partition_clears_the_sign_bit_as_to_positive_does(key: bytes, signed: int) -> None:
    assert partition_for_key(key, 12) == (signed & 0x7FFFFFFF) % 12


@pytest.fixture(scope="session")
def reference() -> Callable[[bytes], int]:
    """kafka-python's murmur2; importing it takes longer than hypothesis allows an example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kafka.partitioner.default import murmur2 as found
    return found


@given(key=st.binary(max_size=100))
def test_murmur2_equals_kafka_pythons(reference: Callable[[bytes], int], key: bytes) -> None:
    assert murmur2(key) == reference(key) & 0xFFFFFFFF


@given(st.binary(max_size=100), st.integers(1, 10_000))
def test_partition_is_within_the_topic(key: bytes, partitions: int) -> None:
    assert 0 <= partition_for_key(key, partitions) < partitions
