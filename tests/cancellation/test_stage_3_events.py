"""Stage 3: bytes become events. Synchronous, with a checkpoint every few hundred events; nothing is enqueued yet."""

import json

import trio

from collector.ingest.work import EVENTS_PER_STEP

EVENTS = 4 * EVENTS_PER_STEP
BATCH = json.dumps({"writeKey": "k", "batch": [{"type": "track", "userId": "u", "event": "E"}] * EVENTS}).encode()


async def test_cancelled_between_two_steps_enqueues_nothing(
    start, warm, give_way_until, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    call = start(BATCH, path="/v1/batch")
    await give_way_until(lambda: collector_app.ledger.in_work)
    call.cancel()
    await call.ended.wait()
    assert call.status == 0
    assert collector_app.ledger.refused_total == EVENTS
    await assert_nothing_left(connections=2)
    assert len(kafka_broker.records("events")) == 1


async def test_neighbours_get_their_turn_between_two_steps(
    start, warm, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    call = start(BATCH, path="/v1/batch")
    turns = 0
    while not call.ended.is_set():  # turns are what is counted
        await trio.lowlevel.checkpoint()
        turns += 1
    assert (call.status, call.ended_at) == (200, 0.0)
    assert turns >= EVENTS / EVENTS_PER_STEP
    await assert_nothing_left(connections=2)
