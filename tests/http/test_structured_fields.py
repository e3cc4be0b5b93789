"""Dictionaries and lists of RFC 9651, and texts written as its Tokens and Strings."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.structured import (
    MAX_BYTES,
    BareItem,
    Date,
    DisplayString,
    InnerList,
    Item,
    Member,
    Token,
    parse_dictionary,
    parse_list,
    serialise_text,
)


def _bare(text: str) -> BareItem:
    members = parse_dictionary(b"a=" + text.encode())
    assert members is not None, text
    assert isinstance(members["a"], Item)
    return members["a"].value


def test_the_dictionary_examples_of_rfc_9651_section_3_2() -> None:
    assert parse_dictionary(b'en="Applepie", da=:w4ZibGV0w6ZydGU=:') == {
        "en": Item("Applepie", {}),
        "da": Item("Æbletærte".encode(), {}),
    }
    assert parse_dictionary(b"a=?0, b, c; foo=bar") == {
        "a": Item(False, {}),
        "b": Item(True, {}),
        "c": Item(True, {"foo": Token("bar")}),
    }
    assert parse_dictionary(b"rating=1.5, feelings=(joy sadness)") == {
        "rating": Item(Decimal("1.5"), {}),
        "feelings": InnerList((Item(Token("joy"), {}), Item(Token("sadness"), {})), {}),
    }
    assert parse_dictionary(b"a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid") == {
        "a": InnerList((Item(1, {}), Item(2, {})), {}),
        "b": Item(3, {}),
        "c": Item(4, {"aa": Token("bb")}),
        "d": InnerList((Item(5, {}), Item(6, {})), {"valid": True}),
    }


def test_an_empty_field_is_an_empty_dictionary() -> None:
    assert parse_dictionary(b"") == parse_dictionary(b"   ") == {}


def test_the_last_of_several_members_or_parameters_counts() -> None:
    assert parse_dictionary(b"a=1, b, a=2;x=1;x=2") == {"a": Item(2, {"x": 2}), "b": Item(True, {})}


def test_blanks_are_allowed_where_the_grammar_has_them() -> None:
    assert parse_dictionary(b"  a=1;  x \t,\t b=( 1   2 )  ") == {
        "a": Item(1, {"x": True}),
        "b": InnerList((Item(1, {}), Item(2, {})), {}),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0042", -42),
        ("999999999999999", 999_999_999_999_999),
        ("-1.250", Decimal("-1.25")),
        ("999999999999.999", Decimal("999999999999.999")),
        (r'"a\"b\\c"', 'a"b\\c'),
        ('""', ""),
        ("*foo/bar:1", "*foo/bar:1"),
        ("::", b""),
        (":aGVsbG8:", b"hello"),
        ("?1", True),
        ("?0", False),
        ("@1659578233", 1_659_578_233),
        ("@-1", -1),
        ("@999999999999999", 999_999_999_999_999),
        ('%"This is intended for display to %c3%bcsers."', "This is intended for display to üsers."),
    ],
)
def test_bare_items(text: str, value: BareItem) -> None:
    assert _bare(text) == value


def test_items_that_look_alike_differ_in_type() -> None:
    types = [type(_bare(text)) for text in ('"a"', "a", '%"a"', "1", "@1", "?1", "1.0", ":YQ==:")]
    assert types == [str, Token, DisplayString, int, Date, bool, Decimal, bytes]


@pytest.mark.parametrize(
    "text",
    [
        "a=1,",
        "a=1, ",
        ",a=1",
        "a=1,,b",
        "a=1 b=2",
        "a 1",
        "A=1",
        "1a",
        "=1",
        "a=",
        "a= 1",
        "a =1",
        "\ta=1",
        "a=1;",
        "a=1;X",
        "a=1 ;x",
        "a=-",
        "a=--1",
        "a=1.",
        "a=.5",
        "a=1.2345",
        "a=1.2.3",
        "a=1000000000000000",
        "a=1234567890123.1",
        'a="',
        'a="b',
        r'a="\n"',
        'a="\x7f"',
        'a="\t"',
        'a="ü"',
        "a=:YQ",
        "a=:Y:",
        "a=:Y-Q=:",
        "a=:YQ=x:",
        "a=:YQ==YQ==:",
        "a=?2",
        "a=?",
        "a=@",
        "a=@1.5",
        "a=(@12.5)",
        "a=@1000000000000000",
        'a=%"%C3"',
        'a=%"%zz"',
        'a=%"%c3"',
        "a=%x",
        "a=(1",
        "a=(1 2",
        "a=(1,2)",
        "a=(1(2))",
        'a=(1"x")',
        "a=()b",
        "a={}",
        "ü",
    ],
)
def test_what_the_grammar_does_not_have_fails_as_a_whole(text: str) -> None:
    assert parse_dictionary(text.encode("latin-1")) is None


def test_the_length_is_bounded_and_the_time_linear() -> None:
    before = time.process_time()
    assert parse_dictionary(b"a" * MAX_BYTES) is not None
    assert parse_dictionary(b"a" * (MAX_BYTES + 1)) is None
    for start, unit in ((b'a="', rb"\""), (b"a=(", b"1 "), (b"a", b";b"), (b"a=@", b"1"), (b"a, b", b", c")):
        parse_dictionary(start + unit * ((MAX_BYTES - len(start)) // len(unit)))
    assert time.process_time() - before < 5


@given(st.binary(max_size=60) | st.text('ab1=;,:?@%"\\() .-*', max_size=30).map(str.encode))
def test_no_bytes_make_the_parser_raise(value: bytes) -> None:
    members = parse_dictionary(value)
    assert members is None or all(isinstance(member, Item | InnerList) for member in members.values())


KEYS = st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,6}", fullmatch=True)
BARE_ITEMS: st.SearchStrategy[BareItem] = st.one_of(
    st.booleans(),
    st.integers(-999_999_999_999_999, 999_999_999_999_999),
    st.decimals(-999_999_999_999, 999_999_999_999, places=3),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8),
    st.from_regex(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]{0,6}", fullmatch=True).map(Token),
    st.binary(max_size=8),
    st.integers(-(10**14), 10**14).map(Date),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(DisplayString),
)
PARAMETERS = st.dictionaries(KEYS, BARE_ITEMS, max_size=2)
ITEMS = st.builds(Item, BARE_ITEMS, PARAMETERS)
MEMBERS: st.SearchStrategy[Member] = ITEMS | st.builds(InnerList, st.lists(ITEMS, max_size=3).map(tuple), PARAMETERS)


@given(st.dictionaries(KEYS, MEMBERS, max_size=3))
def test_a_dictionary_that_is_written_down_comes_back(members: dict[str, Member]) -> None:
    text = ", ".join(f"{key}={_write(member)}" for key, member in members.items())
    assert parse_dictionary(text.encode("ascii")) == members


def _write(member: Member) -> str:
    if isinstance(member, InnerList):
        return f"({' '.join(map(_write, member.items))})" + _write_parameters(member)
    return _write_bare(member.value) + _write_parameters(member)


def _write_parameters(member: Member) -> str:
    return "".join(f";{key}={_write_bare(value)}" for key, value in member.parameters.items())


def _write_bare(value: BareItem) -> str:
    return _WRITERS[type(value)](value)


_WRITERS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: f"?{value:d}",
    int: str,
    Date: lambda value: f"@{int(value)}",
    Decimal: lambda value: f"{value:f}",
    str: lambda value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"',
    Token: str,
    DisplayString: lambda value: '%"' + "".join(f"%{byte:02x}" for byte in value.encode()) + '"',
    bytes: lambda value: f":{base64.b64encode(value).decode()}:",
}


# ---- lists ----


def test_the_list_examples_of_rfc_9651_section_3_1() -> None:
    assert parse_list(b"sugar, tea, rum") == [Item(Token(each), {}) for each in ("sugar", "tea", "rum")]
    assert parse_list(b'("foo" "bar"), ("baz"), ("bat" "one"), ()') == [
        InnerList((Item("foo", {}), Item("bar", {})), {}),
        InnerList((Item("baz", {}),), {}),
        InnerList((Item("bat", {}), Item("one", {})), {}),
        InnerList((), {}),
    ]
    assert parse_list(b'("foo"; a=1;b=2);lvl=5, ("bar" "baz");lvl=1') == [
        InnerList((Item("foo", {"a": 1, "b": 2}),), {"lvl": 5}),
        InnerList((Item("bar", {}), Item("baz", {})), {"lvl": 1}),
    ]
    assert parse_list(b'abc;a=1;b=2; cde_456, (ghi;jk=4 l);q="9";r=w') == [
        Item(Token("abc"), {"a": 1, "b": 2, "cde_456": True}),
        InnerList((Item(Token("ghi"), {"jk": 4}), Item(Token("l"), {})), {"q": "9", "r": Token("w")}),
    ]


def test_an_empty_field_is_an_empty_list_and_members_may_repeat() -> None:
    assert parse_list(b"") == parse_list(b"  ") == []
    assert parse_list(b' 1 \t,\t 1, "1" ') == [Item(1, {}), Item(1, {}), Item("1", {})]


@pytest.mark.parametrize(
    "text", [",", "a,", "a, ", ",a", "a,,b", "a b", '"a', '"a""b"', "a=1", "a;", "(a", "a;A", "ü", "-", '"\\n"']
)
def test_a_list_that_the_grammar_does_not_have_fails_as_a_whole(text: str) -> None:
    assert parse_list(b"x, " + text.encode("latin-1")) is None
    assert parse_list(text.encode("latin-1")) is None


def test_a_long_list_takes_linear_time_and_a_longer_one_none() -> None:
    before = time.process_time()
    members = parse_list(b"a" + b",a" * (MAX_BYTES // 2 - 1))
    assert members is not None
    assert len(members) == MAX_BYTES // 2
    assert parse_list(b"a" * (MAX_BYTES + 1)) is None
    for start, unit in ((b'"', rb"\""), (b"(", b"1 "), (b"a", b";b"), (b"", b'"'), (b"a", b" \t")):
        parse_list(start + unit * ((MAX_BYTES - len(start)) // len(unit)))
    assert time.process_time() - before < 5


@given(st.binary(max_size=60) | st.text('ab1=;,:?@%"\\() .-*', max_size=30).map(str.encode))
def test_no_bytes_make_the_list_parser_raise(value: bytes) -> None:
    members = parse_list(value)
    assert members is None or all(isinstance(member, Item | InnerList) for member in members)


@given(st.lists(MEMBERS, max_size=4))
def test_a_list_that_is_written_down_comes_back(members: list[Member]) -> None:
    assert parse_list(", ".join(map(_write, members)).encode("ascii")) == members


# ---- texts ----


def test_a_text_is_written_as_a_token_where_it_is_one() -> None:
    assert serialise_text("L1") == "L1"
    assert serialise_text("set-cookie") == "set-cookie"
    assert serialise_text("") == '""'
    assert serialise_text("1st") == '"1st"'
    assert serialise_text('say "a\\b"') == r'"say \"a\\b\""'
    assert serialise_text("naïve\r\nx: y") == '"na?ve??x: y"'


@given(st.text(max_size=20))
def test_any_text_can_be_written(text: str) -> None:
    value = _bare(serialise_text(text))
    assert isinstance(value, str)
    assert len(value) == len(text)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20))
def test_a_printable_text_comes_back(text: str) -> None:
    assert _bare(serialise_text(text)) == text
