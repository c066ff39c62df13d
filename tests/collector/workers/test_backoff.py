"""The pauses of a slot whose workers die."""

import random

import pytest

from collector.workers.backoff import FIRST_S, MOST_S, STEADY_S, Backoff


class Chance(random.Random):
    """Always the same number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


def test_first_death_costs_no_pause() -> None:
    assert Backoff().after(0.0) == 0.0


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_who_dies_young_again_and_again_waits_longer_up_to_a_bound(chance: float, share: float) -> None:
    backoff = Backoff(Chance(chance))
    pauses = [backoff.after(1.0) for _ in range(12)]
    assert pauses[:4] == [0.0, FIRST_S * share, 2 * FIRST_S * share, 4 * FIRST_S * share]
    assert pauses[-1] == MOST_S * share


def test_who_has_served_for_a_while_begins_anew() -> None:
    backoff = Backoff(Chance(1.0))
    for _ in range(5):
        backoff.after(0.0)
    assert [backoff.after(STEADY_S), backoff.after(1.0)] == [0.0, FIRST_S]
    assert repr(backoff) == "<Backoff 2 died young>"


def test_slots_that_fail_together_do_not_start_together() -> None:
    several = [Backoff() for _ in range(20)]
    for backoff in several:
        backoff.after(0.0)
    assert len({backoff.after(0.0) for backoff in several}) == 20
