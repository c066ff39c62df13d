"""What a server of ours says in the extensions of a scope: the body that it has, sends that it bounds."""

import gzip

import pytest
import trio

from collector.web.asgi_types import Message
from collector.web.handle import BOUNDED_SEND, WHOLE_BODY

GOOD = b'{"writeKey":"w","userId":"u","event":"e"}'


async def call(web, path: str, body: bytes, **headers: str):
    """A request whose body stands in its scope; who asks for it waits for ever."""
    given = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    with trio.fail_after(1):
        return await web.request("POST", path, headers=given, messages=[], extensions={WHOLE_BODY: body})


@pytest.mark.parametrize(("body", "coding"), [(GOOD, ""), (gzip.compress(GOOD), "gzip"), (gzip.compress(GOOD), "")])
async def test_whole_body_is_not_asked_for(web, autojump_clock, body: bytes, coding: str) -> None:
    answer = await call(web, "/v1/track", body, content_encoding=coding)
    assert answer.status == 200, answer.body
    assert "connection" not in answer.headers
    assert len(web.values()) == 1
    web.assert_idle()


@pytest.mark.parametrize("length", ["5000", "0"])
async def test_whole_body_above_the_limit_is_400(open_web, autojump_clock, length: str) -> None:
    async with open_web(limits={"body_bytes": 1000}) as web:
        answer = await call(web, "/v1/track", bytes(5000), content_length=length)
        assert (answer.status, answer.json()["code"]) == (400, "too_large")
        assert "connection" not in answer.headers
        assert web.books.unparsed_bytes_total == 5000
        web.assert_idle()


async def test_whole_body_that_is_shed_is_503(open_web, autojump_clock) -> None:
    async with open_web(limits={"in_work_bytes": 1000}) as web:
        answer = await call(web, "/v1/track", bytes(5000), content_length="0")
        assert (answer.status, web.monitor.sheds.counts) == (503, {"bytes": 1})
        assert "connection" not in answer.headers
        assert web.books.unparsed_bytes_total == 5000
        web.assert_idle()


async def test_whole_body_that_nobody_wants_keeps_the_connection(web, autojump_clock) -> None:
    answer = await call(web, "/nowhere", GOOD)
    assert answer.status == 404
    assert "connection" not in answer.headers


@pytest.mark.parametrize(("extensions", "within_s"), [({}, 1.0), ({BOUNDED_SEND: {}}, 30.0)])
async def test_send_that_is_not_taken_is_given_up_unless_the_server_does_that(
    web, autojump_clock, extensions: dict[str, object], within_s: float
) -> None:
    """``send_timeout_s`` is 1 s here; the client takes the answer after 30."""
    sent: list[Message] = []

    async def app(scope, receive, send) -> None:
        async def slow(message: Message) -> None:
            await trio.sleep(30)
            sent.append(message)

        await web.app(scope, receive, slow if scope["path"] == "/healthz" else send)

    began = trio.current_time()
    with trio.move_on_after(30.5):
        await web.request("GET", "/healthz", extensions=extensions, app=app)
    assert trio.current_time() - began == pytest.approx(within_s, abs=0.6)
    assert len(sent) == (1 if extensions else 0)


async def test_stages_of_a_request_are_seen_at_once_and_those_of_a_refused_one_too(web, autojump_clock) -> None:
    await web.track()
    assert [histogram.total for histogram in web.monitor.stages.values()] == [1, 1, 1, 1, 1]
    web.cluster.faults.delay(0.3)
    await web.track()
    stages = web.monitor.stages
    assert stages["acknowledge"].highest == pytest.approx(0.3, abs=0.01)
    assert stages["answer"].highest < 0.1
    await web.request("POST", "/api/track", b"{}")
    assert [histogram.total for histogram in web.monitor.stages.values()] == [3, 2, 2, 2, 3]
