"""Which partition a record goes to: positions by partition, and what finding them takes."""

import random
import tracemalloc

import pytest

from kafka_client.buffer.partitioner import NO_ROUTE, partitions_of_routes, route_of_key, routed_partition


def routes_of(records: int) -> list[int]:
    rng = random.Random(records)
    return [route_of_key(rng.randbytes(8)) for _ in range(records)]


def test_delivery_of_few_records_does_not_pay_for_each_partition_of_the_topic() -> None:
    routes = routes_of(2)
    partitions_of_routes(routes, 10_000, NO_ROUTE)
    tracemalloc.start()
    try:
        partitions_of_routes(routes, 10_000, NO_ROUTE)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2000, "a list for each of 10 000 partitions is 1.4 MB"


@pytest.mark.parametrize("sticky", [NO_ROUTE, 3])
@pytest.mark.parametrize(("records", "partitions"), [(1, 1), (2, 1000), (5, 6), (11, 6), (12, 6), (1000, 6), (1000, 1)])
def test_each_record_is_in_the_list_of_its_partition_once_and_in_order(
    records: int, partitions: int, sticky: int
) -> None:
    routes = routes_of(records)
    if sticky != NO_ROUTE:
        routes[::2] = [NO_ROUTE] * len(routes[::2])
    groups = partitions_of_routes(routes, partitions, sticky)
    for partition, positions in groups.items():
        assert positions == sorted(positions)
        for position in positions:
            route = routes[position]
            assert partition == (sticky if route == NO_ROUTE else routed_partition(route, partitions))
    assert sorted(position for positions in groups.values() for position in positions) == list(range(records))
