"""A batch or message that comes back: what is sent again, and what the client is told."""

import pytest
import trio

from collector.config import KeysConfig, RetryMemoryConfig, SpoolConfig
from kafka_client.testing import StoredRecord
from kafka_client.wire.murmur2 import partition_for_key

from .conftest import Answered, Web
from .test_websocket import connected, settle

#: Two identities whose keys are of different partitions, of twelve.
SLOW, FAST = "u0", "u1"


def batch(*keys: str, identity: str = "u", **others: object) -> dict[str, object]:
    events = [{"identity": identity, "event": "e", "idempotency_key": key, **others} for key in keys]
    return {"app_id": "a", "events": events}


async def post(web: Web, body: object) -> Answered:
    return await web.request("POST", "/api/track", body)


def ids(web: Web) -> list[str]:
    return [value["id"] for value in web.values()]


def marked(records: list[StoredRecord]) -> list[str]:
    """The ids of the records that say that they may be duplicates."""
    found = [dict(record.headers) for record in records]
    return [(headers["message-id"] or b"").decode() for headers in found if "maybe-duplicate" in headers]


async def test_batch_whose_200_was_missed_is_answered_200_and_not_sent_again(web, autojump_clock) -> None:
    first = await post(web, batch("1", "2", "3"))
    second = await post(web, batch("1", "2", "3"))
    assert (first.status, second.status, second.body) == (200, 200, first.body)
    assert sorted(ids(web)) == ["1", "2", "3"]
    assert (web.books.received_total, web.books.delivered_total, web.books.deduplicated_total) == (6, 3, 3)
    web.assert_idle()


async def test_single_event_that_comes_back_is_answered_200_and_not_sent_again(web, autojump_clock) -> None:
    event = {"app_id": "a", "identity": "u", "event": "e", "idempotency_key": "1"}
    answers = [await post(web, event) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert ids(web) == ["1"]
    assert (web.books.delivered_total, web.books.deduplicated_total) == (1, 2)
    web.assert_idle()


async def test_batch_that_grew_sends_what_is_new(web, autojump_clock) -> None:
    await post(web, batch("1", "2"))
    body = batch("1", "3", "2", "4")
    body["events"].append({"identity": "u", "event": 7})
    answer = await post(web, body)
    assert answer.headers["x-collector-outcome"] == "delivered=4, spooled=0, rejected=1, not_sent=0, unknown=0"
    assert sorted(ids(web)) == ["1", "2", "3", "4"]
    assert [bad["position"] for bad in web.values("events-bad")] == [4]
    web.assert_idle()


async def test_events_without_an_id_are_sent_as_often_as_they_come(web, autojump_clock) -> None:
    for _ in range(2):
        await post(web, {"app_id": "a", "events": [{"identity": "u", "event": "e"}] * 2})
    assert len(ids(web)) == 4
    assert web.books.deduplicated_total == 0


async def test_batch_after_a_503_sends_what_was_neither_delivered_nor_may_be(web, autojump_clock) -> None:
    """Unknown first, delivered late: the batch that comes back has nothing left to send."""
    assert partition_for_key(SLOW.encode(), 12) != partition_for_key(FAST.encode(), 12)
    body = batch("slow", identity=SLOW)
    body["events"] += batch("fast", identity=FAST)["events"]
    await post(web, batch("warm", identity=SLOW))
    slow = web.cluster.records("events")[0].partition
    web.cluster.faults.fail(19, topic="events", partition=slow, times=None)  # NOT_ENOUGH_REPLICAS: tried again
    answer = await post(web, body)
    assert answer.status == 503
    assert answer.headers["x-collector-outcome"] == "delivered=1, spooled=0, rejected=0, not_sent=0, unknown=1"
    answer = await post(web, body)
    assert answer.headers["x-collector-outcome"] == "delivered=1, spooled=0, rejected=0, not_sent=1, unknown=0"
    web.cluster.faults.clear()
    await trio.sleep(5)
    answer = await post(web, body)
    assert answer.status == 200
    assert sorted(ids(web)) == ["fast", "slow", "warm"]
    assert marked(web.cluster.records("events")) == []
    assert web.books.deduplicated_total == 1 + 2
    web.assert_idle()


async def test_not_sent_is_sent_again_without_a_mark(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    answer = await post(web, batch("1", "2"))
    assert answer.headers["x-collector-outcome"] == "delivered=0, spooled=0, rejected=0, not_sent=2, unknown=0"
    web.cluster.resume_broker(1)
    await trio.sleep(5)
    assert (await post(web, batch("1", "2"))).status == 200
    assert sorted(ids(web)) == ["1", "2"]
    assert marked(web.cluster.records("events")) == []
    web.assert_idle()


async def test_what_may_be_in_the_topic_is_sent_again_with_a_mark_of_its_own(web, autojump_clock) -> None:
    await post(web, batch("warm"))
    web.cluster.faults.delay(10.0)
    began = trio.current_time()
    answer = await post(web, batch("1"))
    assert answer.headers["x-collector-outcome"] == "delivered=0, spooled=0, rejected=0, not_sent=0, unknown=1"
    await trio.sleep_until(began + 8)
    answer = await post(web, batch("warm", "1", "new"))
    assert answer.status == 200
    assert sorted(ids(web)) == ["1", "1", "new", "warm"]
    assert marked(web.cluster.records("events")) == ["1"]
    assert web.books.deduplicated_total == 1
    web.assert_idle()


async def test_repeat_while_the_first_is_in_work_is_sent_with_a_mark(web, autojump_clock) -> None:
    await post(web, batch("warm"))
    web.cluster.faults.delay(1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post, web, batch("1"))
        await trio.sleep(0.1)
        assert (await post(web, batch("1"))).status == 200
    assert ids(web) == ["warm", "1", "1"]
    assert marked(web.cluster.records("events")) == ["1"]
    assert (await post(web, batch("1"))).status == 200
    assert len(ids(web)) == 3
    web.assert_idle()


async def test_same_id_with_another_body_is_sent_and_counted(web, autojump_clock) -> None:
    await post(web, batch("1", properties={"by": "a stranger"}))
    assert (await post(web, batch("1", properties={"by": "the owner"}))).status == 200
    assert ids(web) == ["1", "1"]
    assert marked(web.cluster.records("events")) == []
    statistics = web.services.ingest.memory.statistics()
    assert (statistics.conflicts_total, statistics.hits_total) == (1, 0)


async def test_same_id_of_another_app_is_another_event(web, autojump_clock) -> None:
    await post(web, batch("1"))
    await post(web, {**batch("1"), "app_id": "b"})
    assert ids(web) == ["1", "1"]
    assert web.services.ingest.memory.statistics().conflicts_total == 0


async def test_memory_switched_off_sends_everything(open_web, autojump_clock) -> None:
    async with open_web(retry_memory=RetryMemoryConfig(enabled=False)) as web:
        await post(web, batch("1", "2"))
        await post(web, batch("1", "2"))
        assert len(ids(web)) == 4
        assert web.books.deduplicated_total == 0


async def test_memory_ends_with_its_minutes(open_web, autojump_clock) -> None:
    async with open_web(retry_memory=RetryMemoryConfig(minutes=1)) as web:
        await post(web, batch("1"))
        await trio.sleep(29)
        await post(web, batch("1"))
        assert ids(web) == ["1"]
        await trio.sleep(31.1)
        await post(web, batch("1"))
        assert ids(web) == ["1", "1"]


async def test_thousand_events_that_come_back_in_steps_are_not_sent_again(web, autojump_clock) -> None:
    body = batch(*map(str, range(1000)))
    await post(web, body)
    answer = await post(web, body)
    assert answer.status == 200
    assert len(ids(web)) == 1000
    assert web.books.deduplicated_total == 1000
    web.assert_idle()


async def test_metric_of_the_hit_rate(web, autojump_clock) -> None:
    await post(web, batch("1"))
    await post(web, batch("1"))
    statistics = web.services.ingest.memory.statistics()
    assert (statistics.entries, statistics.hit_rate) == (1, 0.5)
    assert 0 < statistics.bytes < statistics.max_bytes


@pytest.mark.parametrize("again", [False, True])
async def test_websocket_repeat_of_what_is_settled_is_acknowledged_without_sending(web, autojump_clock, again) -> None:
    async with connected(web) as client:
        await client.track(batch("1", "2"))
        await settle()
    async with connected(web) as client:
        await client.track(batch("1", "2"), again=again)
        await client.track(batch("1", "3"), again=again)
        await settle()
        assert client.upto() == 2
        assert client.named() == {}
    assert sorted(ids(web)) == ["1", "2", "3"]
    # Nothing else is known of "3" than that its client may have sent it before.
    assert marked(web.cluster.records("events")) == (["3"] if again else [])
    assert web.books.deduplicated_total == 3
    web.assert_idle()


async def test_websocket_counts_what_was_settled_before_as_delivered(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track(batch("1"))
        await settle()
        body = batch("1", "2")
        body["events"].append({"identity": "u", "event": 7})
        number = await client.track(body)
        await settle()
        counts = {"delivered": 2, "spooled": 0, "rejected": 1, "not_sent": 0, "unknown": 0}
        assert client.named()[number]["counts"] == counts


async def test_segment_batch_that_comes_back_under_another_sent_at_is_known(open_web, autojump_clock) -> None:
    async with open_web(keys=KeysConfig(open=True)) as web:
        event = {"type": "track", "event": "e", "userId": "u", "messageId": "m-1"}
        body = {"writeKey": "shop", "batch": [event], "sentAt": "2026-01-01T00:00:00Z"}
        await web.request("POST", "/v1/batch", body)
        await web.request("POST", "/v1/batch", {**body, "sentAt": "2026-01-01T00:00:09Z"})
        assert ids(web) == ["m-1"]
        assert web.books.deduplicated_total == 1


async def test_batch_that_is_in_the_spool_is_not_spooled_again(open_web, autojump_clock) -> None:
    async with open_web(spool=SpoolConfig(path=":memory:")) as web:
        await post(web, batch("warm"))
        web.cluster.pause_broker(1)
        first = await post(web, batch("1", "2"))
        assert first.headers["x-collector-outcome"] == "delivered=0, spooled=2, rejected=0, not_sent=0, unknown=0"
        began = trio.current_time()
        second = await post(web, batch("warm", "1", "2", "3"))
        assert second.status == 200
        assert second.headers["x-collector-outcome"] == "delivered=3, spooled=1, rejected=0, not_sent=0, unknown=0"
        assert (await post(web, batch("1", "2"))).status == 200
        assert trio.current_time() - began < 4
        assert (web.books.spooled_total, web.books.deduplicated_total) == (3, 5)
        web.cluster.resume_broker(1)
        await trio.sleep(30)
        assert sorted(ids(web)) == ["1", "2", "3", "warm"]
