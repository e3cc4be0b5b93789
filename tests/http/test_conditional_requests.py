"""Conditions on a response that is at hand (RFC 9110, section 13; RFC 9111, section 4.3.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http import conditional
from asgi_tiercache.http.conditional import if_range_holds, not_modified_headers
from asgi_tiercache.types import Header

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = b"Sat, 05 Nov 1994 08:49:37 GMT"
A_SECOND_EARLIER = b"Sun, 06 Nov 1994 08:49:36 GMT"
LATER = b"Mon, 07 Nov 1994 08:49:37 GMT"
DATE_SECONDS = 784111777.0
NOW = DATE_SECONDS + 86_400


def not_modified(
    request: list[Header], status: int, response: list[Header], *, now: float = NOW, received: float | None = None
) -> bool:
    return conditional.not_modified(request, status, response, now=now, received=received)


def none_match(*values: bytes) -> list[Header]:
    return [(b"if-none-match", value) for value in values]


def modified_since(*values: bytes) -> list[Header]:
    return [(b"if-modified-since", value) for value in values]


# ---- If-None-Match ----


@pytest.mark.parametrize(
    ("etag", "asked", "met"),
    [
        (b'"a"', [b'"a"'], True),
        (b'"a"', [b'"b"'], False),
        (b'"a"', [b'"b", "a"'], True),
        (b'"a"', [b'"b"', b'"a"'], True),
        (b'W/"a"', [b'"a"'], True),  # the weak comparison, section 8.8.3.2
        (b'"a"', [b'W/"a"'], True),
        (b'W/"a"', [b'W/"a"'], True),
        (b'"a"', [b"*"], True),
        (b'"a,b"', [b'"a,b"'], True),
        (b'"a\\"', [b'"b\\", "a\\"'], True),
        (b'"a"', [b"a"], False),
        (b'"a"', [b'w/"a"'], False),
        (b'"a"', [b""], False),
        (b"a", [b"a"], False),  # two malformed ones are no match
        (b'"a"', [b'*, "b"'], False),
        (b'"a"', [b"*", b"*"], False),
        (b'"a"', [b'b c, "a'], False),
        (b'"a"', [b'"b", c, "a"'], True),
    ],
)
def test_an_entity_tag_is_compared_weakly_with_each_of_a_list(etag: bytes, asked: list[bytes], met: bool) -> None:
    assert not_modified(none_match(*asked), 200, [(b"etag", etag)]) is met


def test_any_response_will_do_for_the_star() -> None:
    assert not_modified(none_match(b"*"), 200, [])


def test_where_an_entity_tag_is_asked_for_the_date_does_not_count() -> None:
    response = [(b"etag", b'"a"'), (b"last-modified", DATE)]
    assert not not_modified([*none_match(b'"b"'), *modified_since(LATER)], 200, response)
    assert not not_modified([*none_match(b"no tag"), *modified_since(LATER)], 200, response)
    assert not_modified([*none_match(b'"a"'), *modified_since(EARLIER)], 200, response)


def test_two_entity_tags_are_none() -> None:
    assert not not_modified(none_match(b'"a"'), 200, [(b"etag", b'"a"'), (b"etag", b'"a"')])


# ---- If-Modified-Since ----


@pytest.mark.parametrize(("since", "met"), [(EARLIER, False), (DATE, True), (LATER, True), (b"yesterday", False)])
def test_a_date_is_met_by_what_is_no_newer(since: bytes, met: bool) -> None:
    assert not_modified(modified_since(since), 200, [(b"last-modified", DATE)]) is met


@pytest.mark.parametrize(
    "since", [b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"], ids=["rfc850", "asctime"]
)
def test_a_date_has_three_formats(since: bytes) -> None:
    assert not_modified(modified_since(since), 200, [(b"last-modified", DATE)])


def test_the_century_of_a_short_year_is_the_nearest_by_the_clock() -> None:
    response = [(b"last-modified", b"Sat, 28 Nov 2026 00:00:00 GMT")]
    asked = modified_since(b"Saturday, 28-Nov-26 00:00:00 GMT")
    assert not_modified(asked, 200, response, now=1_795_900_000.0)
    assert not not_modified(asked, 200, response, now=0.0)


def test_a_date_ahead_of_our_clock_is_like_any_other() -> None:
    assert not_modified(modified_since(b"Thu, 01 Jan 2099 00:00:00 GMT"), 200, [(b"last-modified", DATE)])


def test_two_dates_are_none() -> None:
    assert not not_modified(modified_since(DATE, DATE), 200, [(b"last-modified", DATE)])
    assert not not_modified(modified_since(DATE), 200, [(b"last-modified", DATE), (b"last-modified", DATE)])


@pytest.mark.parametrize(("since", "met"), [(EARLIER, False), (DATE, True), (LATER, True)])
def test_without_last_modified_a_stored_response_is_as_old_as_its_date(since: bytes, met: bool) -> None:
    assert not_modified(modified_since(since), 200, [(b"date", DATE)], received=NOW) is met


@pytest.mark.parametrize(("after", "met"), [(-0.5, True), (0.0, True), (0.5, False)])
def test_without_either_it_is_as_old_as_it_has_been_here(after: float, met: bool) -> None:
    assert not_modified(modified_since(DATE), 200, [], received=DATE_SECONDS + after) is met


def test_a_last_modified_that_is_no_date_is_not_replaced_by_another() -> None:
    response = [(b"last-modified", b"yesterday"), (b"date", EARLIER)]
    assert not not_modified(modified_since(DATE), 200, response, received=0.0)


def test_of_a_response_made_just_now_only_last_modified_counts() -> None:
    assert not not_modified(modified_since(LATER), 200, [(b"date", DATE)])
    assert not_modified(modified_since(LATER), 200, [(b"last-modified", DATE)])


# ---- both ----


@pytest.mark.parametrize("status", [201, 203, 204, 301, 304, 404, 412, 416, 500])
def test_only_a_200_or_206_has_a_condition_to_fail(status: int) -> None:
    assert not not_modified(none_match(b'"a"'), status, [(b"etag", b'"a"')])
    assert not_modified(none_match(b'"a"'), 206, [(b"etag", b'"a"')])


def test_conditions_on_the_state_of_the_origin_are_not_evaluated() -> None:
    request = [(b"if-match", b'"b"'), (b"if-unmodified-since", EARLIER)]
    response = [(b"etag", b'"a"'), (b"last-modified", DATE)]
    assert not not_modified(request, 200, response)
    assert not_modified([*request, *none_match(b'"a"')], 200, response)


# ---- If-Range ----


@pytest.mark.parametrize(
    ("condition", "etag", "holds"),
    [
        (b'"a"', b'"a"', True),
        (b'"b"', b'"a"', False),
        (b'W/"a"', b'W/"a"', False),
        (b'"a"', b'W/"a"', False),
        (b'W/"a"', b'"a"', False),
        (b'"a", "b"', b'"a"', False),
        (b"*", b'"a"', False),
        (b"a", b'"a"', False),
        (b"", b'"a"', False),
    ],
)
def test_an_entity_tag_has_to_match_strongly_for_a_range(condition: bytes, etag: bytes, holds: bool) -> None:
    assert if_range_holds([(b"if-range", condition)], [(b"etag", etag)], received=NOW) is holds


@pytest.mark.parametrize(
    ("condition", "date", "holds"),
    [
        (DATE, LATER, True),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", LATER, True),
        (LATER, LATER, False),  # a later date is not the same one
        (EARLIER, LATER, False),
        (DATE, DATE, False),  # it may have changed in the very second
        (b"yesterday", LATER, False),
    ],
)
def test_a_date_has_to_match_exactly_and_to_be_a_strong_one(condition: bytes, date: bytes, holds: bool) -> None:
    response = [(b"last-modified", DATE), (b"date", date)]
    assert if_range_holds([(b"if-range", condition)], response, received=NOW) is holds


def test_a_second_makes_a_date_strong() -> None:
    response = [(b"last-modified", A_SECOND_EARLIER), (b"date", DATE)]
    assert if_range_holds([(b"if-range", A_SECOND_EARLIER)], response, received=0.0)


@pytest.mark.parametrize(("after", "holds"), [(0.9, False), (1.0, True)])
def test_without_date_it_counts_when_the_response_came(after: float, holds: bool) -> None:
    response = [(b"last-modified", DATE)]
    assert if_range_holds([(b"if-range", DATE)], response, received=DATE_SECONDS + after) is holds


def test_without_if_range_nothing_is_asked_and_two_of_them_are_none() -> None:
    assert if_range_holds([(b"range", b"bytes=0-")], [], received=NOW)
    assert not if_range_holds([(b"if-range", b'"a"')] * 2, [(b"etag", b'"a"')], received=NOW)


# ---- field lines ----


def test_a_304_leaves_out_what_describes_the_content() -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
        (b"last-modified", DATE),
        (b"content-location", b"/a"),
        (b"etag", b'"a"'),
        (b"cache-control", b"max-age=5"),
        (b"expires", LATER),
        (b"date", DATE),
        (b"vary", b"accept"),
        (b"age", b"3"),
        (b"cache-status", b"tiercache; hit"),
    ]
    assert [name.decode() for name, _ in not_modified_headers(headers)] == [
        "content-location",
        "etag",
        "cache-control",
        "expires",
        "date",
        "vary",
        "age",
        "cache-status",
    ]


def test_a_304_without_entity_tag_says_by_its_date_which_response_is_meant() -> None:
    headers = [(b"content-type", b"text/plain"), (b"last-modified", DATE)]
    assert not_modified_headers(headers) == [(b"last-modified", DATE)]


@given(st.binary(), st.binary(), st.binary(), st.binary(), st.binary())
def test_any_bytes_at_all_give_an_answer(tag: bytes, asked: bytes, since: bytes, modified: bytes, date: bytes) -> None:
    request = [*none_match(asked), *modified_since(since), (b"if-range", asked)]
    response = [(b"etag", tag), (b"last-modified", modified), (b"date", date)]
    for lines in (request, request[1:]):
        assert not_modified(lines, 200, response, received=NOW) in (True, False)
    assert if_range_holds(request, response, received=NOW) in (True, False)
