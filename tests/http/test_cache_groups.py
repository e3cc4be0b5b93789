"""`Cache-Groups` and `Cache-Group-Invalidation` as the fields are read (RFC 9875)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.groups import groups, invalidated_groups

TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


def _written(texts: list[str]) -> bytes:
    return ", ".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts).encode()


def test_a_response_belongs_to_the_groups_that_it_names() -> None:
    assert groups([(b"content-type", b"text/css"), (b"Cache-Groups", b'"styles", "all"')]) == ("styles", "all")
    assert groups([]) == groups([(b"cache-groups", b"")]) == ()


def test_several_lines_are_one_list_and_a_group_counts_once() -> None:
    lines = [(b"cache-groups", b'"a","b"'), (b"x", b"y"), (b"cache-groups", b' "c", "a" ')]
    assert groups(lines) == ("a", "b", "c")


def test_parameters_mean_nothing() -> None:
    assert groups([(b"cache-groups", b'"a";revalidate;x="b", "c";q=0')]) == ("a", "c")


def test_groups_are_told_apart_by_case() -> None:
    assert groups([(b"cache-groups", b'"a", "A"')]) == ("a", "A")


@pytest.mark.parametrize(
    "malformed",
    [b'"b', b"token", b"1", b"?1", b":YQ==:", b'%"b"', b"@1", b'("b")', b'"b",', b'"b" "c"', b"'b'", b'"\xc3\xbc"'],
)
def test_a_field_that_is_no_list_of_strings_is_ignored_as_a_whole(malformed: bytes) -> None:
    assert groups([(b"cache-groups", b'"a", ' + malformed)]) == ()
    assert groups([(b"cache-groups", b'"a"'), (b"cache-groups", malformed)]) == ()
    assert invalidated_groups([(b"cache-group-invalidation", malformed)]) == ()


def test_the_two_fields_are_not_taken_for_each_other() -> None:
    lines = [(b"cache-groups", b'"a"'), (b"cache-group-invalidation", b'"b"')]
    assert groups(lines) == ("a",)
    assert invalidated_groups(lines) == ("b",)


@given(st.lists(TEXTS, min_size=32, max_size=40, unique=True))
def test_more_groups_and_longer_ones_than_every_cache_has_to_take_are_read(texts: list[str]) -> None:
    assert groups([(b"cache-groups", _written(texts))]) == tuple(texts)


@given(st.lists(st.binary(max_size=30) | st.text('ab1=;,:?@%"\\() .-*', max_size=30).map(str.encode), max_size=3))
def test_nothing_makes_reading_them_raise(lines: list[bytes]) -> None:
    assert all(isinstance(group, str) for group in groups([(b"cache-groups", line) for line in lines]))
