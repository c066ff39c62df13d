import email.utils
import random
import time

import pytest

from collector.client.pace import HIGHEST_S, pause_s, retry_after_s


@pytest.mark.parametrize(("attempt", "bound"), [(1, 0.1), (2, 0.2), (5, 1.6), (8, HIGHEST_S), (10_000, HIGHEST_S)])
def test_a_pause_is_full_jitter_below_a_doubling_bound(attempt: int, bound: float) -> None:
    pauses = [pause_s(attempt, None, random.Random(seed)) for seed in range(300)]
    assert all(0 <= pause <= bound for pause in pauses)
    assert max(pauses) > bound * 0.9
    assert min(pauses) < bound * 0.1


def test_a_pause_is_never_shorter_than_asked_for() -> None:
    assert all(5 <= pause_s(9, 5.0, random.Random(seed)) <= 6 for seed in range(100))


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("4", 4.0), (" 0.5 ", 0.5), ("-1", 0.0), ("100000", 300.0), ("soon", None)]
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_as_a_date_is_relative_to_this_clock() -> None:
    seconds = retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert seconds == pytest.approx(60, abs=2)
