"""segment-analytics-python as it is published, against the whole collector: nothing of it is known to the collector."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import trio
from segment.analytics import request as sdk_request
from segment.analytics.client import Client

from collector.devtools.proxy import open_proxy
from kafka_client.testing import StoredRecord
from kafka_client.wire.murmur2 import partition_for_key

from .conftest import WRITE_KEY, Site


@pytest.fixture(autouse=True)
def sdk_leaves_nothing_open() -> Iterator[None]:
    """Its one session, and the connections in it, live as long as its module."""
    logging.getLogger("segment").setLevel(logging.CRITICAL)
    yield
    sdk_request._session.close()


async def with_client(
    site: Site, use: Callable[[Client], object], **options: Any
) -> list[tuple[Exception, list[dict[str, Any]]]]:
    """Run ``use`` with a client in a thread, and have it send all; returns what it gave up on."""
    failures: list[tuple[Exception, list[dict[str, Any]]]] = []

    def give_up(error: Exception, batch: list[dict[str, Any]]) -> None:
        failures.append((error, batch))

    def session() -> None:
        given = {"write_key": WRITE_KEY, "host": site.url, "on_error": give_up, "upload_interval": 0.05, **options}
        client = Client(**given)
        use(client)
        client.shutdown()

    await trio.to_thread.run_sync(session)
    return failures


def values(records: list[StoredRecord]) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in records]


async def test_every_call_arrives_once_under_its_identity(site: Site) -> None:
    def use(client: Client) -> None:
        client.identify("alice", {"plan": "pro"})
        client.track("alice", "Ordered", {"total": 12.5, "text": "größe 😀"})
        client.page("alice", "docs", "Home", {"url": "https://example.com"})
        client.screen("alice", "app", "Start")
        client.group("alice", "acme", {"seats": 5})
        client.alias("anonymous-1", "alice")
        client.track(anonymous_id="visitor-7", event="Seen")

    assert await with_client(site, use) == []
    records = site.cluster.records("events")
    found = values(records)
    assert Counter(value["type"] for value in found) == {
        "identify": 1,
        "track": 2,
        "page": 1,
        "screen": 1,
        "group": 1,
        "alias": 1,
    }
    assert {value["app"] for value in found} == {"shop"}
    assert {value["api"] for value in found} == {"segment"}
    assert Counter(record.key for record in records) == {b"alice": 6, b"visitor-7": 1}
    for partition in range(12):
        for record in site.cluster.log("events", partition):
            assert record.key is not None
            assert partition == partition_for_key(record.key, 12)
    ordered = next(value for value in found if value["body"].get("event") == "Ordered")
    assert ordered["body"]["properties"] == {"total": 12.5, "text": "größe 😀"}
    assert ordered["id"] == ordered["body"]["messageId"]
    assert ordered["user_agent"].startswith("analytics-python/")
    assert ordered["sent_at"] is not None
    assert list(ordered["batch"]) == ["sentAt"]
    # The clocks are the same one: the correction moves the event's time by the way of the request at most.
    assert abs(ordered["flags"]["skew_ms"]) < 1000
    assert ordered["timestamp"][:10] == ordered["received_at"][:10]


@pytest.mark.parametrize("gzip", [False, True])
async def test_1000_events_in_batches_arrive_once_and_in_order(site: Site, gzip: bool) -> None:
    sent: list[str] = []

    def use(client: Client) -> None:
        for number in range(1000):
            _, message = client.track(f"user-{number % 7}", "Counted", {"number": number})
            sent.append(message["messageId"])

    assert await with_client(site, use, gzip=gzip) == []
    found = values(site.cluster.records("events"))
    assert Counter(value["id"] for value in found) == Counter(sent)
    assert len(set(sent)) == 1000
    by_user: dict[str, list[int]] = {}
    for partition in range(12):
        for value in values(site.cluster.log("events", partition)):
            by_user.setdefault(value["body"]["userId"], []).append(value["body"]["properties"]["number"])
    assert len(by_user) == 7
    assert all(numbers == sorted(numbers) for numbers in by_user.values())


async def test_wrong_key_is_dropped_at_once_with_our_words(site: Site) -> None:
    failures = await with_client(site, lambda client: client.track("alice", "x"), write_key="wrong")
    ((error, batch),) = failures
    assert isinstance(error, sdk_request.APIError)
    assert (error.status, error.code) == (400, "invalid_key")
    assert "not known here" in error.message
    assert len(batch) == 1
    assert site.cluster.records("events") == []


async def test_bad_event_is_kept_apart_and_the_rest_of_its_batch_arrives(site: Site) -> None:
    def use(client: Client) -> None:
        client.track("alice", "before")
        client.track("alice", "bad", message_id="m" * 100)
        client.track("alice", "after")

    assert await with_client(site, use, upload_interval=0.5) == []
    found = values(site.cluster.records("events"))
    assert [value["body"]["event"] for value in found] == ["before", "after"]
    (bad,) = values(await site.cluster.wait_records("events-bad", 1))
    assert (bad["code"], bad["position"]) == ("too_long", 1)
    assert "messageId" in bad["reason"]
    assert WRITE_KEY not in json.dumps(bad)


async def test_nan_is_refused_once_and_not_sent_again(site: Site) -> None:
    def use(client: Client) -> None:
        client.track("alice", "x", {"ratio": float("nan")})

    ((error, _),) = await with_client(site, use)
    assert isinstance(error, sdk_request.APIError)
    assert (error.status, error.code) == (400, "invalid_json")
    assert "NaN" in error.message


async def test_batch_whose_answer_was_lost_is_sent_again_and_arrives_once(site: Site) -> None:
    """The connection ends under the first answer; the SDK repeats the batch, and its books say that we knew it."""
    address = site.url.removeprefix("http://")
    async with open_proxy([address]) as proxy:
        link = proxy[address]
        link.cut_after("answers", iter([1, 1_000_000_000]))
        through = replace(site.started, http=f"http://127.0.0.1:{link.port}")

        def use(client: Client) -> None:
            for number in range(100):
                client.track(f"user-{number % 7}", "Counted", {"number": number})

        assert await with_client(Site(through, site.cluster), use, upload_interval=0.5) == []
        assert link.cut_total == 1
    found = values(site.cluster.records("events"))
    assert sorted(value["body"]["properties"]["number"] for value in found) == list(range(100))
    books = site.started.services.ledger.statistics()
    assert (books.delivered_total, books.deduplicated_total) == (100, books.received_total - 100)
    assert books.deduplicated_total > 0


async def test_batch_after_a_503_sends_only_what_is_missing(site: Site) -> None:
    """One partition is away: the others' events are delivered, and the batch that comes back does not repeat them."""
    users = [f"user-{number}" for number in range(20)]
    away = partition_for_key(users[0].encode(), 12)
    missing = sum(partition_for_key(user.encode(), 12) == away for user in users)
    fault = site.cluster.faults.fail(19, topic="events", partition=away, times=None)  # NOT_ENOUGH_REPLICAS

    async def come_back() -> None:
        await trio.sleep(1.5)
        fault.remove()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_back)
        failures = await with_client(site, lambda client: [client.track(user, "Seen") for user in users])
    assert failures == []
    found = values(site.cluster.records("events"))
    assert Counter(value["body"]["userId"] for value in found) == Counter(users)
    books = site.started.services.ledger.statistics()
    assert 0 < missing < len(users)
    assert (books.received_total, books.deduplicated_total) == (2 * len(users), len(users))
    assert (books.unknown_total, books.late_delivered_total) == (missing, missing)


async def test_refused_while_kafka_is_away_is_sent_again_and_arrives_once(site: Site) -> None:
    """The SDK honours Retry-After (4 to 8 s), and what was never sealed cannot be there twice."""
    site.cluster.stop_broker(1, elect=False)

    async def come_back() -> None:
        await trio.sleep(1.5)
        site.cluster.start_broker(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_back)
        failures = await with_client(site, lambda client: client.track("alice", "patient"))
    assert failures == []
    books = site.started.services.ledger.statistics()
    assert books.refused_total == 1
    assert books.delivered_total == 1
    (value,) = values(site.cluster.records("events"))
    assert value["body"]["event"] == "patient"
