"""Every error code of the protocol, answered to a Produce request, against the strict fake cluster on virtual time.

What is expected is written down here as the specification has it, code by code, and not taken from the client's own
table. The log is looked at each time: it never contradicts an outcome.
"""

import enum
import math

import pytest
import trio
from kio.schema.errors import ErrorCode

from kafka_client import Delivered, NotSent, ProducerObserver, Unknown
from kafka_client.testing.messages import Api

#: Tried again with the same bytes.
RETRIED = frozenset({3, 5, 6, 7, 8, 9, 13, 19, 20, 51, 55, 56, 72, 74, 75, 83, 89, 100, 103})
#: The same, on a connection that has asked for the versions again.
RENEGOTIATED = 35
#: Tried again once, encoded or stamped anew within the same range.
CHANGED_ONCE = frozenset({2, 32})
#: Several records go on in smaller batches, a single one is refused.
SPLIT = frozenset({10, 18, 87})
REFUSED = frozenset({48, 120})
NEXT_EPOCH = frozenset({45})
NEW_ID = frozenset({47, 49})
#: A new epoch, unless the broker says nothing of the log's start: then it is only tried again.
FORGOTTEN = 59
DUPLICATE = 46
OPERATOR_TOPIC = frozenset({17, 29, 37, 42, 43, 44, 76})
OPERATOR_PRODUCER = frozenset({21, 31, 33, 34, 53, 58, 90})
OPERATOR = OPERATOR_TOPIC | OPERATOR_PRODUCER
#: The batch may be in the log even if the answer names no offset.
TAINTING = frozenset({-1, 7, 13, 20, 56})
#: Metadata is stale. A connection that ends asks for metadata too: hence 35.
REFRESHING = frozenset({3, 5, 6, 8, 9, 13, 35, 56, 72, 74, 75, 83, 100, 103})
LISTED = (
    RETRIED | CHANGED_ONCE | SPLIT | REFUSED | NEXT_EPOCH | NEW_ID | OPERATOR | {RENEGOTIATED, FORGOTTEN, DUPLICATE}
)

CODES = sorted(int(code) for code in ErrorCode if code != 0)
#: 46 says that the batch is in the log: without an append it would be a broker's lie.
TRUE_BEFORE_APPEND = [code for code in CODES if code != DUPLICATE]
BEYOND_THE_PROTOCOL = 4711


class Sequences(enum.Enum):
    """What the record after it goes out with: (producer ids used so far, epoch, base sequence) for n records."""

    GO_ON = enum.auto()
    REUSED = enum.auto()
    EPOCH_WITH_IT = enum.auto()
    """A new epoch, in which the batch was sent once more."""
    EPOCH_WITHOUT_IT = enum.auto()
    NEW_ID_WITH_IT = enum.auto()
    NEW_ID_WITHOUT_IT = enum.auto()

    def following(self, count: int) -> tuple[int, int, int]:
        return {
            Sequences.GO_ON: (1, 0, 1 + count),
            Sequences.REUSED: (1, 0, 1),
            Sequences.EPOCH_WITH_IT: (1, 1, count),
            Sequences.EPOCH_WITHOUT_IT: (1, 1, 0),
            Sequences.NEW_ID_WITH_IT: (2, 0, count),
            Sequences.NEW_ID_WITHOUT_IT: (2, 0, 0),
        }[self]


def test_specification_here_names_no_code_twice() -> None:
    groups = (RETRIED, CHANGED_ONCE, SPLIT, REFUSED, NEXT_EPOCH, NEW_ID, OPERATOR_TOPIC, OPERATOR_PRODUCER)
    assert sum(map(len, groups)) + 3 == len(LISTED)
    assert [CODES[0], CODES[-1], len(CODES)] == [-1, 133, 134]


class Told(ProducerObserver):
    """Notes operator-level errors."""

    def __init__(self) -> None:
        self.entered: list[tuple[int, str]] = []
        self.left: list[int] = []

    def operator_error(self, error) -> None:
        self.entered.append((error.code, error.scope))

    def operator_error_cleared(self, error) -> None:
        self.left.append(error.code)


class Case:
    """One batch that meets faults, and what can be seen of it afterwards."""

    def __init__(self, scenario, count: int) -> None:
        self.told = Told()
        self.count = count
        self.values = [b"%d" % number for number in range(count)]
        self._scenario = scenario
        self.outcomes: list[object] = []
        self.attempts = 0
        self.took_s = math.nan
        self.metadata_asked = False
        self.following = (0, 0, 0)
        self.in_log = False

    async def run(self, *faults: tuple[str, int | None]) -> "Case":
        """Warm up, let the batch's attempts meet these faults one after the other, and send one record more."""
        async with self._scenario(observer=self.told) as s:
            await s.outcome(b"warm-up")
            await trio.sleep(1)
            for skip, (name, code) in enumerate(faults):
                add = getattr(s.cluster.faults, name)
                add(skip=skip) if code is None else add(code, skip=skip)
            asked = self._metadata_requests(s)
            started = trio.current_time()
            with s.deliver(*self.values) as d:
                await d.wait()
            self.took_s = trio.current_time() - started
            self.outcomes = d.outcomes
            self.attempts = s.cluster.attempts_of(self.values[0])
            await trio.sleep(1)
            self.metadata_asked = self._metadata_requests(s) > asked
            self.in_log = s.cluster.values("events").count(self.values[0]) == 1
            assert isinstance(await s.outcome(b"next"), Delivered)
            last = s.cluster.seen.batches[-1]
            ids = {batch.producer_id for batch in s.cluster.seen.batches}
            self.following = (len(ids), last.epoch, last.base_sequence)
            assert s.cluster.faults.active == []
        return self

    def _metadata_requests(self, s) -> int:
        return sum(request.api is Api.METADATA for request in s.cluster.seen.requests)

    def check(self, outcome: type, attempts: int, sequences: Sequences) -> None:
        assert {type(each) for each in self.outcomes} == {outcome}, self.outcomes
        assert self.attempts == attempts
        assert self.following == sequences.following(self.count)
        if outcome is Delivered:
            assert self.in_log
        if outcome is NotSent:
            assert not self.in_log


def check_standing(case: Case, code: int) -> None:
    """The operator-level state, and how long it took."""
    if code in OPERATOR:
        scope = "topic events" if code in OPERATOR_TOPIC else "producer"
        assert case.told.entered == [(code, scope)]
        assert case.told.left == [code]
        assert 30 <= case.took_s < 32
    else:
        assert case.told.entered == []
        assert case.took_s < 3


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("code", [*TRUE_BEFORE_APPEND, BEYOND_THE_PROTOCOL])
async def test_code_before_the_append(scenario, autojump_clock, code: int, count: int) -> None:
    case = await Case(scenario, count).run(("fail", code))
    if code in RETRIED | CHANGED_ONCE | OPERATOR or code in (RENEGOTIATED, FORGOTTEN) or (code in SPLIT and count > 1):
        case.check(Delivered, 2, Sequences.GO_ON)
    elif code in SPLIT | REFUSED:
        case.check(NotSent, 1, Sequences.REUSED)
        assert case.outcomes[0].reason.startswith(ErrorCode(code).name.upper())
    elif code in NEXT_EPOCH:
        case.check(Delivered, 2, Sequences.EPOCH_WITH_IT)
    elif code in NEW_ID:
        case.check(Delivered, 2, Sequences.NEW_ID_WITH_IT)
    else:
        assert code not in LISTED
        case.check(Unknown, 1, Sequences.EPOCH_WITHOUT_IT)
    assert case.metadata_asked is (code in REFRESHING)
    check_standing(case, code)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("code", [*CODES, BEYOND_THE_PROTOCOL])
async def test_code_after_the_append(scenario, autojump_clock, code: int, count: int) -> None:
    """The answer names an offset: the batch is in the log, whatever the code."""
    case = await Case(scenario, count).run(("append_and_fail", code))
    if code == DUPLICATE:
        case.check(Delivered, 1, Sequences.GO_ON)
        assert {outcome.offset for outcome in case.outcomes} == {-1}
    elif code in RETRIED | CHANGED_ONCE | OPERATOR or code == RENEGOTIATED:
        case.check(Delivered, 2, Sequences.GO_ON)
        assert [outcome.offset for outcome in case.outcomes] == list(range(1, 1 + count))
    elif code in NEW_ID:
        case.check(Unknown, 1, Sequences.NEW_ID_WITHOUT_IT)
    else:
        case.check(Unknown, 1, Sequences.EPOCH_WITHOUT_IT)
    assert case.in_log
    check_standing(case, code)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("lost", ["close_before", "drop_answer"])
@pytest.mark.parametrize("code", [*TRUE_BEFORE_APPEND, BEYOND_THE_PROTOCOL])
async def test_code_for_a_batch_whose_first_attempt_was_lost(
    scenario, autojump_clock, code: int, lost: str, count: int
) -> None:
    """Nobody knows whether the first attempt was appended: nothing may be called NotSent, no sequence used again."""
    case = await Case(scenario, count).run((lost, None), ("fail", code))
    if code in RETRIED | CHANGED_ONCE | OPERATOR or code in (RENEGOTIATED, FORGOTTEN):
        case.check(Delivered, 3, Sequences.GO_ON)
    elif code in NEW_ID:
        case.check(Unknown, 2, Sequences.NEW_ID_WITHOUT_IT)
    else:
        case.check(Unknown, 2, Sequences.EPOCH_WITHOUT_IT)
    assert case.in_log is (lost == "drop_answer" or case.outcomes[0].__class__ is Delivered)
    check_standing(case, code)


@pytest.mark.parametrize("code", sorted(RETRIED | CHANGED_ONCE | OPERATOR | {RENEGOTIATED}))
async def test_code_taints_only_where_the_batch_may_be_in_the_log(scenario, autojump_clock, code: int) -> None:
    """A definite refusal after it shows whether it left something open."""
    case = await Case(scenario, 1).run(("fail", code), ("fail", 10))
    if code in TAINTING:
        case.check(Unknown, 2, Sequences.EPOCH_WITHOUT_IT)
    else:
        case.check(NotSent, 2, Sequences.REUSED)


@pytest.mark.parametrize("code", sorted(CHANGED_ONCE))
async def test_second_answer_of_a_code_that_is_mended_once_is_final(scenario, autojump_clock, code: int) -> None:
    (await Case(scenario, 1).run(("fail", code), ("fail", code))).check(NotSent, 2, Sequences.REUSED)


async def test_second_unsupported_version_is_an_operator_error(scenario, autojump_clock) -> None:
    case = await Case(scenario, 1).run(("fail", 35), ("fail", 35))
    case.check(Delivered, 3, Sequences.GO_ON)
    assert case.told.entered == [(35, "producer")]
    assert case.told.left == [35]
    assert 30 <= case.took_s < 32


async def test_four_unknown_topics_in_a_row_are_no_operator_error_yet(scenario, autojump_clock) -> None:
    """A leader may hear of a new topic later than the broker that metadata came from."""
    case = await Case(scenario, 1).run(*[("fail", 3)] * 4)
    case.check(Delivered, 5, Sequences.GO_ON)
    assert case.told.entered == []
    assert case.took_s < 5


async def test_unknown_topics_for_five_seconds_are_an_operator_error(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        fault = s.cluster.faults.fail(3, times=None)
        waiting = s.deliver(b"A")
        await trio.sleep(4)
        assert s.producer.statistics().operator_errors == ()
        await trio.sleep(6)
        assert [error.code for error in s.producer.statistics().operator_errors] == [3]
        s.cluster.faults.forget(fault)
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert 30 < trio.current_time() < 41
        assert s.producer.statistics().operator_errors == ()


async def test_unknown_topics_that_others_interrupt_are_no_operator_error(scenario, autojump_clock) -> None:
    case = await Case(scenario, 1).run(*[("fail", 3)] * 3, ("fail", 6), *[("fail", 3)] * 3)
    case.check(Delivered, 8, Sequences.GO_ON)
    assert case.told.entered == []
