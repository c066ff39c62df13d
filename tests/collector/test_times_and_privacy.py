"""Times in and out, and what is kept of an address."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.privacy import kept_address
from collector.times import moment_json, moment_of, parse_iso8601, rfc3339, rfc3339_json, shifted, to_ms


@given(st.integers(-62135596800000, 253402300799999))
def test_written_time_is_read_back(ms: int) -> None:
    text = rfc3339(ms)
    assert text is not None
    assert len(text) == 24
    moment = parse_iso8601(text)
    assert moment is not None
    assert to_ms(moment) == ms


@given(st.datetimes(timezones=st.just(UTC)))
def test_milliseconds_are_rounded_down(moment: datetime) -> None:
    assert rfc3339(to_ms(moment)) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC)))
def test_moment_is_written_as_its_milliseconds(moment: datetime) -> None:
    assert moment_json(moment) == rfc3339_json(to_ms(moment))


@given(st.integers(-62135596800000, 253402300799999))
def test_moment_of_milliseconds_has_them(ms: int) -> None:
    moment = moment_of(ms)
    assert moment is not None
    assert to_ms(moment) == ms


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-(10**15), 10**15))
def test_moment_is_shifted_by_milliseconds_or_lost(moment: datetime, by_ms: int) -> None:
    later = shifted(moment, timedelta(milliseconds=by_ms))
    assert rfc3339_json(to_ms(moment) + by_ms) == (b"null" if later is None else moment_json(later))


@pytest.mark.parametrize("ms", [-62135596800001, 253402300800000, 10**30, -(10**30)])
def test_time_beyond_four_digit_years_is_none(ms: int) -> None:
    assert rfc3339(ms) is None


@pytest.mark.parametrize("text", ["", "now", "2017", "2017-13-01", "2017-03-10x10:00", "10:00", "\ud800", "٢٠١٧-03-10"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_iso8601(text) is None


@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    parse_iso8601(text)
    parse_iso8601("2017-03-10" + text)


@pytest.mark.parametrize(
    ("address", "mode", "kept"),
    [
        ("192.0.2.123", "truncated", "192.0.2.0"),
        ("2001:db8:1:2:3:4:5:6", "truncated", "2001:db8:1::"),
        ("::ffff:192.0.2.123", "truncated", "192.0.2.0"),
        ("fe80::1%eth0", "truncated", "fe80::"),
        (" 192.0.2.123 ", "full", "192.0.2.123"),
        ("2001:DB8::1", "full", "2001:db8::1"),
        ("192.0.2.123", "none", None),
        ("unknown", "truncated", None),
        ("192.0.2.1:80", "full", None),
        ("", "full", None),
        (None, "full", None),
    ],
)
def test_address_is_kept_as_far_as_it_may(
    address: str | None, mode: Literal["truncated", "full", "none"], kept: str | None
) -> None:
    assert kept_address(address, mode) == kept
