"""`Cache-Control` and `CDN-Cache-Control`, well formed and otherwise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.directives import Directives, targeted


def _parse(*lines: str) -> Directives:
    return Directives.parse([(b"Cache-Control", line.encode("latin-1")) for line in lines])


def _targeted(*lines: str) -> Directives | None:
    return targeted([(b"CDN-Cache-Control", line.encode("latin-1")) for line in lines])


def test_directives_are_found_in_any_case_over_all_lines() -> None:
    directives = _parse("Public, MAX-AGE=60", "no-transform")
    assert all(name in directives for name in ("public", "max-age", "no-transform"))
    assert "no-store" not in directives
    assert directives.seconds("max-age") == 60
    assert directives.seconds("s-maxage") is None


def test_directives_come_from_the_field_that_is_named() -> None:
    headers = [(b"cache-control", b"no-store"), (b"x-control", b"max-age=1")]
    assert "no-store" not in Directives.parse(headers, b"x-control")
    assert Directives.parse(headers, b"x-control").seconds("max-age") == 1


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        ("0060", 60),
        ('"60"', 60),
        (r'"6\0"', 60),
        ("2147483648", 2**31),
        ("2147483649", 2**31),
        ("9" * 10_000, 2**31),
        ("0" * 10_000 + "7", 7),
    ],
)
def test_seconds(argument: str, seconds: int) -> None:
    assert _parse(f"max-age={argument}").seconds("max-age") == seconds


@pytest.mark.parametrize(
    "directive",
    [
        "max-age",
        "max-age=",
        'max-age=""',
        "max-age=-60",
        "max-age=+60",
        "max-age=60.5",
        "max-age=6e1",
        "max-age=a60",
        "max-age=60a",
        "max-age=60;x",
        "max-age=60 70",
        "max-age =60",
        "max-age= 60",
        "max-age='60'",
        'max-age=" 60"',
        'max-age="60',
        "max-age=\xb2",
        "max-age=60, max-age=70",
        "max-age=60, max-age=x",
    ],
)
def test_seconds_that_are_invalid_or_conflict_count_as_stale(directive: str) -> None:
    assert _parse(directive).seconds("max-age") == 0


def test_repeating_the_same_seconds_is_no_conflict() -> None:
    assert _parse("max-age=60", 'max-age="060"').seconds("max-age") == 60


def test_a_directive_in_a_quoted_string_is_none() -> None:
    directives = _parse('ext="max-age=60, \\", \\\n, public", no-transform')
    assert "max-age" not in directives
    assert "public" not in directives
    assert "no-transform" in directives


def test_a_quote_without_end_lets_nothing_out_of_the_quoted_string_before_it() -> None:
    directives = _parse('ext="a, public, max-age=60"x", no-transform')
    assert set(directives.arguments) == {"ext", "no-transform"}


@pytest.mark.parametrize(
    "line", ["No-Store x", "no-store;x", "no-store=1", 'no-store="', 'x="a, no-store', "no-store="]
)
def test_what_forbids_goes_on_forbidding_when_it_is_malformed(line: str) -> None:
    assert "no-store" in _parse(line)


@pytest.mark.parametrize("name", ["public", "must-revalidate", "must-understand"])
@pytest.mark.parametrize("line", ["{}=1", "{}=", '{}=""', "{} x", '"{}"', "={}", "'{}'", "{}x", "x {}", 'x="a, {}"'])
def test_what_permits_does_not_permit_when_it_is_malformed(line: str, name: str) -> None:
    assert not _parse(line.format(name)).grants(name)


def test_what_permits_does_so_where_it_is_well_formed() -> None:
    assert _parse("Public, s-maxage=1").grants("public")
    assert _parse("public=1", "public").grants("public")
    assert not _parse("").grants("public")


@pytest.mark.parametrize(
    ("line", "granted"),
    [
        ("s-maxage=0", True),
        ('S-MaxAge="60"', True),
        ("s-maxage=1, s-maxage=2", True),
        ("s-maxage", False),
        ("s-maxage=", False),
        ("s-maxage=-1", False),
        ("s-maxage=1, s-maxage=x", False),
        ("max-age=1", False),
    ],
)
def test_what_permits_with_a_number_of_seconds_needs_one(line: str, granted: bool) -> None:
    assert _parse(line).grants("s-maxage") is granted


@pytest.mark.parametrize("name", ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"])
def test_every_directive_with_seconds_permits_with_them_alone(name: str) -> None:
    assert _parse(f"{name}=0").grants(name)
    assert not _parse(name).grants(name)


def test_field_names_of_a_limited_directive() -> None:
    directives = _parse('private="Set-Cookie, X-User", no-cache=etag', 'private=" x-more ,"')
    assert directives.fields("private") == frozenset({"set-cookie", "x-user", "x-more"})
    assert directives.fields("no-cache") == frozenset({"etag"})
    assert directives.fields("no-store") is None


@pytest.mark.parametrize(
    "line",
    [
        "private",
        'private="a", private',
        'private=""',
        'private=", "',
        "private=",
        'private="a',
        'private="a b"',
        'private="a, b(c)"',
        'private="a;b"',
        'private="a\xe9"',
        r'private="a, \"b\""',
        "private='a'",
        "private='a, b'",
        'private="a"b',
        'private ="a"',
        'private="a", private="b c"',
    ],
)
def test_a_directive_without_field_names_is_unlimited(line: str) -> None:
    assert "private" in _parse(line)
    assert _parse(line).fields("private") is None


@given(st.lists(st.binary(max_size=60) | st.text('max-ge=0123",\\ ', max_size=30).map(str.encode), max_size=3))
def test_no_bytes_make_the_parsers_raise(lines: list[bytes]) -> None:
    for name in (b"cache-control", b"cdn-cache-control"):
        headers = [(name, line) for line in lines]
        directives = targeted(headers) or Directives.parse(headers, name)
        for directive in directives.arguments:
            assert 0 <= (directives.seconds(directive) or 0) <= 2**31
            assert directives.fields(directive) != frozenset()


@given(st.integers(0, 2**31), st.integers(0, 5), st.booleans())
def test_seconds_that_are_written_down_come_back(seconds: int, zeros: int, quoted: bool) -> None:
    digits = "0" * zeros + str(seconds)
    line = f'max-age="{digits}"' if quoted else f"max-age={digits}"
    assert _parse(line).seconds("max-age") == seconds


def test_ten_thousand_directives_take_linear_time() -> None:
    before = time.process_time()
    directives = _parse(", ".join(f"x{number % 7}={number}" for number in range(10_000)))
    assert directives.seconds("x1") == 0
    same = _parse(", ".join(["max-age=60", "public", 'private="a, b"'] * 10_000))
    assert (same.seconds("max-age"), same.fields("private")) == (60, frozenset({"a", "b"}))
    assert not same.grants("max-stale")
    assert time.process_time() - before < 5


def test_hostile_elements_take_linear_time() -> None:
    before = time.process_time()
    for line in ("a" * 500_000 + "@", "max-age=" + "9" * 500_000 + "@", 'private="' + "a," * 250_000 + '"@'):
        assert len(_parse(line).arguments) == 1
    names = 'private="' + ",".join(f"x{number}" for number in range(100_000)) + '"'
    assert len(_parse(names).fields("private") or ()) == 100_000
    assert time.process_time() - before < 5


def test_a_targeted_field_holds_directives() -> None:
    directives = _targeted("max-age=600, must-revalidate", 'private="a, b";x=1, no-cache="c"')
    assert directives is not None
    assert directives.seconds("max-age") == 600
    assert "must-revalidate" in directives
    assert directives.fields("private") == frozenset({"a", "b"})
    assert directives.fields("no-cache") == frozenset({"c"})


def test_an_extension_alone_makes_a_targeted_field_valid() -> None:
    assert _targeted("none") is not None  # the last example of RFC 9213, section 3.1


@pytest.mark.parametrize(
    "line", ["", "  ", "max-age=600,", "Max-Age=600", "max-age = 600", "max-age=600;", "max-age='1'"]
)
def test_a_targeted_field_that_is_empty_or_does_not_parse_is_ignored(line: str) -> None:
    assert _targeted(line) is None


def test_an_empty_line_among_others_does_not_parse() -> None:
    assert _targeted("max-age=600", "") is None  # RFC 9651, section 4.2.2: nothing may follow a comma
    assert _targeted("", "max-age=600") is None


def test_without_a_targeted_field_there_is_nothing_to_use() -> None:
    assert _targeted() is None


@pytest.mark.parametrize(
    "value",
    ['"600"', "600.0", "sixty", ":YQ==:", "(600)", "-600", "?1", "@600", '%"600"', "999999999999999;x, max-age"],
)
def test_targeted_seconds_of_the_wrong_type_are_not_consumed(value: str) -> None:
    directives = _targeted(f"max-age={value}")
    assert directives is not None
    assert directives.seconds("max-age") == 0


def test_targeted_seconds_are_clamped() -> None:
    directives = _targeted("max-age=999999999999999")
    assert directives is not None
    assert directives.seconds("max-age") == 2**31


def test_targeted_field_names_of_the_wrong_type_leave_the_directive_unlimited() -> None:
    for line in ("private=5", "private=token", 'private=("a" "b")'):
        directives = _targeted(line)
        assert directives is not None
        assert "private" in directives
        assert directives.fields("private") is None


def test_a_targeted_flag_counts_unless_it_is_false() -> None:
    directives = _targeted("no-store=?0, no-cache=?1, public, must-revalidate=1")
    assert directives is not None
    assert "no-store" not in directives
    assert all(name in directives for name in ("no-cache", "public", "must-revalidate"))


def test_a_targeted_public_of_the_wrong_type_permits_nothing() -> None:
    directives = _targeted("public=1, max-age=60")
    assert directives is not None
    assert not directives.grants("public")


def test_of_targeted_members_with_one_name_the_last_counts() -> None:
    directives = _targeted("max-age=1, no-store", 'max-age=2;x="3", no-store=?0')
    assert directives is not None
    assert directives.seconds("max-age") == 2
    assert "no-store" not in directives


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_higher_number_never_counts_as_fewer_seconds(numbers: list[int], more: int) -> None:
    low = _parse(*(f"max-age={number}" for number in numbers)).seconds("max-age")
    high = _parse(*(f"max-age={number + more}" for number in numbers)).seconds("max-age")
    assert low is not None
    assert high is not None
    assert low <= high
