"""What a request asks of a cache, and which stored responses satisfy it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.reuse import NO_DIRECTIVES, RequestDirectives


def _parse(line: str) -> RequestDirectives:
    return RequestDirectives.parse([(b"Cache-Control", line.encode())])


def test_a_request_that_asks_for_nothing_takes_every_fresh_answer() -> None:
    assert RequestDirectives.parse([(b"host", b"a"), (b"cookie", b"no-cache")]) is NO_DIRECTIVES
    assert NO_DIRECTIVES.accepts(age=59.9, lifetime=60)
    assert not NO_DIRECTIVES.no_store
    assert not NO_DIRECTIVES.only_if_cached


def test_all_directives_are_read() -> None:
    line = "No-Cache, no-store, only-if-cached, max-age=5, min-fresh=7, max-stale=8, Stale-If-Error=9, no-transform, x"
    assert _parse(line) == RequestDirectives(
        no_cache=True, no_store=True, only_if_cached=True, max_age=5, min_fresh=7, max_stale=8, stale_if_error=9
    )


def test_a_quoted_argument_is_an_argument() -> None:
    line = 'max-age="5", min-fresh="7", max-stale="8", stale-if-error="9"'
    assert _parse(line) == RequestDirectives(max_age=5, min_fresh=7, max_stale=8, stale_if_error=9)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("max-stale", math.inf),
        ("max-stale, max-stale", math.inf),
        ("max-stale=0", 0),
        ("max-stale=010", 10),
        ("max-stale=99999999999999999999", 2**31),
        ("max-stale=10, max-stale=5", 5),
        ("max-stale, max-stale=5", 5),
        ("max-stale=", None),
        ('max-stale=""', None),
        ("max-stale=x", None),
        ("max-stale=-1", None),
        ("max-stale=1.5", None),
        ("max-stale=5, max-stale=x", None),
        ("max-stale, max-stale=x", None),
    ],
)
def test_max_stale_permits_what_it_says_and_malformed_nothing(line: str, seconds: float | None) -> None:
    assert _parse(line).max_stale == seconds


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("stale-if-error=60", 60),
        ("stale-if-error=60, stale-if-error=30", 30),
        ("stale-if-error", None),
        ("stale-if-error=x", None),
        ("stale-if-error, stale-if-error=60", None),
    ],
)
def test_stale_if_error_permits_nothing_without_a_number(line: str, seconds: float | None) -> None:
    assert _parse(line).stale_if_error == seconds


def test_of_several_demands_the_strictest_counts() -> None:
    directives = _parse("min-fresh=5, min-fresh=10, min-fresh=x, max-age=5, max-age=10")
    assert directives.min_fresh == 10
    assert directives.max_age == 0
    assert _parse("min-fresh=x").min_fresh == 0


def test_no_cache_takes_no_stored_answer() -> None:
    assert not _parse("no-cache").accepts(age=0, lifetime=60)


def test_no_store_and_only_if_cached_take_what_is_stored() -> None:
    assert _parse("no-store, only-if-cached").accepts(age=1, lifetime=60)


def test_max_age_bounds_the_age() -> None:
    assert _parse("max-age=5").accepts(age=5, lifetime=60)
    assert not _parse("max-age=5").accepts(age=5.1, lifetime=60)
    assert not _parse("max-age=0").accepts(age=0.1, lifetime=60)


def test_min_fresh_bounds_what_is_left() -> None:
    assert _parse("min-fresh=10").accepts(age=50, lifetime=60)
    assert not _parse("min-fresh=10").accepts(age=50.1, lifetime=60)


def test_a_max_age_that_is_invalid_asks_for_the_newest() -> None:
    assert not _parse("max-age=x").accepts(age=1, lifetime=60)


def test_pragma_counts_where_there_is_no_cache_control() -> None:
    assert RequestDirectives.parse([(b"Pragma", b"x, No-Cache")]).no_cache
    assert RequestDirectives.parse([(b"pragma", b"x")]) is NO_DIRECTIVES


@pytest.mark.parametrize("line", [b"", b"max-age=5"])
def test_pragma_does_not_count_beside_cache_control(line: bytes) -> None:
    assert not RequestDirectives.parse([(b"pragma", b"no-cache"), (b"cache-control", line)]).no_cache


@given(st.lists(st.tuples(st.sampled_from([b"cache-control", b"Pragma", b"x"]), st.binary(max_size=40)), max_size=4))
def test_no_bytes_make_the_parser_raise(headers: list[tuple[bytes, bytes]]) -> None:
    directives = RequestDirectives.parse(headers)
    assert directives.accepts(age=0, lifetime=2**31) is not directives.no_cache
    assert directives.max_stale is None or directives.max_stale >= 0
    assert directives.stale_if_error is None or 0 <= directives.stale_if_error <= 2**31
