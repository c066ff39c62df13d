"""Stage 2: the body is read, and inflated. Incomplete: its bytes are released, nothing is enqueued."""

import gzip

import trio

from collector.config import Config


async def test_cancelled_between_two_pieces_releases_the_bytes(
    start, collector_app, assert_nothing_left, autojump_clock
) -> None:
    call = start(None, content_length="5000")
    call.feed(b"x" * 1000, more=True)
    await trio.testing.wait_all_tasks_blocked()
    assert collector_app.services.admission.statistics().in_work_bytes == 5000
    call.cancel()
    await call.ended.wait()
    assert call.status == 0
    await assert_nothing_left()


async def test_body_that_does_not_come_is_answered_at_its_timeout(
    start, collector_app, assert_nothing_left, autojump_clock
) -> None:
    call = start(None, content_length="5000")
    call.feed(b"x" * 1000, more=True)
    await call.ended.wait()
    assert (call.status, call.ended_at) == (400, Config().http.body_timeout_s)
    assert call.headers["connection"] == "close"
    assert collector_app.ledger.unparsed_bytes_total == 1000
    await assert_nothing_left()


async def test_client_that_hangs_up_in_the_middle_is_not_answered(
    start, collector_app, assert_nothing_left, autojump_clock
) -> None:
    call = start(None, content_length="5000")
    call.feed(b"x" * 1000, more=True)
    call.hang_up()
    await call.ended.wait()
    assert (call.status, call.ended_at) == (0, 0.0)
    assert collector_app.ledger.unparsed_requests_total == 1
    await assert_nothing_left()


async def test_chunked_body_grows_its_reservation_and_gives_it_back(
    start, collector_app, assert_nothing_left, autojump_clock
) -> None:
    call = start(None)
    for size in (1000, 2000, 3000):
        call.feed(b"x" * 1000, more=True)
        await trio.testing.wait_all_tasks_blocked()
        assert collector_app.services.admission.statistics().in_work_bytes == size
    call.cancel()
    await call.ended.wait()
    await assert_nothing_left()


async def test_cancelled_while_inflating_releases_the_bytes(
    start, give_way_until, collector_app, assert_nothing_left, autojump_clock
) -> None:
    call = start(None, content_encoding="gzip")
    call.feed(gzip.compress(b" " * 3_000_000), more=True)
    await give_way_until(lambda: collector_app.services.admission.statistics().in_work_bytes >= 300_000)
    call.cancel()
    await call.ended.wait()
    assert call.status == 0
    await assert_nothing_left()
