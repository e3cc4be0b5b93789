"""Finding field lines, taking lists apart, choosing what is stored."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.fields import elements, storable_headers, values, with_downstream

HEADERS = (
    (b"content-type", b"text/plain"),
    (b"cache-control", b"max-age=60"),
    (b"expires", b"Thu, 01 Dec 1994 16:00:00 GMT"),
    (b"pragma", b"no-cache"),
    (b"etag", b'"v1"'),
)


def _list(*lines: bytes) -> list[str]:
    return elements([(b"x-list", line) for line in lines], b"x-list")


def test_names_match_in_any_case_and_all_lines_are_found_in_order() -> None:
    headers = [(b"Vary", b"accept"), (b"varx", b"no"), (b"VARY", b" origin\t")]
    assert values(headers, b"vary") == [b"accept", b"origin"]


def test_the_list_examples_of_rfc_9110_section_5_6_1_2() -> None:
    assert _list(b"foo,bar") == ["foo", "bar"]
    assert _list(b"foo ,bar,") == ["foo", "bar"]
    assert _list(b"foo , ,bar,charlie") == ["foo", "bar", "charlie"]
    assert _list(b"") == _list(b",") == _list(b",   ,") == []


def test_members_are_gathered_over_all_lines() -> None:
    assert _list(b"a, b", b"", b"c") == ["a", "b", "c"]


def test_commas_in_quoted_strings_do_not_separate() -> None:
    assert _list(b'private="a, b", max-age=1') == ['private="a, b"', "max-age=1"]
    assert _list(rb'x="a\", no-store", y') == [r'x="a\", no-store"', "y"]


def test_a_quoted_string_without_end_hides_nothing() -> None:
    assert _list(b'x="a, no-store') == ['x="a', "no-store"]
    assert _list(b'x="a', b'no-store, y="') == ['x="a', "no-store", 'y="']


def test_a_quote_without_end_leaves_the_quoted_strings_before_it_whole() -> None:
    assert _list(b'x="a, public"y", b') == ['x="a, public"y"', "b"]


def test_lists_take_linear_time() -> None:
    hostile = b'"' + rb"\"," * 200_000
    before = time.process_time()
    assert len(_list(hostile)) == 200_000
    assert time.process_time() - before < 5


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_a_list_of_trimmed_members(lines: list[bytes]) -> None:
    members = _list(*lines)
    assert all(member and member == member.strip(" \t") for member in members)


@given(st.lists(st.text("abc=-0", min_size=1), max_size=6), st.sampled_from([b",", b", ", b" ,\t, "]))
def test_joined_members_come_back(members: list[str], separator: bytes) -> None:
    assert _list(separator.join(member.encode() for member in members)) == members


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=40)), max_size=5))
def test_any_field_lines_can_be_filtered_for_storing(headers: list[tuple[bytes, bytes]]) -> None:
    assert len(storable_headers(headers)) <= len(headers)


def test_what_belongs_to_the_connection_is_not_stored() -> None:
    headers = [
        (b"Connection", b"close, X-Hop"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"close"),
        (b"TE", b"trailers"),
        (b"Trailer", b"x-sum"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
        (b"x-hop", b"named by Connection"),
        (b"X-Kept", b"1"),
    ]
    assert storable_headers(headers) == ((b"x-kept", b"1"),)


def test_age_and_the_fields_of_the_proxy_are_not_stored() -> None:
    names = (b"age", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization")
    assert storable_headers([(name, b"1") for name in names]) == ()


def test_connection_names_fields_in_any_case_on_several_lines() -> None:
    headers = [(b"connection", b" X-One ,, "), (b"CONNECTION", b'"x-three", x-two'), (b"X-ONE", b"1"), (b"x-two", b"2")]
    kept = [(b"x-three", b"3"), (b"cache-control", b"max-age=60")]
    assert storable_headers([*headers, *kept]) == tuple(kept)


def test_fields_that_must_not_be_stored_are_left_out() -> None:
    headers = [(b"Set-Cookie", b"a=b"), (b"x-kept", b"1"), (b"set-cookie", b"c=d"), (b"Connection", b"x-hop")]
    assert storable_headers(headers, frozenset({b"set-cookie", b"x-absent"})) == ((b"x-kept", b"1"),)
    assert (b"set-cookie", b"a=b") in storable_headers(headers)


def test_the_cache_status_of_a_cache_behind_us_is_stored() -> None:
    headers = ((b"cache-status", b"origin; hit"), (b"server-timing", b"db;dur=5"), (b"x-request-id", b"1"))
    assert storable_headers(headers) == headers


def test_everything_else_is_stored_in_order_with_lower_case_names() -> None:
    headers = [(b"X-Unknown", b"B"), (b"Date", b"x"), (b"Set-Cookie", b"a=b"), (b"x-unknown", b"A")]
    assert storable_headers(headers) == tuple((name.lower(), value) for name, value in headers)


def test_downstream_keep_changes_nothing() -> None:
    assert with_downstream(HEADERS, "keep") == HEADERS


def test_downstream_remove_says_nothing_about_caching() -> None:
    assert with_downstream(HEADERS, "remove") == ((b"content-type", b"text/plain"), (b"etag", b'"v1"'))


def test_a_downstream_value_takes_the_place_of_all_three_fields() -> None:
    replaced = with_downstream(HEADERS, "no-cache, private")
    assert replaced == ((b"content-type", b"text/plain"), (b"etag", b'"v1"'), (b"cache-control", b"no-cache, private"))
