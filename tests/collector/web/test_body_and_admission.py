"""Bodies: how they are coded, how large they may be, and who is turned away."""

import gzip
import zlib

import pytest
import trio

from collector.config import AppKeys, KeysConfig
from collector.web.admission import Admission, Shed
from collector.web.inflate import Inflater, inflater_for

GOOD = b'{"writeKey":"w","userId":"u","event":"e"}'


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


CODINGS = {
    "gzip": ({"content-encoding": "gzip"}, gzip.compress(GOOD)),
    "x-gzip": ({"content-encoding": "X-GZip"}, gzip.compress(GOOD)),
    "gzip without its header": ({}, gzip.compress(GOOD)),
    "gzip in two members": ({"content-encoding": "gzip"}, gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:])),
    "deflate": ({"content-encoding": "deflate"}, zlib.compress(GOOD)),
    "raw deflate": ({"content-encoding": "deflate"}, raw_deflate(GOOD)),
    "identity": ({"content-encoding": "identity"}, GOOD),
    "an empty header": ({"content-encoding": ""}, GOOD),
}


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("piece", [1, 7, 100_000])
async def test_body_in_this_coding_is_understood(web, autojump_clock, name: str, piece: int) -> None:
    headers, body = CODINGS[name]
    if name == "gzip without its header" and piece == 1:
        piece = 2  # the magic must come in one piece; a server hands over more than a byte
    chunks = [body[start : start + piece] for start in range(0, len(body), piece)]
    answer = await web.request("POST", "/v1/track", headers=headers, chunks=chunks)
    assert answer.status == 200, answer.body
    assert GOOD in web.cluster.values("events")[0]
    web.assert_idle()


BROKEN = {
    "cut gzip": ({"content-encoding": "gzip"}, gzip.compress(GOOD)[:-12], "invalid_encoding"),
    "no gzip": ({"content-encoding": "gzip"}, GOOD, "invalid_encoding"),
    "wrong checksum": ({"content-encoding": "gzip"}, gzip.compress(GOOD)[:-8] + bytes(8), "invalid_encoding"),
    "no deflate": ({"content-encoding": "deflate"}, b"\xff" * 40, "invalid_encoding"),
    "after the deflate": ({"content-encoding": "deflate"}, zlib.compress(GOOD) + b"xx", "invalid_encoding"),
    "brotli": ({"content-encoding": "br"}, GOOD, "unsupported_encoding"),
    "two codings": ({"content-encoding": "gzip, gzip"}, gzip.compress(gzip.compress(GOOD)), "unsupported_encoding"),
    "many members": ({"content-encoding": "gzip"}, gzip.compress(b"") * 50, "invalid_encoding"),
    "a bomb": ({"content-encoding": "gzip"}, gzip.compress(bytes(64 * 1024 * 1024)), "too_large"),
    "a deflate bomb": ({"content-encoding": "deflate"}, zlib.compress(bytes(64 * 1024 * 1024)), "too_large"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_body_in_a_broken_coding_is_400_and_nothing_is_left(web, autojump_clock, name: str) -> None:
    headers, body, code = BROKEN[name]
    answer = await web.request("POST", "/v1/track", body, headers)
    assert (answer.status, answer.json()["code"]) == (400, code)
    assert "connection" not in answer.headers
    assert web.books.unparsed_bytes_total == len(body)
    assert web.services.admission.statistics().highest_in_work_bytes <= 4 * 1024 * 1024 + len(body)
    web.assert_idle()


def test_inflater_never_yields_more_than_a_step() -> None:
    bomb = gzip.compress(bytes(8 * 1024 * 1024))
    assert max(len(piece) for piece in Inflater("gzip").feed(bomb)) <= 64 * 1024


def test_inflater_shows_its_state() -> None:
    inflater = inflater_for("gzip")
    assert inflater is not None
    list(inflater.feed(gzip.compress(GOOD)))
    assert repr(inflater) == "<Inflater gzip, 1 members>"


async def test_content_length_above_the_limit_is_400_with_keep_alive_after_discarding(open_web, autojump_clock) -> None:
    async with open_web(limits={"body_bytes": 1000}) as web:
        answer = await web.request("POST", "/v1/track", bytes(5000))
        assert (answer.status, answer.json()["code"]) == (400, "too_large")
        assert "connection" not in answer.headers
        assert web.books.unparsed_bytes_total == 5000
        web.assert_idle()


async def test_body_above_what_is_discarded_closes_the_connection(open_web, autojump_clock) -> None:
    async with open_web(limits={"body_bytes": 1000, "discard_bytes": 10_000}) as web:
        answer = await web.request("POST", "/v1/track", chunks=[bytes(1000)] * 40)
        assert (answer.status, answer.json()["code"], answer.headers["connection"]) == (400, "too_large", "close")
        assert web.books.unparsed_bytes_total < 15_000


async def test_body_that_dribbles_is_discarded_for_one_second(open_web, autojump_clock) -> None:
    async with open_web(limits={"body_bytes": 1000}) as web:
        started = trio.current_time()
        answer = await web.request(
            "POST",
            "/v1/track",
            messages=[{"type": "http.request", "body": bytes(2000), "more_body": True}],
            headers={"content-length": "2000000"},
        )
        assert trio.current_time() - started == pytest.approx(1.0)
        assert (answer.status, answer.headers["connection"]) == (400, "close")


async def test_content_length_is_reserved_before_the_body_comes(open_web, autojump_clock, until) -> None:
    async with open_web(limits={"in_work_bytes": 10_000}) as web:
        async with trio.open_nursery() as nursery:
            slow = [{"type": "http.request", "body": b"{", "more_body": True}]

            async def wait_for_ever() -> None:
                await web.request("POST", "/v1/track", messages=slow, headers={"content-length": "9000"})

            nursery.start_soon(wait_for_ever)
            await until(lambda: web.services.admission.statistics().in_work_bytes == 9000)
            answer = await web.request("POST", "/v1/track", bytes(2000))
            assert answer.status == 503
            assert answer.headers["x-collector-outcome"] == (
                "delivered=0, spooled=0, rejected=0, not_sent=0, unknown=0"
            )
            assert 4 <= int(answer.headers["retry-after"]) <= 8
            assert "connection" not in answer.headers
            assert web.monitor.sheds.counts == {"bytes": 1}
            assert (await web.request("POST", "/v1/track", GOOD)).status == 200
            nursery.cancel_scope.cancel(reason="the test is over")
        web.assert_idle()


async def test_body_without_a_length_is_admitted_as_it_grows(open_web, autojump_clock) -> None:
    async with open_web(limits={"in_work_bytes": 10_000}) as web:
        answer = await web.request("POST", "/v1/track", chunks=[bytes(1000)] * 20)
        assert answer.status == 503
        assert web.books.unparsed_bytes_total == 20_000
        assert web.services.admission.statistics().highest_in_work_bytes == 10_000
        web.assert_idle()


async def test_inflated_bytes_are_admitted_too(open_web, autojump_clock) -> None:
    async with open_web(limits={"in_work_bytes": 100_000}) as web:
        body = gzip.compress(bytes(1_000_000))
        answer = await web.request("POST", "/v1/track", body, {"content-encoding": "gzip"})
        assert answer.status == 503
        web.assert_idle()


async def test_lag_above_the_bound_sheds_and_is_ready_again_below_half(web, autojump_clock) -> None:
    web.monitor.told_lag_s = 0.31
    assert (await web.track()).status == 503
    assert (await web.request("GET", "/readyz")).body == b"lagging\n"
    assert (await web.request("GET", "/healthz")).status == 200
    web.monitor.told_lag_s = 0.2
    assert (await web.track()).status == 200
    assert (await web.request("GET", "/readyz")).body == b"lagging\n"
    web.monitor.told_lag_s = 0.1
    assert (await web.request("GET", "/readyz")).body == b"ready\n"
    assert web.monitor.sheds.counts == {"lag": 1}


async def test_one_key_holds_at_most_half_while_others_are_shed(open_web, autojump_clock, until) -> None:
    keys = KeysConfig(apps={"big": AppKeys(write_keys=("big",)), "small": AppKeys(write_keys=("small",))})
    async with open_web(limits={"in_work_bytes": 10_000}, keys=keys) as web:
        admission = web.services.admission
        held = [admission.reserve(3000, "big") for _ in range(3)]
        assert admission.statistics().in_work_bytes == 9000, "alone, a key may take it all"
        with pytest.raises(Shed, match="as many bytes"):
            admission.reserve(2000, "small")
        held.pop().close()
        with pytest.raises(Shed, match="half"):
            admission.reserve(500, "big")
        admission.reserve(2000, "small").close()
        body = b'{"writeKey":"big","userId":"u","event":"e","x":"' + b"a" * 500 + b'"}'
        assert (await web.request("POST", "/v1/track", body)).status == 503, "the key is in the body"
        assert (await web.request("POST", "/v1/track", body.replace(b'"big"', b'"small"'))).status == 200
        await trio.sleep(20)
        assert (await web.request("POST", "/v1/track", body)).status == 200, "nobody is being shed any more"
        for reservation in held:
            reservation.close()
        web.assert_idle()


async def test_reservation_gives_everything_back_once() -> None:  # noqa: ASYNC124, ASYNC910  # trio has to run
    admission = Admission(bound_bytes=100, lagging=lambda: False)
    with admission.reserve(10, "a") as reservation:
        reservation.grow_to(5)
        reservation.grow_to(30)
        reservation.assign("b")
        assert (admission.statistics().in_work_bytes, admission.statistics().keys) == (30, 1)
        with pytest.raises(Shed):
            reservation.grow_to(101)
        assert reservation.held_bytes == 30
        assert repr(reservation) == "<Reservation of 30 bytes, open>"
    reservation.close()
    with admission.reserve(0, "c"), admission.reserve(0, "c"):
        pass
    books = admission.statistics()
    assert (books.in_work_bytes, books.reservations, books.keys, books.highest_in_work_bytes) == (0, 0, 0, 30)
    assert repr(admission) == "<Admission 0/100 bytes, 0 reservations>"
