"""Generators of programs, by chance that is steered: what is rare and what depends on other things comes more often.

Owns: the weights. Refuses to know: what a step does (`play`).
"""

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from .program import (
    Answer,
    Broker,
    Deliver,
    Disturb,
    Limit,
    Move,
    Program,
    Refuse,
    Replicas,
    Rest,
    Setup,
    Topic,
    Withdraw,
)

__all__ = ["AFTER_APPEND", "BEFORE_APPEND", "programs"]

#: Answers before an append that a real broker gives, and answers after one that leave the outcome open.
BEFORE_APPEND = (
    *(5, 2, 3, 6, 8, 9, 10, 17, 18, 19, 29, 31, 32, 35, 37, 42, 43, 44, 45, 47, 48, 49, 51, 53, 55, 56, 58),
    *(59, 72, 74, 75, 76, 83, 87, 89, 90, 100, 103, 120, -1, 1234),
)
AFTER_APPEND = (7, 3, 6, 13, 20, 56, -1, 1234, 46)

_SHORT = (0.0, 0.0, 0.001, 0.01, 0.05, 0.2)
_TIMES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.3, 1.0, 3.0)
_LONG = (0.1, 0.5, 2.0, 5.0, 20.0)
_then = st.sampled_from((*_SHORT, *_SHORT, 0.5, 2.0))
_soon = st.sampled_from((0.0, 0.0, 0.0, 0.01, 0.2))
_small = st.integers(0, 3)
_times = st.sampled_from((1, 1, 1, 2, 3, 6))
_skip = st.sampled_from((0, 0, 0, 1, 2))
_maybe = st.sampled_from((None, None, None, 0, 1, 2))


def _tuples(of: Any, most: int = 3) -> Any:
    return st.lists(of, min_size=1, max_size=most).map(tuple)


_deliver = st.builds(
    Deliver,
    then_s=_then,
    count=st.sampled_from((1, 1, 1, 2, 3, 5, 12, 12, 12, 40, 40, 200)),
    topics=_tuples(st.sampled_from((0, 0, 0, 1)), 2),
    routes=st.sampled_from(((0,), (0,), ("k0",), ("sticky",)))
    | _tuples(st.sampled_from((0, "k0", "k1", "sticky", 1, 2, 5))),
    sizes=_tuples(st.sampled_from((1, 1, 10, 50, 100, 200, 200, 700, 700, 3000, 11_000)), 2),
    stamps=_tuples(st.sampled_from((None, None, 0, 1000, 5_000_000)), 2),
    wait_s=st.sampled_from((math.inf, math.inf, 0.0, 0.001, 0.01, 0.05, 0.3, 2.0, 10.0)),
    again_s=st.sampled_from((0.0, 0.0, 0.01, 1.0)),
    leave_on=st.sampled_from(("", "", "", "sealed", "answer", "answered")),
    withdraw=st.just(()) | st.lists(st.integers(0, 14), max_size=4).map(tuple),
    withdraw_s=st.sampled_from(_TIMES),
    resolve_s=st.sampled_from((-1.0, -1.0, 0.0, 0.1, 5.0)),
    resend=st.sampled_from(("", "", "after", "inside", "others")),
    by=st.sampled_from(("delivery",) * 8 + ("send", "send_many")),
)
_answer = st.builds(
    Answer,
    then_s=_soon,
    # Those whose effect depends on what else is in the batch more often than the rest.
    code=st.sampled_from((*BEFORE_APPEND, *(10, 32, 32, 32, 87, 87, 87, 87))),
    topic=st.sampled_from((0, 0, 0, 1)),
    partition=_maybe,
    times=_times,
    skip=_skip,
    base_offset=st.sampled_from((None, None, None, 0)),
    hint=st.sampled_from(("", "", "true", "old")),
    named=st.just(()) | st.lists(st.integers(0, 10), max_size=3).map(tuple),
    log_start=st.booleans(),
)
_appended = st.builds(
    Answer,
    then_s=_soon,
    code=st.sampled_from(AFTER_APPEND),
    append=st.just(True),
    topic=st.sampled_from((0, 0, 0, 1)),
    partition=_maybe,
    times=_times,
    skip=_skip,
    hint=st.sampled_from(("", "", "true", "old")),
)
_disturb = st.builds(
    Disturb,
    then_s=_then,
    how=st.sampled_from(
        (
            *("drop_answer", "reset_answer", "close_before", "delay", "stall", "stall_unread", "throttle", "dribble"),
            *("truncate", "tags", "omit", "repeat", "close", "reset", "garbage", "correlation"),
        )
    ),
    amount=st.sampled_from((0.01, 0.05, 0.3, 1.5)),
    times=_times,
    skip=_skip,
    partition=_maybe,
    for_s=st.sampled_from(_LONG),
    where=st.sampled_from(("network", "broker", "replicas")),
)
_broker = st.builds(
    Broker,
    then_s=_then,
    how=st.sampled_from(
        ("stop", "stop", "stop_unnoticed", "pause", "refuse", "black_hole", "freeze", "freeze", "join", "leave")
    ),
    broker=st.integers(0, 2),
    for_s=st.sampled_from(_LONG),
    amount=st.sampled_from((0, 0, 50, 150, 1000)),
)
_move = st.builds(
    Move,
    then_s=_then,
    topic=st.integers(0, 1),
    partition=_small,
    leader=st.integers(0, 2),
    nobody_s=st.sampled_from((0.0, 0.0, 0.2, 3.0)),
    stale_s=st.sampled_from((0.0, 0.0, 0.3, 3.0)),
)
_topic = st.builds(
    Topic,
    then_s=_then,
    how=st.sampled_from(("grow", "recreate", "forget", "hide", "refuse", "flap")),
    topic=st.integers(0, 1),
    partitions=st.integers(1, 3),
    for_s=st.sampled_from((0.0, 0.3, 2.0, 8.0)),
)
_replicas = st.builds(
    Replicas,
    then_s=_then,
    how=st.sampled_from(("hold", "hold", "shrink", "lose", "lose", "expire")),
    topic=st.sampled_from((0, 0, 0, 1)),
    partition=_small,
    leader=st.integers(0, 2),
    for_s=st.sampled_from((0.01, *_LONG)),
)
_refuse = st.builds(
    Refuse,
    then_s=_then,
    api=st.sampled_from(("METADATA", "INIT_PRODUCER_ID", "API_VERSIONS")),
    how=st.sampled_from(("fail", "drop_answer", "close_before", "truncate", "delay", "no_brokers", "garbage")),
    code=st.sampled_from((5, 3, 7, 14, 15, 16, 17, 29, 31, 47, 51, 53, 129, -1)),
    times=_times,
)
_limit = st.builds(
    Limit, then_s=_then, size_bytes=st.sampled_from((150, 400, 2000, 12_000)), for_s=st.sampled_from(_LONG)
)

#: Generators by what they disturb; a program takes some of them only, so that single causes are seen alone.
FAMILIES: dict[str, Any] = {
    "answers": _answer,
    "appended": _appended,
    "connections": _disturb,
    "brokers": _broker,
    "leaders": _move,
    "replicas": _replicas,
    "topics": _topic,
    "control": _refuse,
    "limits": _limit,
}

_setup = st.builds(
    Setup,
    seed=st.integers(0, 2**16),
    brokers=st.sampled_from((1, 2, 3)),
    partitions=st.sampled_from(((1,), (1,), (2,), (1, 3), (3, 1))),
    timeouts=st.sampled_from(
        (
            (10.0, 30.0, 120.0, math.inf),
            (10.0, 30.0, 120.0, 120.0),
            (1.0, 3.0, 4.0, 2.0),
            (1.0, 3.0, 4.0, math.inf),
            (0.2, 0.5, 1.0, 0.3),
            (1.0, 3.0, 40.0, 2.0),
        )
    ),
    linger_s=st.sampled_from((0.002, 0.0, 0.05)),
    batch=st.sampled_from((300, 300, 300, 1500, 1500, 20_000)),
    record=st.sampled_from((10_000, 20_000, 2000)),
    request=st.sampled_from((100_000, 21_000)),
    queue=st.sampled_from((10**6, 10**6, 15_000, 3000)),
    waiting=st.sampled_from((10**6, 10**6, 3000)),
    in_flight=st.sampled_from((10**6, 10**6, 2000, 300)),
    in_flight_per_partition=st.sampled_from((10**6, 10**6, 1500)),
    pipelined=st.sampled_from((5, 5, 5, 5, 5, 2, 1)),
    compression=st.sampled_from(("none", "none", "zstd", "gzip")),
    first_epoch=st.sampled_from((0, 0, 0, 32766, 32767)),
    first_sequence=st.sampled_from((0, 0, 0, 2**31 - 1, 2**31 - 3, 2**31 - 30)),
    max_age_s=st.sampled_from((60.0, 60.0, 1.0)),
    versions=st.sampled_from(("4.1", "4.1", "4.1", "names")),
)


def _rare(codes: Sequence[int]) -> Any:
    """To whatever comes next, so that the answer is not lost."""
    return st.builds(
        Answer,
        code=st.sampled_from(codes),
        times=st.sampled_from((1, 1, 2, 6)),
        skip=_skip,
        named=st.sampled_from(((), (0,), (1,))),
    )


@st.composite
def programs(draw: st.DrawFn, *, longest: int = 100, rare: Sequence[int] = ()) -> Program:
    """Any program. Its length is drawn apart, from 0 on, so that long ones are usual and shrinking can shorten them.

    Args:
        rare: Codes out of `BEFORE_APPEND` to answer with in any program.
    """
    setup = draw(_setup)
    families = draw(st.lists(st.sampled_from(sorted(FAMILIES)), max_size=4, unique=True))
    step = st.one_of(
        st.builds(Rest, then_s=st.sampled_from(_TIMES)),
        _deliver,
        _deliver,
        _deliver,
        st.builds(Withdraw, then_s=_then, delivery=st.integers(0, 30)),
        *(FAMILIES[name] for name in families),
        *([_rare(rare)] if rare else []),
    )
    shortest = draw(st.sampled_from([length for length in (0, 10, 25, 50, 80) if length <= longest]))
    drawn = draw(st.lists(step, min_size=shortest, max_size=longest))
    steps = [each for each in drawn if each != Rest()]
    ending = draw(st.sampled_from(("settle", "settle", "settle", "close", "cancel", "raise")))
    grace_s = draw(st.sampled_from((1.0, 0.0, 0.05, 10.0)))
    return Program(setup, tuple(steps), ending, grace_s)
