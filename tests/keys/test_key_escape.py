from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.keys.escape import MAX_ENDPOINT, digest, encoded, endpoint, escape, frame, qualified_name, shorten


@given(st.text(), st.text())
def test_different_texts_are_escaped_differently(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.binary(), st.binary())
def test_different_bytes_are_escaped_differently(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.binary())
def test_nothing_that_structures_a_key_survives_escaping(data: bytes) -> None:
    escaped = escape(data)
    assert not set(escaped) & set(":*?{}[]#\"'\\ \t\r\n\x00\x7f")
    assert escaped.isascii()


def test_escape_leaves_ordinary_paths_and_addresses_readable() -> None:
    assert escape("/videos/42-a_b.c~d") == "/videos/42-a_b.c~d"
    assert escape("ada@example.org") == "ada@example.org"
    assert escape("100%:*") == "100%25%3A%2A"


def test_a_lone_surrogate_is_escaped_and_not_an_error() -> None:
    assert escape("\ud800") == "%ED%A0%80"


@given(st.lists(st.binary(max_size=12), max_size=5), st.lists(st.binary(max_size=12), max_size=5))
def test_different_fields_are_framed_differently(one: list[bytes], other: list[bytes]) -> None:
    assert (frame(*one) == frame(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"ab", b""), (b"a", b"b")),
        ((b"1:a",), (b"1", b"a")),
        ((b"", b""), (b"",)),
        ((), (b"",)),
        ((b"a1:b",), (b"a", b"b")),
    ],
)
def test_fields_cannot_be_moved_across_a_frame(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    assert frame(*one) != frame(*other)


def test_a_long_path_is_cut_and_ends_in_its_hash() -> None:
    path = b"/" + b"a" * 400
    place = endpoint(path, hash_path=False)
    assert len(place) == MAX_ENDPOINT
    assert place.endswith("#" + digest(path))
    assert endpoint(path + b"b", hash_path=False) != place


def test_a_path_of_the_greatest_length_is_kept_whole() -> None:
    path = b"/" * MAX_ENDPOINT
    assert endpoint(path, hash_path=False) == path.decode()


def test_a_hashed_path_shows_nothing_of_the_path() -> None:
    place = endpoint("/reset/s3cr3t", hash_path=True)
    assert "s3cr3t" not in place
    assert place == endpoint(b"/reset/s3cr3t", hash_path=True)
    assert place != endpoint("/reset/other", hash_path=True)


@given(st.text(min_size=1))
def test_what_is_cut_cannot_be_spelled_by_a_client(sent: str) -> None:
    cut = shorten("a" * 50, 40, digest=lambda _: "h")
    assert cut == "a" * 38 + "#h"
    assert escape(sent) != cut
    assert escape(cut) != cut


def test_digest_is_the_xxh3_128_of_the_data() -> None:
    assert digest(b"") == "99aa06d3014798d86001c324468d497f"


def test_texts_that_are_no_valid_unicode_are_encoded() -> None:
    assert encoded("\udcff") == b"\xed\xb3\xbf"


class Source:
    def __call__(self) -> None: ...


def test_a_callable_is_named_without_its_address() -> None:
    assert qualified_name(Source().__call__).endswith("Source.__call__")
    assert qualified_name(Source()).endswith("test_key_escape.Source")
