"""The forms of answers: CORS, unknown paths, pages, names and addresses of requests."""

import base64

import pytest

from collector.web.cors import Cors
from collector.web.head import HeadReader, key_of_authorization, parse_query

ORIGIN = "https://shop.example"


async def test_preflight_allows_what_the_sdks_send(web, autojump_clock) -> None:
    asked = "authorization,content-type,x-retry-count,anonymousid,posthog-sdk-info,bad header"
    answer = await web.request(
        "OPTIONS",
        "/v1/batch",
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": asked,
        },
    )
    assert (answer.status, answer.body) == (200, b"")
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "x-retry-count", "anonymousid", "sp-anonymous"} <= set(allowed)
    assert "posthog-sdk-info" in allowed
    assert "bad header" not in allowed
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_errors_can_be_read_by_the_page_too(web, autojump_clock) -> None:
    for path, body, status in (("/v1/track", b"{", 400), ("/v1/nope", b"", 400), ("/nowhere", b"", 404)):
        answer = await web.request("POST", path, body, {"origin": ORIGIN})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
    web.cluster.pause_broker(1)
    answer = await web.track(origin=ORIGIN)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (503, ORIGIN)
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"retry-after", "x-collector-outcome", "x-collector-unknown"} <= set(exposed)


async def test_origin_that_is_not_allowed_gets_no_permission(open_web, autojump_clock) -> None:
    async with open_web(http={"cors_origins": (ORIGIN,)}) as web:
        assert "access-control-allow-origin" in (await web.track(origin=ORIGIN)).headers
        other = await web.track(origin="https://other.example")
        assert other.status == 200
        assert "access-control-allow-origin" not in other.headers
        assert other.headers["vary"] == "Origin"
        assert "vary" not in (await web.track()).headers


def test_cors_ignores_absurdly_many_requested_headers() -> None:
    many = dict(Cors(("*",)).preflight(",".join(f"x{n}" for n in range(1000))))
    assert b"x999" not in many[b"access-control-allow-headers"]
    assert repr(Cors(("*",))) == "<Cors any origin>"


async def test_unknown_path_is_answered_in_the_words_of_the_dialect_whose_paths_begin_alike(
    web, autojump_clock
) -> None:
    segment = await web.request("POST", "/v1/tracks", b"{}")
    assert (segment.status, segment.json()["code"]) == (400, "unknown_path")
    heap = await web.request("POST", "/api/tracks", b"{}")
    assert heap.status == 400
    assert heap.headers["content-type"].startswith("text/plain")
    nobody = await web.request("POST", "/tracks", b"{}")
    assert nobody.status == 404
    assert b"/v1/track" in nobody.body
    assert web.books.unparsed_requests_total == 2


async def test_wrong_method_is_400_and_names_the_right_one(web, autojump_clock) -> None:
    answer = await web.request("GET", "/v1/track")
    assert (answer.status, answer.json()["code"]) == (400, "wrong_method")
    assert "POST" in answer.json()["message"]


async def test_slash_at_the_end_is_forgiven(web, autojump_clock) -> None:
    body = {"writeKey": "w", "userId": "u", "event": "e"}
    assert (await web.request("POST", "/v1/track/", body)).status == 200


async def test_pages(web, autojump_clock) -> None:
    what = await web.request("GET", "/")
    assert what.status == 200
    assert b"/api/track" in what.body
    assert b"/v1/ws" in what.body
    assert (await web.request("GET", "/healthz")).body == b"ok\n"
    assert (await web.request("GET", "/readyz")).body == b"ready\n"
    assert (await web.request("POST", "/readyz")).status == 405
    plain = await web.request("GET", "/v1/ws")
    assert (plain.status, plain.body) == (400, b"this path speaks websocket: upgrade the connection\n")


async def test_target_in_absolute_form_is_its_path(web, autojump_clock) -> None:
    body = {"writeKey": "w", "userId": "u", "event": "e"}
    assert (await web.request("POST", "http://collector.example/v1/track", body)).status == 200
    assert (await web.request("GET", "HTTP://collector.example")).status == 200
    assert (await web.request("GET", "ftp://collector.example/")).status == 404


async def test_request_id_of_a_trusted_proxy_is_kept_and_others_are_made_up(web, autojump_clock) -> None:
    answer = await web.request("GET", "/healthz", headers={"x-request-id": "abc-1"}, client="127.0.0.1")
    assert answer.headers["x-request-id"] == "abc-1"
    for headers, client in (({"x-request-id": "abc-1"}, "198.51.100.7"), ({"x-request-id": "a b"}, "127.0.0.1")):
        answer = await web.request("GET", "/healthz", headers=headers, client=client)
        assert answer.headers["x-request-id"].startswith(web.services.node.name)


async def test_address_in_the_record_is_the_clients_and_truncated(web, autojump_clock) -> None:
    body = {"app_id": "a", "identity": "u", "event": "e"}
    forwarded = {"x-forwarded-for": "6.6.6.6, 203.0.113.9, 127.0.0.1"}
    await web.request("POST", "/api/track", body, forwarded, client="127.0.0.1")
    await web.request("POST", "/api/track", body, forwarded, client="198.51.100.7")
    assert sorted(value["ip"] for value in web.values()) == ["198.51.100.0", "203.0.113.0"]


def heads() -> HeadReader:
    return HeadReader(("127.0.0.0/8", "::1/128"), lambda: "made-up")


def scope(headers: dict[str, str], client: tuple[str, int] | None) -> dict[str, object]:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/", "headers": pairs, "client": client}


@pytest.mark.parametrize(
    ("forwarded", "client", "ip"),
    [
        ("203.0.113.9", ("127.0.0.1", 1), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.7", 1), "198.51.100.7"),
        ("1.1.1.1, garbage", ("127.0.0.1", 1), "127.0.0.1"),
        ("203.0.113.9, ::1", ("::1", 1), "203.0.113.9"),
        ("", ("127.0.0.1", 1), "127.0.0.1"),
        ("203.0.113.9", None, "203.0.113.9"),
        ("6.6.6.6, " * 10_000 + "203.0.113.9", ("127.0.0.1", 1), "203.0.113.9"),
        ("203.0.113.9," + "127.0.0.1, " * 100, ("127.0.0.1", 1), "127.0.0.1"),
    ],
)
def test_client_address_is_the_last_that_no_proxy_of_ours_vouches_for(forwarded, client, ip) -> None:
    assert heads().read(scope({"x-forwarded-for": forwarded}, client)).ip == ip


def test_headers_that_come_twice_are_joined() -> None:
    twice = scope({}, None)
    twice["headers"] = [(b"x-a", b"1"), (b"x-b", b""), (b"x-a", b"2")]
    head = heads().read(twice)
    assert dict(head.headers) == {"x-a": "1, 2", "x-b": ""}
    assert head.content_length == 0
    assert repr(head) == "<RequestHead POST / made-up>"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("Basic " + base64.b64encode(b"w:").decode(), "w"),
        ("basic " + base64.b64encode(b"w").decode().rstrip("="), "w"),
        ("Bearer token", "token"),
        ("Basic ???", None),
        ("Basic ", None),
        ("Digest x", None),
        ("", None),
    ],
)
def test_key_of_an_authorization_header(value: str, key: str | None) -> None:
    assert key_of_authorization(value) == key


def test_query_keeps_the_first_of_each_name() -> None:
    assert parse_query(b"a=1&a=2&b=%C3%BC") == {"a": "1", "b": "ü"}


async def test_query_with_absurdly_many_fields_is_400(web, autojump_clock) -> None:
    answer = await web.request("POST", "/v1/track", b"{}", query="&".join(f"a{n}=1" for n in range(100)))
    assert (answer.status, answer.json()["code"]) == (400, "invalid_query")
