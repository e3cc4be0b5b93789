"""Entity tags (RFC 9110, section 8.8.3)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.etag import (
    MAX_ENTITY_TAGS,
    EntityTag,
    entity_tag,
    generated_etag,
    listed_tags,
    parse_entity_tag,
)

opaque = st.binary().map(lambda text: bytes(byte for byte in text if byte > 0x20 and byte not in (0x22, 0x7F)))
tags = st.builds(EntityTag, opaque, st.booleans())


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (b'"xyzzy"', EntityTag(b"xyzzy", weak=False)),  # the RFC's own examples
        (b'W/"xyzzy"', EntityTag(b"xyzzy", weak=True)),
        (b'""', EntityTag(b"", weak=False)),
        (b'"a,b"', EntityTag(b"a,b", weak=False)),
        (b'"a\\"', EntityTag(b"a\\", weak=False)),  # backslashes escape nothing
        (b'"\xe9\xff"', EntityTag(b"\xe9\xff", weak=False)),
    ],
)
def test_what_is_an_entity_tag(value: bytes, tag: EntityTag) -> None:
    assert parse_entity_tag(value) == tag


@pytest.mark.parametrize(
    "value",
    [b"", b"a", b'"', b'"a', b'a"', b'w/"a"', b'W/ "a"', b"W/a", b'"a b"', b'"a\x7f"', b'"a"b"', b"'a'", b"*", b' "a"'],
)
def test_what_is_none(value: bytes) -> None:
    assert parse_entity_tag(value) is None


@given(tags)
def test_an_entity_tag_survives_the_field(tag: EntityTag) -> None:
    assert parse_entity_tag(tag.serialise()) == tag


@given(st.lists(tags), st.sampled_from([b",", b", ", b" ,\t", b",,", b", ,"]))
def test_a_list_of_entity_tags_survives_the_field(listed: list[EntityTag], separator: bytes) -> None:
    assert list(listed_tags([separator.join(tag.serialise() for tag in listed)])) == listed


@given(st.binary())
def test_any_bytes_can_be_looked_through(value: bytes) -> None:
    for tag in listed_tags([value]):
        assert tag.serialise() in value


@pytest.mark.parametrize(
    "line",
    [
        b'a, "x"',
        b'"a b", "x"',
        b'"x", "a',
        b'w/"y", "x"',
        b'*, "x"',
        b'"a" "b", "x"',
        b'""y", "x"',
        b'"\'", \'z\', "x"',
    ],
)
def test_a_malformed_member_does_not_hide_the_others(line: bytes) -> None:
    assert EntityTag(b"x", weak=False) in list(listed_tags([line]))


def test_no_entity_tag_begins_inside_another() -> None:
    assert [tag.opaque for tag in listed_tags([b'"x,",",y"'])] == [b"x,", b",y"]


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [  # the table of section 8.8.3.2
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
    ],
)
def test_the_two_comparisons(one: bytes, other: bytes, strongly: bool, weakly: bool) -> None:
    a, b = parse_entity_tag(one), parse_entity_tag(other)
    assert a
    assert b
    assert (a.matches_strongly(b), b.matches_strongly(a)) == (strongly, strongly)
    assert (a.matches_weakly(b), b.matches_weakly(a)) == (weakly, weakly)


def test_a_response_has_one_entity_tag_or_none() -> None:
    assert entity_tag([(b"etag", b'"a"')]) == EntityTag(b"a", weak=False)
    assert entity_tag([(b"etag", b'"a"'), (b"etag", b'"a"')]) is None
    assert entity_tag([(b"etag", b"a")]) is None
    assert entity_tag([]) is None


def test_only_so_many_members_are_looked_at() -> None:
    line = b",".join([b'"a"'] * (MAX_ENTITY_TAGS - 1))
    assert list(listed_tags([line, b'"b", "c"']))[-1].opaque == b"b"
    assert not list(listed_tags([b"?," * MAX_ENTITY_TAGS, b'"b"']))


def test_a_generated_tag_is_a_strong_one_for_one_request_and_its_content() -> None:
    tag = parse_entity_tag(generated_etag(b"GET /", b"text"))
    assert tag is not None
    assert not tag.weak
    assert generated_etag(b"GET /", b"text") == generated_etag(b"GET /", b"text")
    others = {
        generated_etag(*made) for made in [(b"GET /", b"text!"), (b"GET /b", b"text"), (b"GET /t", b"ext"), (b"", b"")]
    }
    assert len(others | {generated_etag(b"GET /", b"text")}) == 5


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_generated_tag_is_the_same_in_every_process(seed: str) -> None:
    code = "from asgi_tiercache.http.etag import generated_etag; print(generated_etag(b'GET /', b'text').decode())"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert made.stdout.strip() == generated_etag(b"GET /", b"text")
