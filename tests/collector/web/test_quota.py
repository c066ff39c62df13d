"""Heap's rate limits, where the operator switched them on."""

from collector.config import QuotaConfig


async def test_without_a_quota_nobody_is_counted(web, autojump_clock) -> None:
    assert [(await web.track()).status for _ in range(40)] == [200] * 40
    web.assert_idle()


async def test_with_a_quota_31st_request_of_an_identity_is_answered_503_and_others_are_not(
    open_web, autojump_clock
) -> None:
    async with open_web(quota=QuotaConfig(heap_per_identity=True)) as web:
        assert [(await web.track()).status for _ in range(30)] == [200] * 30
        answer = await web.track()
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert b"rate limits" in answer.body
        assert (await web.track(identity="another")).status == 200
        assert web.books.delivered_total == 31
        web.assert_idle()
