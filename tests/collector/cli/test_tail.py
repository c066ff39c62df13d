"""How an event looks to people, and what may never reach a terminal."""

import json

from collector.cli.tail import event_line


def value(**members: object) -> bytes:
    event = {"received_at": "2026-11-22T17:55:23.394Z", "api": "segment", "app": "shop", "type": "track", "body": {}}
    return json.dumps({**event, **members}).encode()


def test_event_is_one_line_with_time_place_owner_and_body() -> None:
    line = event_line(3, 17, value(body={"event": "Bought", "userId": "ann"}))
    assert line.split() == [
        "17:55:23.394",
        "3/17",
        "segment/shop",
        "track",
        '{"event":',
        '"Bought",',
        '"userId":',
        '"ann"}',
    ]


def test_base64_body_is_shown_as_it_is() -> None:
    assert event_line(0, 0, value(encoding="base64", body="gaFh")).endswith(" gaFh")


def test_record_of_somebody_else_is_shown_as_it_is() -> None:
    assert event_line(0, 5, b"not json") == "  0/5        not json"
    assert event_line(0, 5, b"[1]") == "  0/5        [1]"
    assert event_line(0, 5, b'{"a":1}') == '  0/5        {"a":1}'


def test_control_characters_of_clients_do_not_steer_the_terminal() -> None:
    for text in ("\x1b[2J", "\x9b31m", "a\rb", "\x07", "\u202eevil"):
        line = event_line(0, 0, value(app=text, body={"event": text}))
        assert line.isprintable(), repr(line)
    assert event_line(0, 0, b"\x1b]0;title\x07").isprintable()
