"""Kept lines: what comes out is what went in, byte for byte, and half a line is none."""

import base64
import gzip
import random
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.last_resort.kept import LINE_START, BrokenLine, _Line, read_kept
from collector.nginx.last_resort import MEMBERS


class KeptLine(Protocol):
    """Makes one line, see conftest."""

    def __call__(self, body: bytes, **members: "str | bytes") -> bytes: ...


def test_members_that_nginx_writes_are_those_that_are_read(kept_line: KeptLine) -> None:
    assert tuple(name for name, _ in MEMBERS) == _Line.__struct_fields__
    assert kept_line(b"").startswith(LINE_START)


@pytest.mark.parametrize(
    "body",
    [
        bytes(range(256)) * 3,
        bytes(reversed(range(256))),
        b'{"a":"\\u00e9\\\\ \xc3\xa9"}\r\n\t\x00\x7f\x80\xff',
        gzip.compress(random.Random(5).randbytes(100_000)),
        b"",
    ],
)
def test_body_comes_back_byte_for_byte(kept_line: KeptLine, body: bytes) -> None:
    assert read_kept(kept_line(body).removesuffix(b"\n")).body == body


@given(body=st.binary(max_size=300), agent=st.binary(max_size=50))
def test_any_bytes_come_back(kept_line: KeptLine, body: bytes, agent: bytes) -> None:
    line = kept_line(body, user_agent=agent)
    assert line.count(b"\n") == 1
    found = read_kept(line[:-1])
    assert found.body == body
    assert found.headers.get("user-agent", "").encode("latin-1") == agent


@given(body=st.binary(min_size=1, max_size=200), cut=st.integers(min_value=1, max_value=400))
def test_line_that_was_cut_is_broken(kept_line: KeptLine, body: bytes, cut: int) -> None:
    line = kept_line(body)[:-1]
    with pytest.raises(BrokenLine):
        read_kept(line[: max(0, len(line) - cut)])


def test_body_that_is_shorter_than_its_length_is_broken_and_not_quoted(kept_line: KeptLine) -> None:
    with pytest.raises(BrokenLine, match="the body has 6 bytes of 7") as caught:
        read_kept(kept_line(b"secret", content_length="7")[:-1])
    assert "secret" not in str(caught.value)


def test_request_is_what_it_was(kept_line: KeptLine) -> None:
    found = read_kept(
        kept_line(
            b"{}",
            target="/v1/track?writeKey=w%20k&x=1",
            upstream_s="0.300, 0.001",
            user=b"k\xc3\xa9",
            content_encoding="gzip",
            dnt="1",
            sec_gpc="0",
        )[:-1]
    )
    assert (found.method, found.path, found.query_string) == ("POST", "/v1/track", b"writeKey=w%20k&x=1")
    assert found.received_at_ms == 1_749_974_400_250 - 301, "when the body was complete, before the tries"
    assert base64.b64decode(found.headers.pop("authorization").removeprefix("Basic ")) == b"k\xc3\xa9:"
    assert found.headers == {"content-encoding": "gzip", "user-agent": "curl/8", "dnt": "1", "sec-gpc": "0"}
    assert (found.ip, found.request_id) == ("198.51.100.0", "request-1")


def test_authorization_without_a_colon_is_kept_as_it_was(kept_line: KeptLine) -> None:
    found = read_kept(kept_line(b"{}", user="", authorization="Basic a2V5")[:-1])
    assert found.headers["authorization"] == "Basic a2V5"


@pytest.mark.parametrize(
    "members", [{"time": "noon"}, {"upstream_s": "x"}, {"content_length": "x"}, {"kept": "2"}, {"time": "1e999"}]
)
def test_line_with_nonsense_in_it_is_broken(kept_line: KeptLine, members: dict[str, str]) -> None:
    with pytest.raises(BrokenLine):
        read_kept(kept_line(b"{}", **members)[:-1])
