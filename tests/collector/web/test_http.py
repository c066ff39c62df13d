"""One HTTP request, stage by stage, on virtual time against the strict fake cluster."""

import gzip
import random

import pytest
import trio

from collector.config import AppKeys, KeysConfig
from collector.ingest.nursery import EXTENSION, RearmedNursery
from collector.lifecycle import Phase

#: Kafka's and the disk's share of the four seconds.
WORK_S = 3.8


async def test_event_is_answered_200_when_the_topic_has_it(web, autojump_clock) -> None:
    body = b'{"app_id":"a",  "identity":"u","event":"e","properties":{"n":123456789012345678901234567890,"n":1}}'
    answer = await web.request("POST", "/api/track", body)
    assert (answer.status, answer.body) == (200, b"{}")
    assert body in web.cluster.values("events")[0]
    assert web.values()[0]["app"] == "a"
    assert web.books.delivered_total == 1
    web.assert_idle()


async def test_batch_with_good_and_bad_is_answered_200_and_the_bad_go_to_the_bad_topic(web, autojump_clock) -> None:
    events = [{"identity": "u", "event": "good"}, {"identity": "u", "event": 7}, {"identity": "v", "event": "good"}]
    answer = await web.request("POST", "/api/track", {"app_id": "a", "events": events})
    assert answer.status == 200
    assert answer.headers["x-collector-outcome"] == "delivered=2, spooled=0, rejected=1, not_sent=0, unknown=0"
    assert len(web.values()) == 2
    assert [bad["position"] for bad in web.values("events-bad")] == [1]
    assert (web.books.delivered_total, web.books.rejected_total, web.books.bad_written_total) == (2, 1, 1)
    web.assert_idle()


async def test_batch_of_bad_events_is_answered_400(web, autojump_clock) -> None:
    answer = await web.request("POST", "/api/track", {"app_id": "a", "events": [{"identity": "u", "event": 7}] * 2})
    assert answer.status == 400
    assert web.books.rejected_total == 2
    web.assert_idle()


async def test_bad_topic_away_good_events_are_not_held_up(open_web, autojump_clock) -> None:
    async with open_web(kafka={"bad_topic": "nobody-made-this"}) as web:
        await web.track()
        started = trio.current_time()
        events = [{"identity": "u", "event": "good"}, {"identity": "u", "event": 7}]
        answer = await web.request("POST", "/api/track", {"app_id": "a", "events": events})
        assert answer.status == 200
        assert trio.current_time() - started == pytest.approx(0.25, abs=0.05)
        assert (web.books.bad_written_total, web.books.bad_dropped_total) == (0, 1)
        web.assert_idle()


async def test_bad_events_of_one_key_are_rate_limited(open_web, autojump_clock) -> None:
    async with open_web(limits={"bad_events_per_s": 1.0}) as web:
        await web.request("POST", "/api/track", {"app_id": "a", "events": [{"event": 7}] * 25})
        assert (web.books.bad_written_total, web.books.bad_dropped_total) == (10, 15)
        await trio.sleep(3)
        await web.request("POST", "/api/track", {"app_id": "a", "events": [{"event": 7}] * 25})
        await web.request("POST", "/api/track", {"app_id": "b", "events": [{"event": 7}] * 5})
        assert web.books.bad_written_total == 10 + 3 + 5


async def test_broker_silent_from_the_start_503_not_sent_at_the_deadline_exactly(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    started = trio.current_time()
    answer = await web.track_many(3)
    assert trio.current_time() - started == pytest.approx(WORK_S, abs=1e-6)
    assert answer.status == 503
    line = "delivered=0, spooled=0, rejected=0, not_sent=3, unknown=0"
    assert answer.headers["x-collector-outcome"] == line
    assert answer.body.decode().rstrip().endswith(line)
    assert "x-collector-unknown" not in answer.headers
    assert 4 <= int(answer.headers["retry-after"]) <= 8
    assert web.books.refused_total == 3
    web.assert_idle()
    web.cluster.resume_broker(1)
    await trio.sleep(5)
    assert web.values() == []


async def test_broker_silent_in_flight_503_unknown_with_positions_and_resolved_late(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(10.0)
    answer = await web.request(
        "POST",
        "/api/track",
        {"app_id": "a", "events": [{"identity": "u", "event": str(n)} for n in range(4)] + [{"event": 5}]},
    )
    assert answer.status == 503
    assert answer.headers["x-collector-outcome"] == "delivered=0, spooled=0, rejected=1, not_sent=0, unknown=4"
    assert answer.headers["x-collector-unknown"] == "0-3"
    assert (web.books.unknown_total, web.books.unresolved) == (4, 4)
    await trio.sleep(10)
    assert (web.books.late_delivered_total, web.books.unresolved, web.books.unknown_total) == (4, 0, 4)
    assert len(web.values()) == 5
    web.assert_idle()


async def test_shorter_timeout_of_the_client_shrinks_all_shares(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    started = trio.current_time()
    answer = await web.track(x_collector_timeout_ms="50")
    assert trio.current_time() - started == pytest.approx(0.050 * WORK_S / 4.0, abs=1e-6)
    assert answer.status == 503


async def test_longer_timeout_of_the_client_changes_nothing(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    started = trio.current_time()
    await web.track(x_collector_timeout_ms="60000")
    assert trio.current_time() - started == pytest.approx(WORK_S, abs=1e-6)


@pytest.mark.parametrize("value", ["0", "-5", "soon", "", "1e3", "99999999999"])
async def test_timeout_that_is_no_number_of_milliseconds_is_400(web, autojump_clock, value: str) -> None:
    answer = await web.track(x_collector_timeout_ms=value)
    assert answer.status == 400
    assert web.books.unparsed_requests_total == 1
    web.assert_idle()


async def test_lag_of_the_moment_is_taken_off_the_deadline(web, autojump_clock) -> None:
    web.monitor.told_lag_s = 0.2
    web.cluster.pause_broker(1)
    started = trio.current_time()
    await web.track()
    assert trio.current_time() - started == pytest.approx(WORK_S - 0.2, abs=1e-6)


async def test_two_thousand_deadlines_of_50_ms_against_a_broker_that_takes_500(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(0.5, times=None)
    started = trio.current_time()
    ends: list[float] = []
    statuses: list[int] = []

    async def one(number: int) -> None:
        answer = await web.track(f"e{number}", f"u{number}", x_collector_timeout_ms="50")
        ends.append(trio.current_time() - started)
        statuses.append(answer.status)

    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(one, number)
    assert set(statuses) == {503}
    assert ends == [pytest.approx(0.0475, abs=1e-6)] * 2000
    books = web.books
    assert (books.refused_total + books.unknown_total, books.in_work, books.difference) == (2000, 0, 0)
    assert web.producer.statistics().queue_bytes == 0
    attempts = web.producer.statistics().attempts_total
    await trio.sleep(0.6)
    assert web.producer.statistics().in_flight_bytes == 0
    assert web.producer.statistics().attempts_total == attempts
    assert len(web.values()) == 1 + books.unknown_total
    web.assert_idle()


async def test_record_that_kafka_refuses_for_good_is_400_and_goes_to_the_bad_topic(web, autojump_clock) -> None:
    web.cluster.faults.fail(10, topic="events")  # MESSAGE_TOO_LARGE
    answer = await web.track()
    assert answer.status == 400
    assert web.books.rejected_total == 1
    assert web.values("events-bad")[0]["position"] == 0
    web.assert_idle()


async def test_client_that_leaves_after_its_body_is_no_timeout(web, autojump_clock) -> None:
    messages = [
        {"type": "http.request", "body": b'{"app_id":"a","identity":"u","event":"e"}', "more_body": False},
        {"type": "http.disconnect"},
    ]
    await web.request("POST", "/api/track", messages=messages)
    assert len(web.values()) == 1
    web.assert_idle()


async def test_client_that_leaves_within_its_body_is_not_answered_and_nothing_is_left(web, autojump_clock) -> None:
    messages = [{"type": "http.request", "body": b'{"app_id"', "more_body": True}, {"type": "http.disconnect"}]
    answer = await web.request("POST", "/api/track", messages=messages, headers={"content-length": "5000"})
    assert answer.status == 0
    assert (web.books.unparsed_requests_total, web.books.unparsed_bytes_total) == (1, 9)
    web.assert_idle()


async def test_body_that_never_ends_is_400_and_the_connection_is_closed(web, autojump_clock) -> None:
    started = trio.current_time()
    answer = await web.request(
        "POST", "/v1/track", messages=[{"type": "http.request", "body": b"{", "more_body": True}]
    )
    assert trio.current_time() - started == pytest.approx(30.0)
    assert (answer.status, answer.json()["code"], answer.headers["connection"]) == (400, "incomplete_body", "close")
    web.assert_idle()


async def test_broken_json_is_400_in_the_dialects_words_and_counted_unparsed(web, autojump_clock) -> None:
    answer = await web.request("POST", "/v1/track", b'{"a":')
    assert (answer.status, answer.json()["code"]) == (400, "invalid_json")
    assert web.books.unparsed_bytes_total == 5
    assert "connection" not in answer.headers
    web.assert_idle()


async def test_unknown_key_is_400(open_web, autojump_clock) -> None:
    keys = KeysConfig(apps={"shop": AppKeys(write_keys=("w",), app_ids=("i",))})
    async with open_web(keys=keys) as web:
        assert (await web.request("POST", "/api/track", {"app_id": "x", "identity": "u", "event": "e"})).status == 400
        assert (await web.request("POST", "/api/track", {"app_id": "i", "identity": "u", "event": "e"})).status == 200
        assert web.values()[0]["app"] == "shop"
        web.assert_idle()


async def test_many_events_are_enqueued_in_order_with_growing_numbers(web, autojump_clock) -> None:
    events = [{"identity": "u", "event": f"e{index}"} for index in range(1000)]
    answer = await web.request("POST", "/api/track", {"app_id": "a", "events": events})
    assert answer.status == 200
    records = web.cluster.records("events")
    numbers = [int(dict(record.headers)["seq"]) for record in records]
    assert numbers == list(range(1, 1001))
    assert len({record.key for record in records}) == 1


async def test_segments_own_metrics_are_counted_and_not_enqueued(web, autojump_clock) -> None:
    answer = await web.request("POST", "/v1/m", {"writeKey": "w", "series": [{"type": "Counter"}]})
    assert answer.status == 200
    assert web.values() == []
    web.assert_idle()


async def test_cancelled_from_outside_the_ledger_still_balances(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    with trio.move_on_after(1):
        await web.track_many(5)
    assert web.books.refused_total == 5
    web.assert_idle()


async def test_cancelled_while_records_are_made_counts_as_not_sent(web, autojump_clock) -> None:
    with trio.CancelScope() as scope:
        scope.cancel(reason="the test")
        await web.request("POST", "/api/track", {"app_id": "a", "events": [{"identity": "u", "event": "e"}] * 300})
    web.assert_idle()


async def test_cancelled_between_two_steps_of_making_records_nothing_is_queued(
    web, autojump_clock, monkeypatch
) -> None:
    with trio.CancelScope() as scope:
        whole = web.services.ingest.encode

        def encode(*arguments):
            scope.cancel(reason="the test")
            return whole(*arguments)

        monkeypatch.setattr(web.services.ingest, "encode", encode)
        await web.track_many(600)
    assert scope.cancelled_caught
    assert (web.books.refused_total, web.books.in_work) == (600, 0)
    await trio.sleep(5)
    assert web.values() == []
    web.assert_idle()


async def test_bug_in_one_request_is_one_503_and_nobody_elses(web, autojump_clock, monkeypatch, capsys) -> None:
    whole = type(web.services.dialects["segment"]).parse

    def broken(self, route, request, keys):
        if b"poison" in request.body:
            raise RuntimeError("a bug")
        return whole(self, route, request, keys)

    monkeypatch.setattr(type(web.services.dialects["segment"]), "parse", broken)
    good = {"writeKey": "w", "userId": "u", "event": "e"}
    answers = []

    async def one(event: dict[str, str]) -> None:
        answers.append((await web.request("POST", "/v1/track", event)).status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, good)
        nursery.start_soon(one, {**good, "event": "poison"})
        nursery.start_soon(one, good)
    assert sorted(answers) == [200, 200, 503]
    assert capsys.readouterr().err.count("a request failed") == 1
    assert web.books.unparsed_requests_total == 1
    web.assert_idle()


async def test_ledger_balances_at_every_moment(web, autojump_clock) -> None:
    rng = random.Random(7)
    web.cluster.faults.delay(0.2, times=None)
    done = trio.Event()

    async def one(number: int) -> None:
        await trio.sleep(rng.random())
        await web.track_many(rng.randint(1, 40), x_collector_timeout_ms=str(rng.choice([20, 150, 400, 4000])))

    async def look() -> None:  # noqa: ASYNC910  # the loop waits
        while not done.is_set():
            assert web.books.difference == 0
            assert web.books.in_work >= 0
            await trio.sleep(0.003)

    async with trio.open_nursery() as watching:
        watching.start_soon(look)
        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(one, number)
        done.set()
    await trio.sleep(2)
    books = web.books
    assert books.received_total == books.delivered_total + books.refused_total + books.unknown_total
    assert books.unresolved == 0
    web.assert_idle()


async def test_leaving_every_answer_closes_its_connection(web, autojump_clock) -> None:
    assert "connection" not in (await web.track()).headers
    web.services.lifecycle.advance(Phase.LEAVING)
    answer = await web.track()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    ready = await web.request("GET", "/readyz")
    assert (ready.status, ready.body, ready.headers["connection"]) == (503, b"draining\n", "close")
    assert (await web.request("GET", "/healthz")).status == 200


async def lane(web, requests: int, events: int = 1, **headers: str) -> list[tuple[int, bool]]:
    """A server as the nursery's docstring describes it: one connection, one nursery for all its requests."""
    answers = []
    carrier: RearmedNursery | None = None
    remaining = requests
    while remaining:
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery)
            sent = []

            async def app(scope, receive, send, sent=sent) -> None:
                async def remember(message) -> None:
                    sent.append(message)
                    await send(message)

                await web.app(scope, receive, remember)

            while remaining:
                sent.clear()
                remaining -= 1
                body = {"app_id": "a", "events": [{"identity": "u", "event": "e"}] * events}
                answer = await web.request(
                    "POST", "/api/track", body, headers, extensions={EXTENSION: carrier}, app=app
                )
                answers.append((answer.status, nursery.cancel_scope.cancel_called))
        if carrier.unfinished is not None:
            unfinished, carrier.unfinished = carrier.unfinished, None
            await unfinished()
            answers.append((sent[0]["status"], True))
    return answers  # noqa: ASYNC910  # the loop waits


async def test_rearmed_nursery_serves_one_request_after_the_other(web, autojump_clock) -> None:
    assert await lane(web, 5) == [(200, False)] * 5
    web.assert_idle()


async def test_rearmed_nursery_out_of_time_is_answered_outside_and_the_next_one_served(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(1.0)
    answers = await lane(web, 3, **{"x-collector-timeout-ms": "100"})
    assert answers[0] == (503, True)
    await trio.sleep(2)
    web.assert_idle()


async def test_rearmed_nursery_deadline_in_the_tick_of_the_acknowledgement_is_answered_once(
    web, autojump_clock
) -> None:
    await web.track()
    share = 0.1 * WORK_S / 4.0
    for offset in (-1e-6, 0.0, 1e-6):
        web.cluster.faults.delay(share + offset)
        answers = await lane(web, 1, **{"x-collector-timeout-ms": "100"})
        assert len(answers) == 1
        await trio.sleep(1)
    books = web.books
    assert books.delivered_total + books.unknown_total == 4
    web.assert_idle()


async def test_gzip_body_is_inflated(web, autojump_clock) -> None:
    body = gzip.compress(b'{"writeKey":"w","userId":"u","event":"e"}')
    headers = {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"}
    assert (await web.request("POST", "/v1/track", body, headers)).status == 200
    assert len(web.values()) == 1
    web.assert_idle()
