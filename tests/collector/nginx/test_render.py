"""The rendered text, where no nginx is needed to judge it."""

from collections.abc import Sequence
from dataclasses import replace

from collector.config import Config, LimitsConfig, NginxConfig
from collector.dialects import Answer, Dialect, make_dialects
from collector.dialects.base import Route
from collector.nginx import NginxPlace, render_nginx
from collector.nginx.last_resort import last_resort_locations, last_resort_maps

ACCEPT = Config(nginx=NginxConfig(last_resort="accept"))


class WithPixel:
    """A dialect as it is, and a pixel beside."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.name = dialect.name
        self.routes: Sequence[Route] = (*dialect.routes, Route(method="GET", path="/v1/pixel/track", kind="pixel"))

    def accepted(self, route: Route) -> Answer:
        if route.kind == "pixel":
            return Answer(status=200, body=b"GIF89a\x01\x00\x01\x00", content_type="image/gif")
        return self._dialect.accepted(route)


def test_default_has_no_last_resort_and_no_choice_of_a_collector() -> None:
    text = render_nginx(Config())
    for word in ("last_resort", "hash ", "$collector_key", "real_ip", "in_single_buffer"):
        assert word not in text


def test_what_is_kept_is_written_at_once_and_says_what_it_is_worth() -> None:
    text = render_nginx(ACCEPT)
    assert f"access_log {ACCEPT.nginx.last_resort_file} last_resort;" in text, "no buffer, no flush"
    assert "A 200 from here survives a process crash, not a power cut" in text
    assert "install -m 0600 -o www-data /dev/null /var/lib/collector/last-resort/requests.log" in text
    assert "-o www-data" not in render_nginx(ACCEPT, place=NginxPlace(user=None))


def test_headers_with_other_secrets_are_not_written_down() -> None:
    [form] = [line for line in render_nginx(ACCEPT).splitlines() if "log_format last_resort" in line]
    for word in ("cookie", "http_authorization", "http_x_forwarded_for", "$remote_addr", '$request"'):
        assert word not in form


def test_no_more_is_held_in_memory_than_a_body_may_have() -> None:
    config = replace(ACCEPT, limits=LimitsConfig(body_bytes=500_000))
    assert "client_body_buffer_size 500000;" in render_nginx(config)
    assert "client_body_buffer_size 1048576;" in render_nginx(ACCEPT)


def test_pixel_is_kept_with_its_query_and_answered_with_a_pixel() -> None:
    dialects: list[Dialect] = [
        WithPixel(dialect) if name == "segment" else dialect  # type: ignore[misc]  # as much of a dialect as is used
        for name, dialect in make_dialects(LimitsConfig()).items()
    ]
    maps = "\n".join(last_resort_maps(ACCEPT, dialects))
    assert r"'~^0(, 0)*\|\|GET /(v1/pixel/track)/*$' segment_1;" in maps
    assert '"target":"$request_uri"' in maps
    locations = [line.strip() for line in last_resort_locations(ACCEPT, dialects, NginxPlace())]
    at = locations.index("location = /_last_resort_answer/segment_1 {")
    assert locations[at : at + 4] == ["location = /_last_resort_answer/segment_1 {", "internal;", "empty_gif;", "}"]


def test_several_collectors_are_chosen_by_key_and_each_is_tried() -> None:
    config = Config(nginx=NginxConfig(upstreams=("10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080")))
    text = render_nginx(config)
    assert "hash $collector_key$remote_addr consistent;" in text
    assert text.index("hash $collector_key") < text.index("server 10.0.0.1:8080") < text.index("keepalive 64;")
    assert "nginx does not see a key in the body" in text
    assert "proxy_next_upstream_tries 3;" in text
    assert "server 127.0.0.1:8080" not in text
    given = render_nginx(config, upstreams=["10.9.9.9:1"])
    assert "hash " not in given
    assert "server 10.9.9.9:1 max_fails=0;" in given
