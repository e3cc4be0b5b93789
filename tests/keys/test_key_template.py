from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.errors import ConfigError, KeyingError
from asgi_tiercache.keys.escape import digest
from asgi_tiercache.keys.template import Template, tag, tolerant_tag


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


def test_a_template_names_its_fields_once_each_and_in_order() -> None:
    template = Template("{b}:{a}:{b}")
    assert template.fields == ("b", "a")
    assert template.render({"a": 1, "b": 2}) == "2:1:2"


def test_a_template_without_fields_is_its_text() -> None:
    assert Template("config").render({}) == "config"


@pytest.mark.parametrize(
    "text",
    ["a:{", "a:}", "a:{}", "a:{a.b}", "a:{0}", "a:{a!r}", "a:{a:>4}", "{{a}}", "a:{b", "{a}}", "a:{a b}", "{a[0]}"],
)
def test_a_malformed_template_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^patterns: ") as caught:
        Template(text, option="patterns")
    assert caught.value.option == "patterns"


@pytest.mark.parametrize("text", ["", "a:*", "a\n{b}", "x" * 257, "x" * 230 + "{a}", "x" * 100 + "{a}{b}{c}{d}"])
def test_a_template_that_cannot_become_a_tag_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^tags: "):
        Template(text)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("abc", "abc"),
        (Name("abc"), "abc"),
        (42, "42"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
        (1.5, "1.5"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"caf\xc3\xa9", "caf%C3%A9"),
        (Colour.RED, "red"),
        (Level.LOW, "1"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 12, 30), "2024-02-29T12:30:00"),
        (datetime.time(12, 30), "12:30:00"),
    ],
)
def test_a_single_value_has_one_text(value: object, written: str) -> None:
    assert Template("x:{v}").render({"v": value}) == f"x:{written}"
    assert tag("x:{v}", v=value) == f"x:{written}"


@pytest.mark.parametrize("value", [[1], {"a": 1}, object(), float("nan"), (1,)])
def test_a_value_without_a_text_gives_no_tag_and_where_it_must_be_one_an_error(value: object) -> None:
    assert Template("x:{v}").render({"v": value}) is None
    with pytest.raises(KeyingError, match=rf"load: 'v': a {type(value).__name__} has no"):
        Template("x:{v}").render_strict({"v": value}, function="load")


def test_a_missing_value_gives_no_tag_and_where_it_must_be_there_an_error() -> None:
    assert Template("x:{v}").render({}) is None
    assert Template("x:{v}").render({"v": None}) is None
    with pytest.raises(KeyingError, match="no value for 'v'"):
        tag("x:{v}")


def test_none_is_a_value_of_a_function() -> None:
    assert Template("x:{v}").render_strict({"v": None}) == "x:none"


@pytest.mark.parametrize("sent", ["*", "4?", "{x}", "[a-z]", "a b", "\n", "x\x00", "%"])
def test_a_value_never_becomes_a_pattern(sent: str) -> None:
    rendered = Template("video:{id}").render({"id": sent})
    assert rendered is not None
    assert not set(rendered.removeprefix("video:")) & set(":*?{}[] \n\x00")
    assert rendered != f"video:{sent}"


def test_a_value_never_reaches_into_the_next() -> None:
    template = Template("video:{id}:{part}")
    assert template.render({"id": "1:2", "part": "3"}) == "video:1%3A2:3"
    assert template.render({"id": "1", "part": "2:3"}) == "video:1:2:3"


@pytest.mark.parametrize("value", ["a:b", "a b", "50%", "é", "plain", "é" * 100, "a b" * 80])
def test_a_tag_written_out_in_code_names_what_its_template_does(value: str) -> None:
    assert tag(f"author:{value}") == tag("author:{name}", name=value) == tolerant_tag(f"author:{value}")


@pytest.mark.parametrize("text", ["", "a*", "{x}", "a\n", "x" * 1000, "\ud800"])
def test_a_tolerant_tag_is_made_of_any_text(text: str) -> None:
    made = tolerant_tag(text)
    assert len(made) <= 256
    assert not set(made) & set("*?{}[] \n\x00")


def test_everything_appears_as_it_is_where_that_is_asked_for() -> None:
    sent = "a:*" + "v" * 1000
    assert Template("/a b/{id}").render_plain({"id": sent}) == "/a b/" + sent
    assert Template("video:{id}").render_plain({"id": sent}) == "video:" + sent


def test_the_star_of_a_pattern_is_its_own_and_that_of_a_value_is_escaped() -> None:
    pattern = Template("user:{id}:*{part}", glob=True)
    assert pattern.render_strict({"id": "*", "part": "a*:"}) == "user:%2A:*a%2A:"
    assert Template("%2A*", glob=True).render_strict({}) == "%252A*"


@pytest.mark.parametrize("text", ["", "user:{id}\n*", "user:{id*}", "user:}{*", "*" * 257, 5, None])
def test_a_malformed_pattern_is_an_error(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"^patterns: "):
        Template(text, option="patterns", glob=True)


def test_a_value_that_makes_a_tag_too_long_is_cut_and_ends_in_its_hash() -> None:
    long = "v" * 1000
    rendered = tag("video:{id}", id=long)
    assert len(rendered) == 256
    assert rendered.endswith("#" + digest(f"video:{long}".encode()))
    assert tag("video:{id}", id=long + "w") != rendered


def test_what_is_cut_does_not_depend_on_where_fields_begin() -> None:
    long = "é" * 200
    whole = Template("page:{url}:{lang}").render({"url": long, "lang": "en"})
    assert whole == Template("page:{url}:en").render({"url": long}) == tolerant_tag(f"page:{long}:en")


def test_a_value_of_a_pattern_is_cut_by_itself_and_its_star_stays() -> None:
    template = Template("video:{id}:*", glob=True)
    assert template.render_strict({"id": "v" * 1000}) == "video:" + "v" * 1000 + ":*"
    rendered = template.render_strict({"id": "v" * 2000})
    assert len(rendered) <= 1024
    assert rendered.endswith("#" + digest(b"v" * 2000) + ":*")


def test_short_values_stay_whole_beside_a_long_one() -> None:
    assert tag("{a}:{b}", a="short", b="v" * 1000).startswith("short:vvv")


def test_a_tag_of_the_greatest_length_is_not_cut() -> None:
    assert tag("video:{id}", id="v" * 250) == "video:" + "v" * 250


@given(st.text(), st.text(max_size=300))
def test_no_values_make_a_tag_longer_than_256_bytes(one: str, other: str) -> None:
    assert len(tag("é:{a}:{b}:{a}", a=one, b=other * 3).encode()) <= 256


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_different_values_make_different_tags(one: tuple[str, str], other: tuple[str, str]) -> None:
    template = Template("{a}:{b}")
    same = template.render({"a": one[0], "b": one[1]}) == template.render({"a": other[0], "b": other[1]})
    assert same == (one == other)


def test_the_shape_leaves_the_names_of_fields_out() -> None:
    assert Template("user:{id}:{part}").shape == Template("user:{user_id}:{x}").shape == "user:{}:{}"
    assert repr(Template("user:{id}")) == "Template('user:{id}')"
