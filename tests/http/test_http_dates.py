"""Dates in the three formats of RFC 9110, section 5.6.7, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.fields import parse_http_date

RFC_EXAMPLE = 784111777.0
NOW = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC).timestamp()
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


def _parse(text: str, *, now: float = NOW, any_case: bool = False) -> float | None:
    return parse_http_date(text.encode("latin-1"), now=now, any_case=any_case)


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_examples_of_rfc_9110_section_5_6_7(text: str) -> None:
    assert _parse(text) == RFC_EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Foo, 06 Nov 1994 08:49:37 GMT",
        "Wed, 30 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37\tGMT",
        '"Sun, 06 Nov 1994 08:49:37 GMT"',
        "Sun, 06 November 1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37",
        "Sun, 06 Nov -994 08:49:37 GMT",
        "Sun, 06 Nov 19940 08:49:37 GMT",
        "Sun, \xb2\xb2 Nov 1994 08:49:37 GMT",
        "Sun Nov 06  08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "784111777",
    ],
)
def test_everything_else_is_no_date(text: str) -> None:
    assert _parse(text) is None
    assert _parse(text, any_case=True) is None


def test_the_name_of_the_day_need_not_fit_the_date() -> None:
    assert _parse("Mon, 06 Nov 1994 08:49:37 GMT") == RFC_EXAMPLE  # section 5.6.7 gives it no part in the meaning


@pytest.mark.parametrize(
    "text", ["sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 NOV 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 gmt"]
)
def test_case_counts_unless_freshness_is_calculated(text: str) -> None:
    assert _parse(text) is None
    assert _parse(text, any_case=True) == RFC_EXAMPLE


def test_a_leap_second_belongs_to_the_next_day() -> None:
    assert _parse("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2017, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Thursday, 29-Feb-74 12:00:00 GMT", None),  # 2074 has no such day
        ("Wednesday, 28-Feb-74 12:00:00 GMT", 2074),  # nearly 50 years ahead
        ("Friday, 01-Mar-74 12:00:00 GMT", 1974),  # a day more than 50 years ahead
        ("Tuesday, 01-Mar-73 12:00:00 GMT", 2073),
        ("Saturday, 01-Mar-75 12:00:00 GMT", 1975),
        ("Friday, 01-Mar-24 12:00:00 GMT", 2024),
    ],
)
def test_a_year_of_two_digits_is_never_more_than_50_years_ahead(text: str, year: int | None) -> None:
    moment = _parse(text)
    assert (moment and datetime.fromtimestamp(moment, UTC).year) == year


@pytest.mark.parametrize(
    ("moment", "year"),
    [
        ("01-Jun-74 12:30:30", 2074),
        ("01-Jun-74 12:30:31", 1974),
        ("01-Jun-74 12:31:00", 1974),
        ("01-Jun-74 13:00:00", 1974),
        ("02-Jun-74 00:00:00", 1974),
        ("01-Jul-74 00:00:00", 1974),
        ("31-May-74 23:59:59", 2074),
    ],
)
def test_the_50_years_are_counted_to_the_second(moment: str, year: int) -> None:
    parsed = _parse(f"Saturday, {moment} GMT", now=datetime(2024, 6, 1, 12, 30, 30, tzinfo=UTC).timestamp())
    assert parsed is not None
    assert datetime.fromtimestamp(parsed, UTC).year == year


def test_a_year_of_two_digits_may_lie_in_the_next_century() -> None:
    moment = _parse("Thursday, 01-Jan-05 00:00:00 GMT", now=datetime(2099, 6, 1, tzinfo=UTC).timestamp())
    assert moment == datetime(2105, 1, 1, tzinfo=UTC).timestamp()


@given(MOMENTS)
def test_what_is_written_in_the_preferred_format_comes_back(moment: datetime) -> None:
    assert _parse(format_datetime(moment, usegmt=True)) == moment.timestamp()


@given(MOMENTS)
def test_what_is_written_in_the_format_of_asctime_comes_back(moment: datetime) -> None:
    assert _parse(moment.ctime()) == moment.timestamp()


@given(MOMENTS, st.integers(-49 * 365, 49 * 365))
def test_what_is_written_with_two_digits_comes_back_within_50_years(now: datetime, days: int) -> None:
    moment = now + timedelta(days=days)
    assert _parse(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"), now=now.timestamp()) == moment.timestamp()


@given(st.binary(max_size=40))
def test_no_bytes_make_the_parser_raise(value: bytes) -> None:
    assert parse_http_date(value, now=NOW) is None or len(value) >= 24
