import gc

import pytest

from collector.monitor.gc_share import GcShare
from collector.monitor.instruments import Counter, Histogram


def test_histogram_puts_a_value_on_a_bound_into_the_bucket_below() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 7.5
    assert histogram.total == 5


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.4, 1.0), (0.5, 2.0), (0.8, 2.0), (0.99, 2.5)])
def test_histogram_quantile_is_its_buckets_bound_or_the_highest_value(share: float, expected: float) -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.quantile(share) == expected


def test_histogram_without_observations_has_quantile_zero() -> None:
    assert Histogram().quantile(0.99) == 0.0
    assert repr(Histogram()) == "<Histogram 0 observations, highest 0>"


def test_counter_counts_known_and_new_keys() -> None:
    counter = Counter("a")
    counter.add("a")
    counter.add("b", 3)
    assert counter.counts == {"a": 1, "b": 3}
    assert repr(counter) == "<Counter {'a': 1, 'b': 3}>"


def test_gc_share_counts_collections_only_while_it_measures() -> None:
    share = GcShare()
    before = list(gc.callbacks)
    with share.measuring():
        gc.collect()
    gc.collect()
    assert share.collections_total[2] == 1
    assert share.seconds_total[2] > 0
    assert share.longest_s > 0
    assert gc.callbacks == before


def test_gc_share_is_of_the_cpu_between_two_ticks() -> None:
    share = GcShare()
    with share.measuring():
        share.tick()
        for _ in range(20):
            gc.collect()
        share.tick()
        assert 0.5 < share.share <= 1.0
        sum(range(2_000_000))
        share.tick()
        assert share.share < 0.2
