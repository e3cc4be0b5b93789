"""Freshness lifetime and age (RFC 9111, section 4.2), beside a plain reading of its formulas."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.directives import Directives
from asgi_tiercache.http.freshness import (
    HEURISTIC_LIMIT,
    age_value,
    date_value,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
)
from asgi_tiercache.types import Header

NOW = 1_700_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
FOREVER = 2**31


def _date(seconds: float) -> bytes:
    return formatdate(NOW + seconds, usegmt=True).encode()


def _lifetime(*headers: Header, targeted: bool = False) -> float | None:
    return explicit_lifetime(headers, Directives.parse(headers), targeted=targeted, now=NOW)


def _of(name: bytes, *lines: bytes) -> list[Header]:
    return [(name, line) for line in lines]


# Age


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        ([b"0"], 0),
        ([b"7"], 7),
        ([b" 7\t"], 7),
        ([b"007"], 7),
        ([b"7, 50"], 7),
        ([b"7", b"50"], 7),
        ([b"x, 50"], None),
        ([b"x", b"50"], None),
        ([b"2147483648"], FOREVER),
        ([b"99999999999"], FOREVER),
        ([b"9" * 10_000], FOREVER),
        ([b""], None),
        ([b"-7"], None),
        ([b"+7"], None),
        ([b"7.5"], None),
        ([b"7x"], None),
        ([b"x7"], None),
        ([b"7 8"], None),
        ([b"7;x=1"], None),
        ([b'"7"'], None),
        ([b"'7'"], None),
        ([b"\xb2"], None),
    ],
)
def test_age_is_the_first_member_or_nothing(lines: list[bytes], seconds: int | None) -> None:
    assert age_value(_of(b"Age", *lines)) == seconds


def test_apparent_age_counts_from_date() -> None:
    assert initial_age(_of(b"date", _date(-30)), now=NOW) == 30


def test_a_date_in_the_future_makes_no_negative_age() -> None:
    assert initial_age(_of(b"date", _date(1000)), now=NOW) == 0


@pytest.mark.parametrize("date", [[], [b"yesterday"], [b""], [b"0"], [_date(-30) + b", " + _date(-20)]])
def test_without_a_date_the_response_is_made_when_it_comes(date: list[bytes]) -> None:
    headers = _of(b"date", *date)
    assert date_value(headers, now=NOW) == NOW
    assert initial_age(headers, now=NOW) == 0


def test_of_several_dates_the_earliest_makes_the_response_oldest() -> None:
    for lines in ([_date(-10), _date(-50)], [_date(-50), _date(-10)], [b"never", _date(-50), _date(10)]):
        assert initial_age(_of(b"date", *lines), now=NOW) == 50


def test_the_response_delay_is_added_to_age_not_to_apparent_age() -> None:
    headers = [*_of(b"age", b"20"), *_of(b"date", _date(-30))]
    assert initial_age(headers, now=NOW, response_delay=5) == 30
    assert initial_age(headers, now=NOW, response_delay=15) == 35
    assert initial_age([], now=NOW, response_delay=15) == 15


def test_a_clock_that_ran_backwards_makes_nothing_younger() -> None:
    assert initial_age(_of(b"age", b"20"), now=NOW, response_delay=-15) == 20


def test_an_age_that_overflows_stays_the_greatest() -> None:
    assert initial_age(_of(b"age", b"9" * 30), now=NOW, response_delay=60) == FOREVER
    assert initial_age(_of(b"date", b"Mon, 01 Jan 0001 00:00:00 GMT"), now=NOW) == FOREVER


# Lifetime


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([_date(60)], 60),
        ([MOMENT.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode()], 0),
        ([(MOMENT + timedelta(60)).strftime("%A, %d-%b-%y %H:%M:%S GMT").encode()], 60 * 86_400),
        ([(MOMENT + timedelta(60)).ctime().encode()], 60 * 86_400),
        ([_date(60).lower()], 60),
        ([_date(60).upper(), _date(60)], 60),
        ([_date(60), _date(61)], 0),
        ([_date(60), b"0"], 0),
        ([b"0", b"0"], 0),
        ([_date(60) + b", " + _date(60)], 0),
        ([_date(60).replace(b"GMT", b"UTC")], 0),
        ([_date(60).replace(b"GMT", b"EST")], 0),
        ([_date(60).replace(b" GMT", b"")], 0),
        ([_date(60).replace(b",", b"")], 0),
        ([b'"' + _date(60) + b'"'], 0),
        ([b"0"], 0),
        ([b"-1"], 0),
        ([b""], 0),
        ([b"9999999999"], 0),
        ([_date(-60)], 0),
        ([b"Thu, 01 Jan 1970 00:00:00 GMT"], 0),
        ([b"Fri, 31 Dec 9999 23:59:59 GMT"], FOREVER),
    ],
)
def test_expires_is_a_date_in_three_formats_or_past(lines: list[bytes], seconds: int) -> None:
    assert _lifetime(*_of(b"Expires", *lines)) == seconds


def test_expires_counts_from_date_wherever_our_clock_stands() -> None:
    for offset in (-1000, 0, 1000):
        assert _lifetime((b"date", _date(offset)), (b"expires", _date(offset + 60))) == 60


def test_directives_go_before_expires_even_if_they_are_malformed() -> None:
    expires = (b"expires", _date(60))
    assert _lifetime(expires, (b"cache-control", b"max-age=5, s-maxage=7")) == 7
    assert _lifetime(expires, (b"cache-control", b"max-age=5")) == 5
    assert _lifetime(expires, (b"cache-control", b"max-age=x")) == 0
    assert _lifetime(expires, (b"cache-control", b"s-maxage, max-age=5")) == 0
    assert _lifetime(expires, (b"cache-control", b"public")) == 60
    assert _lifetime(expires) == 60


def test_nothing_stated_is_nothing_found() -> None:
    assert _lifetime((b"cache-control", b"public"), (b"date", _date(0)), (b"pragma", b"max-age=5")) is None


def test_expires_does_not_count_beside_a_targeted_field() -> None:
    assert _lifetime((b"expires", _date(60)), targeted=True) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"last-modified", b"once")], None),
        ([(b"last-modified", _date(-1000))], 100),
        ([(b"last-modified", _date(-1000).lower())], 100),
        ([(b"last-modified", _date(-1000)), (b"date", _date(-500))], 50),
        ([(b"last-modified", _date(-1000)), (b"date", _date(500))], 100),
        ([(b"last-modified", _date(-1000)), (b"date", _date(-2000))], 0),
        ([(b"last-modified", _date(1000))], 0),
        ([(b"last-modified", _date(500)), (b"date", _date(1000))], 0),
        ([(b"last-modified", _date(-1000)), (b"last-modified", _date(-500))], 50),
        ([(b"last-modified", _date(-100 * 86_400))], HEURISTIC_LIMIT),
    ],
)
def test_the_heuristic_is_a_bounded_tenth(headers: list[Header], seconds: float | None) -> None:
    assert heuristic_lifetime(headers, now=NOW) == seconds


# Any input


def _naive_remaining(date: int | None, age: int | None, expires: int | None, max_age: int | None) -> float | None:
    """Seconds for which a response stays fresh from NOW on, by the formulas as they stand."""
    made = 0 if date is None else date
    if max_age is not None:
        freshness_lifetime = max_age
    elif expires is not None:
        freshness_lifetime = max(0, expires - made)
    else:
        return None
    apparent_age = max(0, 0 - made)
    corrected_age_value = (age or 0) + 3
    return freshness_lifetime - max(apparent_age, corrected_age_value)


OFFSETS = st.none() | st.integers(-(10**6), 10**6)
SECONDS = st.none() | st.integers(0, 10**6)


@given(OFFSETS, SECONDS, OFFSETS, SECONDS)
def test_freshness_agrees_with_the_formulas(
    date: int | None, age: int | None, expires: int | None, max_age: int | None
) -> None:
    headers: list[Header] = []
    if date is not None:
        headers.append((b"date", _date(date)))
    if age is not None:
        headers.append((b"age", b"%d" % age))
    if expires is not None:
        headers.append((b"expires", _date(expires)))
    if max_age is not None:
        headers.append((b"cache-control", b"max-age=%d" % max_age))
    lifetime = _lifetime(*headers)
    remaining = None if lifetime is None else lifetime - initial_age(headers, now=NOW, response_delay=3)
    assert remaining == _naive_remaining(date, age, expires, max_age)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), OFFSETS)
def test_a_later_expiry_is_never_a_shorter_lifetime(one: int, other: int, date: int | None) -> None:
    made = [] if date is None else [(b"date", _date(date))]
    low, high = (_lifetime(*made, (b"expires", _date(seconds))) for seconds in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low <= high


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"date", b"Age", b"expires", b"last-modified", b"cache-control"]),
            st.binary(max_size=30) | st.sampled_from([b"5", b"max-age=5", _date(-5), _date(5)]),
        ),
        max_size=6,
    )
)
def test_no_bytes_make_the_calculations_raise_or_negative(headers: list[Header]) -> None:
    assert 0 <= initial_age(headers, now=NOW) <= FOREVER
    assert 0 <= (_lifetime(*headers) or 0) <= FOREVER
    assert 0 <= (heuristic_lifetime(headers, now=NOW) or 0) <= HEURISTIC_LIMIT


def test_ten_thousand_lines_take_linear_time() -> None:
    before = time.process_time()
    for name in (b"age", b"expires", b"date", b"last-modified"):
        headers = _of(name, *[_date(number) for number in range(10_000)])
        assert initial_age(headers, now=NOW) == 0
        assert (_lifetime(*headers) or 0) == 0
        heuristic_lifetime(headers, now=NOW)
    assert time.process_time() - before < 5
