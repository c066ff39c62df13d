"""Stage 10: back to idle, whatever happened before: counters, tasks, due times, bytes, live objects by type."""

import gc
from collections import Counter

import trio


def live_objects() -> Counter[str]:
    """Live objects of ours and Trio's by type."""
    gc.collect()
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()))
    return Counter(
        name
        for name in names
        if name.startswith(("collector.", "kafka_client.", "trio.")) and not name.startswith("kafka_client.testing.")
    )


async def round_of_trouble(start, make_event, kafka_broker) -> None:
    """A hundred requests and more, ended at every stage."""
    answered = [start(make_event("answered")) for _ in range(20)]
    for call in answered:
        await call.ended.wait()
    slow_bodies = [start(None, content_length="100") for _ in range(10)]
    await trio.testing.wait_all_tasks_blocked()
    for number, call in enumerate(slow_bodies):
        call.cancel() if number % 2 else call.hang_up()
    kafka_broker.faults.delay(10.0, times=None)
    detached = [start(make_event("detached"), timeout_ms=100) for _ in range(30)]
    await trio.sleep(0.05)
    queued = [start(make_event("queued"), timeout_ms=100) for _ in range(30)]
    cancelled = [start(make_event("cancelled")) for _ in range(30)]
    await trio.testing.wait_all_tasks_blocked()
    for call in cancelled:
        call.cancel()
    for call in (*slow_bodies, *detached, *queued, *cancelled):
        await call.ended.wait()
    kafka_broker.faults.clear()
    kafka_broker.faults.drop_answer()
    retried = start(make_event("retried"))
    await retried.ended.wait()
    refused = start(b'{"writeKey": NaN}')
    await refused.ended.wait()
    await trio.sleep(60)  # everything in flight is answered, every pause is over


async def test_ten_rounds_leave_what_the_first_left(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    await trio.sleep(200)  # the monitor's three minutes of history are full
    seen: list[Counter[str]] = []
    for _ in range(10):
        await round_of_trouble(start, make_event, kafka_broker)
        await assert_nothing_left()
        books = collector_app.ledger
        assert (books.difference, books.unresolved) == (0, 0)
        seen.append(live_objects())
    grown = {kind: (seen[1][kind], seen[-1][kind]) for kind in seen[-1] if seen[-1][kind] > seen[1][kind]}
    assert grown == {}
