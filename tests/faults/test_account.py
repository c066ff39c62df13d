"""The account of a row, on logs that were made up."""

import pytest

from tests.faults.account import Account, Copies, Found, goodput, settle
from tests.faults.entries import Entry, event_id, owner_of


def entry(number: int, status: int, *, events: int = 1, seconds: float = 0.01, **more: object) -> Entry:
    answered = None if status == 0 else 100.0 + seconds
    return Entry(number=number, events=events, sent_at=100.0, answered_at=answered, status=status, **more)  # type: ignore[arg-type]  # members of Entry


def topic(*names: str, marked: int = 0) -> dict[str, Copies]:
    found: dict[str, Copies] = {}
    for name in names:
        found.setdefault(name, Copies()).copies += 1
    for each in list(found.values())[:marked]:
        each.marked += 1
    return found


def test_event_found_in_topic_bad_topic_or_spool_is_not_lost() -> None:
    entries = [entry(number, 200) for number in (1, 2, 3, 4)]
    account = settle("r", entries, Found(topic=topic("r-1-0"), bad_topic={"r-2-0"}, spool={"r-3-0"}))
    assert (account.sent, account.ok, account.lost_events) == (4, 4, 1)
    assert account.lost_examples == ["r-4-0"]


def test_one_event_missing_of_an_accepted_batch_is_lost() -> None:
    account = settle("r", [entry(1, 200, events=3)], Found(topic=topic("r-1-0", "r-1-2")))
    assert (account.events, account.lost_events, account.lost_examples) == (3, 1, ["r-1-1"])


@pytest.mark.parametrize("status", [0, 503, 400])
def test_event_that_was_not_accepted_is_not_lost(status: int) -> None:
    assert settle("r", [entry(1, status)], Found(topic={})).lost_events == 0


def test_further_copies_are_duplicates_and_as_many_are_marked_as_say_so() -> None:
    found = topic("r-1-0", "r-1-0", "r-2-0", "r-2-0", "r-2-0", "r-3-0", marked=2)
    account = settle("r", [entry(number, 200) for number in (1, 2, 3)], Found(topic=found))
    assert (account.duplicates_marked, account.duplicates_unmarked) == (2, 1)


def test_marked_copy_that_is_the_only_one_is_no_duplicate() -> None:
    account = settle("r", [entry(1, 200)], Found(topic=topic("r-1-0", marked=1)))
    assert (account.duplicates_marked, account.duplicates_unmarked) == (0, 0)


def ghosts(account: Account) -> tuple[int, int, int]:
    return account.ghosts_announced, account.ghosts_unannounced, account.ghosts_without_word


def test_ghost_that_was_named_unknown_is_announced() -> None:
    sent = entry(1, 503, events=3, counted=True, unknown=(1,))
    assert ghosts(settle("r", [sent], Found(topic=topic("r-1-1")))) == (1, 0, 0)
    assert ghosts(settle("r", [sent], Found(topic=topic("r-1-2")))) == (0, 1, 0)


def test_ghosts_of_a_mixed_batch_are_announced_as_far_as_it_counts_them_delivered() -> None:
    sent = entry(1, 503, events=4, counted=True, delivered=1, unknown=(3,))
    assert ghosts(settle("r", [sent], Found(topic=topic("r-1-0", "r-1-1", "r-1-3")))) == (2, 1, 0)


@pytest.mark.parametrize("status", [0, 503])
def test_ghost_of_which_nobody_said_a_word_is_a_kind_of_its_own(status: int) -> None:
    assert ghosts(settle("r", [entry(1, status)], Found(topic=topic("r-1-0")))) == (0, 0, 1)


def test_rude_clients_are_beside_the_figures_but_what_they_were_promised_counts() -> None:
    rude = [entry(1, 0, rude=True), entry(2, 200, rude=True, seconds=30.0)]
    account = settle("r", [entry(3, 200), *rude], Found(topic=topic("r-1-0", "r-3-0")))
    assert (account.sent, account.no_answer, account.late, account.slowest_s) == (1, 0, 0, pytest.approx(0.01))
    assert ghosts(account) == (0, 0, 0)
    assert (account.rude_sent, account.rude_answered, account.lost_examples) == (2, 1, ["r-2-0"])


def test_times_count_what_was_answered_and_late_what_was_sent_whole() -> None:
    entries = [entry(number, 200, seconds=number / 1000) for number in range(1, 100)]
    entries += [entry(100, 503, seconds=6.0), entry(101, 400, seconds=6.0, whole=False), entry(102, 0)]
    account = settle("r", entries, Found(topic=topic(*(event_id("r", number, 0) for number in range(1, 100)))))
    assert (account.late, account.no_answer, account.other) == (1, 1, {400: 1})
    assert (account.p50_s, account.slowest_s) == (pytest.approx(0.051), pytest.approx(6.0))


def test_request_that_found_no_connection_is_not_one_without_an_answer() -> None:
    account = settle("r", [entry(1, 0, connected=False), entry(2, 0)], Found(topic={}))
    assert (account.no_answer, account.not_connected) == (1, 1)


def test_goodput_is_what_was_accepted_within_the_window() -> None:
    entries = [entry(number, 200, seconds=number * 0.1) for number in range(1, 21)]
    entries += [entry(30, 503, seconds=0.5), entry(31, 0), entry(32, 200, seconds=0.5, rude=True)]
    assert goodput(entries, 100.05, 101.05) == pytest.approx(10.0)


def test_event_ids_say_whose_they_are() -> None:
    assert owner_of("run", event_id("run", 17, 3)) == (17, 3)
    assert owner_of("run", event_id("other", 17, 3)) is None
    assert owner_of("run", "None") is None
