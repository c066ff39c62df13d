"""The memory of accepted ids: what is held back, what is sent as a possible duplicate, and what is forgotten when."""

import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import REMEMBERED_EVENT_BYTES, RetryMemoryConfig
from collector.dialects.base import Event, Parsed
from collector.ingest.retry_memory import Claim, RetryMemory
from collector.ingest.verdict import Status

DELIVERED, SPOOLED, REJECTED, NOT_SENT, UNKNOWN = Status


def event(position: int, id_: str | None, body: bytes = b"{}", type_: str = "track") -> Event:
    return Event(position=position, type=type_, id=id_, identity=None, timestamp=None, body=body)


def request(*ids: str | None, body: bytes = b"{}", app: str = "shop", accept_only: bool = False) -> Parsed:
    events = [event(position, id_, body) for position, id_ in enumerate(ids)]
    return Parsed(api="segment", app=app, events=events, accept_only=accept_only)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> RetryMemory:
    return RetryMemory(RetryMemoryConfig(), clock=clock)


def claimed(memory: RetryMemory, parsed: Parsed) -> Claim:
    missing, claim = memory.claim(parsed)
    assert claim is not None
    assert len(missing.events) + claim.deduplicated == len(parsed.events)
    return claim


def told(memory: RetryMemory, parsed: Parsed) -> tuple[list[int], list[int]]:
    """Positions that are sent plainly, and those that are sent as possible duplicates."""
    missing, claim = memory.claim(parsed)
    assert claim is not None
    sent = [each.position for each in missing.events]
    assert len(sent) + claim.deduplicated == len(parsed.events)
    assert set(claim.doubtful) <= set(sent)
    return [position for position in sent if position not in claim.doubtful], sorted(claim.doubtful)


@pytest.mark.parametrize("status", [DELIVERED, SPOOLED])
@pytest.mark.parametrize("ids", [("a",), ("a", "b", "c")])
def test_settled_event_is_not_sent_again(memory: RetryMemory, ids: tuple[str, ...], status: Status) -> None:
    claimed(memory, request(*ids)).settle([status] * len(ids))
    assert told(memory, request(*ids)) == ([], [])
    claimed(memory, request(*(id_ + "'" for id_ in ids))).settle_all()
    assert told(memory, request(*(id_ + "'" for id_ in ids))) == ([], [])
    assert memory.statistics().hits_total == 2 * len(ids)


def test_batch_that_comes_back_sends_what_is_missing_under_its_positions(memory: RetryMemory) -> None:
    ids = ("delivered", "not sent", "unknown", "rejected", "spooled")
    claimed(memory, request(*ids)).settle([DELIVERED, NOT_SENT, UNKNOWN, REJECTED, SPOOLED])
    assert told(memory, request(*ids)) == ([1, 3], [2])
    statistics = memory.statistics()
    assert (statistics.lookups_total, statistics.hits_total, statistics.doubtful_total) == (10, 2, 1)
    assert statistics.hit_rate == 0.2


def test_repeat_of_what_is_in_work_is_sent_as_a_possible_duplicate(memory: RetryMemory) -> None:
    first = claimed(memory, request("a"))
    assert told(memory, request("a")) == ([], [0])
    first.settle_all()
    assert told(memory, request("a")) == ([], [])


def test_same_id_twice_in_a_request_sends_the_second_as_a_possible_duplicate(memory: RetryMemory) -> None:
    assert told(memory, request("a", "b", "a")) == ([0, 1], [2])


def test_unknown_that_was_delivered_late_is_settled(memory: RetryMemory) -> None:
    claim = claimed(memory, request("a", "b"))
    claim.settle([UNKNOWN, UNKNOWN])
    claim.resolved(1, DELIVERED)
    assert told(memory, request("a", "b")) == ([], [0])


def test_unknown_that_was_not_sent_after_all_is_forgotten(memory: RetryMemory) -> None:
    claim = claimed(memory, request("a"))
    claim.settle([UNKNOWN])
    claim.resolved(0, NOT_SENT)
    assert told(memory, request("a")) == ([0], [])


def test_unknown_for_good_stays_in_doubt(memory: RetryMemory) -> None:
    claim = claimed(memory, request("a"))
    claim.settle([UNKNOWN])
    claim.resolved(0, UNKNOWN)
    assert told(memory, request("a")) == ([], [0])


def test_one_sending_proved_absent_proves_nothing_about_the_other(memory: RetryMemory) -> None:
    first = claimed(memory, request("a"))
    second = claimed(memory, request("a"))
    second.settle([UNKNOWN])
    first.settle([NOT_SENT])
    third = claimed(memory, request("a"))
    assert list(third.doubtful) == [0]
    third.settle([NOT_SENT])
    second.resolved(0, NOT_SENT)
    assert told(memory, request("a")) == ([0], [])


def test_settled_event_stays_settled_whatever_becomes_of_a_repeat(memory: RetryMemory) -> None:
    first = claimed(memory, request("a"))
    second = claimed(memory, request("a"))
    first.settle([DELIVERED])
    second.settle([UNKNOWN])
    second.resolved(0, NOT_SENT)
    assert told(memory, request("a")) == ([], [])


def test_many_sendings_in_doubt_stay_in_doubt_until_one_is_settled(memory: RetryMemory) -> None:
    claims = [claimed(memory, request("a")) for _ in range(20)]
    for claim in claims:
        claim.settle([NOT_SENT])
    assert told(memory, request("a")) == ([], [0])
    claims[0].resolved(0, DELIVERED)
    assert told(memory, request("a")) == ([], [])


def test_same_id_with_another_body_is_sent_counted_and_remembered_itself(memory: RetryMemory) -> None:
    claimed(memory, request("a", body=b'{"from":"a stranger"}')).settle_all()
    own = request("a", body=b'{"from":"the owner"}')
    claim = claimed(memory, own)
    assert (claim.deduplicated, claim.doubtful) == (0, set())
    claim.settle([DELIVERED])
    assert memory.statistics().conflicts_total == 1
    assert told(memory, own) == ([], [])
    assert told(memory, request("a", body=b'{"from":"a stranger"}')) == ([], [])
    assert told(memory, request("a", body=b'{"from":"a third"}')) == ([0], [])
    assert memory.statistics().conflicts_total == 2


def test_other_body_is_found_again_after_the_first_was_proved_absent(memory: RetryMemory) -> None:
    first = claimed(memory, request("a", body=b"1"))
    claimed(memory, request("a", body=b"2")).settle([DELIVERED])
    first.settle([NOT_SENT])
    assert told(memory, request("a", body=b"2")) == ([], [])
    assert told(memory, request("a", body=b"1")) == ([0], [])


@pytest.mark.parametrize(
    "other",
    [
        request("a", app="shop2"),
        Parsed(api="heap", app="shop", events=[event(0, "a")]),
        Parsed(api="segment", app="shop", events=[event(0, "a", type_="page")]),
    ],
)
def test_id_belongs_to_its_app_its_api_and_its_type(memory: RetryMemory, other: Parsed) -> None:
    claimed(memory, request("a")).settle_all()
    assert told(memory, other) == ([0], [])
    assert memory.statistics().conflicts_total == 0


def test_events_without_an_id_of_the_clients_take_no_part(memory: RetryMemory) -> None:
    assert memory.claim(request(None))[1] is None
    assert memory.claim(request(None, None))[1] is None
    mixed = request("a", None, "b")
    claim = claimed(memory, mixed)
    claim.settle([DELIVERED, DELIVERED, UNKNOWN])
    claim.resolved(1, NOT_SENT)
    assert told(memory, mixed) == ([1], [2])
    claim = claimed(memory, request(None, "c"))
    claim.settle_all()
    assert told(memory, request(None, "c")) == ([0], [])
    assert memory.statistics().entries == 3


def test_memory_that_is_off_remembers_nothing(clock: Clock) -> None:
    memory = RetryMemory(RetryMemoryConfig(enabled=False), clock=clock)
    assert memory.claim(request("a"))[1] is None
    assert memory.claim(request("a", "b"))[1] is None
    statistics = memory.statistics()
    assert (statistics.entries, statistics.lookups_total, statistics.max_bytes) == (0, 0, 0)


def test_what_is_only_counted_is_not_remembered(memory: RetryMemory) -> None:
    assert memory.claim(request("a", accept_only=True))[1] is None
    assert memory.statistics().entries == 0


def test_entry_is_remembered_for_half_of_the_minutes_and_forgotten_after_all_of_them(clock: Clock) -> None:
    memory = RetryMemory(RetryMemoryConfig(minutes=10), clock=clock)
    begun = clock.now
    for second in range(0, 300, 10):
        clock.now = begun + second
        claimed(memory, request(f"at {second}")).settle_all()
    clock.now = begun + 599.9
    assert told(memory, request("at 290")) == ([], [])
    assert told(memory, request("at 0")) == ([], [])
    clock.now = begun + 600
    assert told(memory, request("at 0")) == ([0], [])
    assert memory.statistics().evicted_total == 30


def test_rest_of_many_minutes_leaves_nothing(clock: Clock) -> None:
    memory = RetryMemory(RetryMemoryConfig(minutes=10), clock=clock)
    claimed(memory, request("a")).settle_all()
    clock.now += 601
    assert told(memory, request("a")) == ([0], [])
    assert memory.statistics().evicted_total == 1


def test_unknown_that_was_evicted_in_work_is_in_doubt_again(clock: Clock) -> None:
    memory = RetryMemory(RetryMemoryConfig(minutes=1), clock=clock)
    claim = claimed(memory, request("a"))
    clock.now += 61
    claimed(memory, request("b"))
    claim.settle([UNKNOWN])
    assert told(memory, request("a")) == ([], [0])


def test_bytes_bound_what_is_remembered_and_the_newest_half_stays(clock: Clock) -> None:
    config = RetryMemoryConfig(max_bytes=1_000_000)
    memory = RetryMemory(config, clock=clock)
    room = config.max_bytes // REMEMBERED_EVENT_BYTES
    for number in range(3 * room):
        clock.now += 0.001
        claimed(memory, request(f"id {number}")).settle_all()
        assert memory.statistics().bytes <= config.max_bytes
    statistics = memory.statistics()
    assert room / 2 <= statistics.entries <= room
    assert statistics.entries + statistics.evicted_total == 3 * room
    assert room / 2 * 0.001 <= statistics.reach_s <= room * 0.001 + 0.001
    newest = 3 * room - room // 2 + 1
    for number in (newest, 3 * room - 1):
        assert told(memory, request(f"id {number}")) == ([], [])
    assert told(memory, request("id 0")) == ([0], [])


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_bytes_are_those_that_the_interpreter_takes(clock: Clock, batch: int) -> None:
    config = RetryMemoryConfig(max_bytes=2_000_000)
    memory = RetryMemory(config, clock=clock)
    tracemalloc.start()
    try:
        for number in range(0, 21_000, batch):
            claim = claimed(memory, request(*(f"id {number + each}" for each in range(batch))))
            claim.settle_all()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    statistics = memory.statistics()
    assert statistics.evicted_total > 0
    assert statistics.bytes <= config.max_bytes
    # The claim of the last batch, the memory itself, and the names of its attributes.
    assert abs(taken - statistics.bytes) < 0.15 * config.max_bytes
    assert repr(claim)  # alive until here


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2"]), st.sampled_from(list(Status)), st.booleans()),
        max_size=40,
    )
)
def test_event_is_held_back_only_after_exactly_it_was_settled(steps: list[tuple[str, bytes, Status, bool]]) -> None:
    """Against a plain dict: every order of sendings, endings and late resolutions."""
    memory = RetryMemory(RetryMemoryConfig(), clock=Clock())
    settled: set[tuple[str, bytes]] = set()
    doubts: dict[tuple[str, bytes], int] = {}
    late: list[tuple[tuple[str, bytes], Claim, Status]] = []
    for id_, body, status, waits in steps:
        key = id_, body
        claim = claimed(memory, request(id_, body=body))
        assert (claim.deduplicated == 1) == (key in settled)
        if claim.deduplicated:
            continue
        assert (0 in claim.doubtful) == (doubts.get(key, 0) > 0)
        doubts[key] = doubts.get(key, 0) + 1
        late.append((key, claim, status))
        if waits:
            continue
        for each, ended, how in late:
            ended.settle([how])
            if how <= SPOOLED:
                settled.add(each)
            elif how is not UNKNOWN and doubts[each] < 7:
                doubts[each] -= 1
        late.clear()


def test_repr_shows_what_is_there(memory: RetryMemory) -> None:
    claim = claimed(memory, request("a", "b"))
    claim.settle([DELIVERED, UNKNOWN])
    assert repr(claimed(memory, request("a", "b"))) == "<Claim on 1 events, 1 deduplicated, 1 in doubt>"
    assert repr(memory) == "<RetryMemory 2 + 0 entries, 1 hits of 4>"
