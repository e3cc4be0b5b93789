"""Conditions on a response that is at hand (RFC 9110, section 13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.conditional import has_validator, is_conditional, not_modified, not_modified_headers
from asgi_tiercache.types import Header

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = b"Sat, 05 Nov 1994 08:49:37 GMT"
LATER = b"Mon, 07 Nov 1994 08:49:37 GMT"


def none_match(*values: bytes) -> list[Header]:
    return [(b"if-none-match", value) for value in values]


@pytest.mark.parametrize(
    ("etag", "asked", "met"),
    [
        (b'"a"', [b'"a"'], True),
        (b'"a"', [b'"b"'], False),
        (b'"a"', [b'"b", "a"'], True),
        (b'"a"', [b'"b"', b'"a"'], True),
        (b'W/"a"', [b'"a"'], True),  # the weak comparison, section 8.8.3.2
        (b'"a"', [b'W/"a"'], True),
        (b'"a"', [b"*"], True),
        (b'"a, b"', [b'"a, b"'], True),
        (b'"a"', [b"a"], False),
        (b'"a"', [b""], False),
    ],
)
def test_an_entity_tag_is_compared_weakly_with_each_of_a_list(etag: bytes, asked: list[bytes], met: bool) -> None:
    assert not_modified(none_match(*asked), 200, [(b"etag", etag)]) is met


@pytest.mark.parametrize(("since", "met"), [(EARLIER, False), (DATE, True), (LATER, True), (b"yesterday", False)])
def test_a_date_is_met_by_what_is_no_newer(since: bytes, met: bool) -> None:
    assert not_modified([(b"if-modified-since", since)], 200, [(b"last-modified", DATE)]) is met


def test_where_an_entity_tag_is_asked_for_the_date_does_not_count() -> None:
    request = [*none_match(b'"b"'), (b"if-modified-since", LATER)]
    assert not not_modified(request, 200, [(b"etag", b'"a"'), (b"last-modified", DATE)])


@pytest.mark.parametrize("status", [203, 301, 404, 500])
def test_only_a_200_has_a_condition_to_fail(status: int) -> None:
    assert not not_modified(none_match(b'"a"'), status, [(b"etag", b'"a"')])


def test_two_dates_or_two_entity_tags_are_none() -> None:
    twice = [(b"if-modified-since", DATE), (b"if-modified-since", DATE)]
    assert not not_modified(twice, 200, [(b"last-modified", DATE)])
    assert not not_modified(none_match(b'"a"'), 200, [(b"etag", b'"a"'), (b"etag", b'"a"')])


def test_a_304_leaves_out_what_describes_the_content() -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
        (b"last-modified", DATE),
        (b"content-location", b"/a"),
        (b"etag", b'"a"'),
        (b"cache-control", b"max-age=5"),
        (b"age", b"3"),
    ]
    assert [name for name, _ in not_modified_headers(headers)] == [
        b"content-location",
        b"etag",
        b"cache-control",
        b"age",
    ]


def test_what_has_a_validator_and_what_is_conditional() -> None:
    assert has_validator([(b"etag", b'"a"')])
    assert has_validator([(b"last-modified", DATE)])
    assert not has_validator([(b"date", DATE)])
    assert is_conditional([(b"if-none-match", b"*")])
    assert not is_conditional([(b"if-match", b"*"), (b"range", b"bytes=0-")])


@given(st.binary(), st.binary(), st.binary(), st.binary())
def test_any_bytes_at_all_give_an_answer(tag: bytes, asked: bytes, since: bytes, modified: bytes) -> None:
    request = [*none_match(asked), (b"if-modified-since", since)]
    response = [(b"etag", tag), (b"last-modified", modified)]
    assert not_modified(request, 200, response) in (True, False)
    assert not_modified(request[1:], 200, response) in (True, False)
