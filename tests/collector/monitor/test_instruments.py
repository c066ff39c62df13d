import gc
import time

import pytest

from collector.monitor.gc_share import GcShare
from collector.monitor.instruments import GATHERED_ROWS, Counter, Histogram, Spans


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


def test_gc_share_does_not_count_the_time_in_which_others_had_the_core() -> None:
    class Slow:
        def __del__(self) -> None:
            time.sleep(0.1)

    share = GcShare()
    slow = Slow()
    slow.itself = slow  # type: ignore[attr-defined]
    del slow
    with share.measuring():
        gc.collect()
    assert share.longest_s - sum(share.seconds_total) >= 0.09  # of one collection, however large the heap is


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


@pytest.mark.parametrize("values", [[], [1.0], [0.5, 1.0, 1.5, 2.0, 2.5], [3.0, 3.0], [0.1] * 40])
def test_histogram_of_many_at_once_is_the_one_of_each(values: list[float]) -> None:
    together, apart = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))
    together.observe_all(values)
    for value in values:
        apart.observe(value)
    assert together.counts == apart.counts
    assert together.sum == pytest.approx(apart.sum)
    assert together.highest == apart.highest


def test_spans_are_counted_when_somebody_reads_and_when_there_are_many() -> None:
    first, second = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))
    spans = Spans((first, second))
    spans.note((10.0, 10.5, 13.5))
    assert repr(spans) == "<Spans of 2, 1 rows not counted yet>"
    assert first.total == 0
    spans.count()
    assert (first.counts, second.counts) == ([1, 0, 0], [0, 0, 1])
    for _ in range(GATHERED_ROWS):
        spans.note((10.0, 11.5, 11.5))
    assert (first.total, second.total) == (GATHERED_ROWS + 1, GATHERED_ROWS + 1)
    assert (first.counts[1], second.counts[0]) == (GATHERED_ROWS, GATHERED_ROWS)
    assert first.sum == pytest.approx(0.5 + 1.5 * GATHERED_ROWS)
