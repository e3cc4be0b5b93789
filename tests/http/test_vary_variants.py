"""Which requests share a variant."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.vary import normalise, variant, vary_names

LISTS = pytest.mark.parametrize("name", ["accept", "accept-charset", "accept-encoding", "accept-language"])


def _encoding(value: str) -> bytes:
    return normalise("accept-encoding", value.encode())


def test_vary_names_are_gathered_over_all_lines() -> None:
    assert vary_names([(b"Vary", b"Origin, accept"), (b"vary", b"ACCEPT,,cookie")]) == ("accept", "cookie", "origin")
    assert vary_names([(b"x", b"y")]) == vary_names([(b"vary", b"")]) == ()


@pytest.mark.parametrize("value", [b"*", b"accept, *", b"*,accept", b"accept encoding", b'"accept"', b"accept:"])
def test_no_request_matches_a_star_or_what_is_no_field_name(value: bytes) -> None:
    assert vary_names([(b"vary", b"origin"), (b"vary", value)]) is None


def test_a_star_on_any_line_matches_no_request() -> None:
    assert vary_names([(b"vary", b"*"), (b"vary", b"origin")]) is None
    assert vary_names([(b"vary", b"origin"), (b"VARY", b"accept,\t*\t,")]) is None
    assert vary_names([(b"vary", b"x-*")]) == ("x-*",)  # a name like others: `*` may be part of a token


def test_empty_members_of_vary_name_nothing() -> None:
    assert vary_names([(b"vary", b" , ,"), (b"vary", b"")]) == ()


def test_an_absent_field_is_unlike_an_empty_one() -> None:
    for name in ("accept-encoding", "accept", "origin"):
        assert normalise(name, None) != normalise(name, b"")


def test_neither_order_nor_case_nor_spelling_splits_accept_encoding() -> None:
    codings = ("gzip", "br;q=0.8", "zstd; q=1.0", "deflate;Q=0.001")
    assert len({_encoding(", ".join(order)) for order in permutations(codings)}) == 1
    assert _encoding("GZIP,br;q=1.") == _encoding("br , gzip")
    assert _encoding("br\t;\tq=0.500") == _encoding("br;q=0.5")


def test_preferences_split_accept_encoding() -> None:
    # The handler may choose by them: what it chose for one is not known to be what it chooses for the other.
    values = ("gzip, br", "gzip;q=0.5, br", "gzip, br;q=0.5", "gzip;q=0.5, br;q=0.5", "gzip;q=0.51, br;q=0.5")
    assert len(set(map(_encoding, values))) == len(values)


def test_different_codings_split_accept_encoding() -> None:
    values = ("", "gzip", "br", "br, gzip", "zstd", "deflate", "*", "identity;q=0", "*;q=0", "gzip, *")
    assert len(set(map(_encoding, values))) == len(values)


def test_identity_alone_says_what_nothing_says() -> None:
    assert _encoding("identity") == _encoding("IDENTITY;q=1") == _encoding("")
    values = ("gzip", "gzip, identity", "gzip, identity;q=0", "gzip, *;q=0", "gzip, identity, *;q=0", "identity;q=0")
    assert len(set(map(_encoding, values))) == len(values)


def test_a_coding_that_is_refused_is_not_accepted() -> None:
    for weight in ("0", "0.", "0.0", "0.000"):
        assert _encoding(f"gzip;q={weight}") == _encoding("gzip;q=0")
        assert _encoding(f"gzip;q={weight}, br") not in (_encoding("gzip, br"), _encoding("br"))


def test_codings_that_are_not_usual_keep_their_names() -> None:
    assert len(set(map(_encoding, ("gzip", "gzip, dcb", "gzip, dcz", "gzip, x-dcb")))) == 4


def test_aliases_of_rfc_9110_section_8_4_1_are_the_same_coding() -> None:
    assert _encoding("x-gzip, X-Compress") == _encoding("compress, gzip")


def test_a_weight_that_is_none_splits() -> None:
    assert len(set(map(_encoding, ("gzip", "gzip;q=2", "gzip;q=", "gzip;x")))) == 4


def test_case_and_blanks_do_not_split_languages_and_charsets() -> None:
    assert normalise("accept-language", b"en-US ,\tde;q=0.5,") == normalise("accept-language", b"EN-us,de;q=0.5")
    assert normalise("accept-charset", b"UTF-8, x") == normalise("accept-charset", b"utf-8,X")
    assert normalise("accept-language", b"en, de;Q=0.50") == normalise("accept-language", b"EN;q=1,de ; q=0.5")
    assert normalise("accept-language", b"en, de") != normalise("accept-language", b"de, en")
    assert normalise("accept-language", b"en, de") != normalise("accept-language", b"en, de;q=0.5")
    assert normalise("accept-language", b"en;x, de") != normalise("accept-language", b"en, de")


def test_case_counts_in_the_parameters_of_media_ranges_only() -> None:
    assert normalise("accept", b"Text/HTML ; a=B , */*") == normalise("accept", b"text/html;a=B,*/*")
    assert normalise("accept", b"text/html;a=B") != normalise("accept", b"text/html;a=b")


def test_blanks_do_not_split_media_ranges_unless_they_are_quoted() -> None:
    assert normalise("accept", b"text/html;a=B ; q=0.5") == normalise("accept", b"text/html ;a=B;q=0.5")
    assert normalise("accept", b'Text/HTML ; a="b"') == normalise("accept", b'text/html;a="b"')
    assert normalise("accept", b'text/html;a="b ; c"') != normalise("accept", b'text/html;a="b;c"')
    assert normalise("accept", b"text/html, a/b") != normalise("accept", b"a/b, text/html")


def test_a_value_of_blanks_takes_linear_time() -> None:
    for name in ("accept", "accept-encoding", "accept-language"):
        assert normalise(name, b"a" + b" " * 100_000 + b"b").endswith(b"b")


def test_other_fields_are_only_stripped() -> None:
    assert normalise("origin", b" https://a \t") == normalise("origin", b"https://a")
    assert normalise("x-key", b"A") != normalise("x-key", b"a")
    assert normalise("x-key", b"a,b") != normalise("x-key", b"a, b")


def test_long_values_are_normalised_like_short_ones() -> None:
    many = ", ".join(f"c{number}" for number in range(100))
    assert _encoding(f"gzip, {many}") == _encoding(f"{many},GZIP;q=1.0")


@LISTS
@given(st.binary(max_size=40) | st.text('gzip;q=01., *"', max_size=30).map(str.encode))
def test_any_bytes_are_normalised_and_stay_so(name: str, value: bytes) -> None:
    once = normalise(name, value)
    assert once.startswith(b"=")
    assert normalise(name, value) == once
    assert normalise(name, b" " + value + b"\t") == once


def test_several_lines_are_one_value() -> None:
    split = [(b"Accept-Encoding", b"gzip"), (b"x", b"y"), (b"accept-encoding", b"br")]
    assert variant(("accept-encoding",), split) == variant(("accept-encoding",), [(b"accept-encoding", b"br, gzip")])


def test_no_value_passes_for_the_field_behind_it() -> None:
    one = variant(("a", "b"), [(b"a", b"xb=y")])
    other = variant(("a", "b"), [(b"a", b"x"), (b"b", b"yb")])
    assert one != other


def test_only_the_named_fields_count() -> None:
    headers = [(b"origin", b"a"), (b"x", b"1")]
    assert variant(("origin",), headers) == variant(("origin",), iter([(b"x", b"2"), (b"origin", b"a")]))
    assert variant(("origin",), headers) != variant(("origin",), [(b"origin", b"b")])


def test_different_fields_with_the_same_value_are_different_variants() -> None:
    headers = [(b"a", b"1"), (b"b", b"1")]
    assert variant(("a",), headers) != variant(("b",), headers)


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=6), st.none() | st.binary(max_size=6)), min_size=2, max_size=2)
)
def test_values_never_run_into_each_other(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    def headers(pair: tuple[bytes | None, bytes | None]) -> list[tuple[bytes, bytes]]:
        return [(name, value) for name, value in zip((b"a", b"b"), pair, strict=True) if value is not None]

    def meaning(pair: tuple[bytes | None, bytes | None]) -> list[bytes | None]:
        return [None if value is None else value.strip(b" \t") for value in pair]

    first, second = pairs
    same = variant(("a", "b"), headers(first)) == variant(("a", "b"), headers(second))
    assert same is (meaning(first) == meaning(second))
