from __future__ import annotations

import pytest

from asgi_tiercache import ConfigError, KeyingError
from asgi_tiercache.engine.fill import IDLE, Fill
from asgi_tiercache.engine.tags import key_tag, path_tag, route_tag, user_tag
from asgi_tiercache.types import Stamp


@pytest.mark.parametrize("name", ["template", "templates", "self", "values"])
def test_a_field_may_be_called_anything(name: str) -> None:
    fill = Fill(Stamp("e", 0))
    fill.tag(f"x:{{{name}}}", **{name: 7})
    assert list(fill.tags) == ["x:7"]


def test_a_value_that_was_judged_fresh_hands_on_its_tags_and_leaves_the_stamp() -> None:
    fill = Fill(Stamp("e", 5))
    fill.inherit(["a", "b"], Stamp("e", 2), fresh=True)
    assert (list(fill.tags), fill.stamp) == (["a", "b"], Stamp("e", 5))


def test_a_value_that_nobody_judged_lowers_the_stamp_to_its_own() -> None:
    fill = Fill(Stamp("e", 5))
    fill.inherit(["a"], Stamp("e", 7), fresh=False)
    assert fill.stamp == Stamp("e", 5)
    fill.inherit(["a"], Stamp("e", 3), fresh=False)
    assert fill.stamp == Stamp("e", 3)
    assert not fill.refused


def test_a_value_of_another_epoch_that_nobody_judged_keeps_the_outer_one_from_being_stored() -> None:
    fill = Fill(Stamp("e", 5))
    fill.inherit(["a"], Stamp("f", 7), fresh=False)
    assert fill.refused


def test_tags_are_filled_from_values_which_are_escaped() -> None:
    fill = Fill(Stamp("e", 0))
    fill.tag("author:{name}:{part}", name="a*:b", part=1)
    fill.tag("plain", "other")
    assert list(fill.tags) == ["author:a%2A%3Ab:1", "plain", "other"]


@pytest.mark.parametrize("text", ["q:*", "q:{x", "q:\n", "q:" + "x" * 300, "q:\ud800"], ids=ascii)
def test_no_text_that_a_client_sent_fails_the_handler(text: str) -> None:
    fill = Fill(Stamp("e", 0))
    fill.tag(text)
    (tag,) = fill.tags
    assert len(tag.encode()) <= 256
    assert "*" not in tag


def test_a_value_without_a_text_fails_nobody_but_what_it_would_tag_is_not_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill = Fill(Stamp("e", 0))
    for _ in range(2):
        fill.tag("y:{a}", a=["sent", "by a client"])
    assert fill.refused
    assert not fill.tags
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"


def test_a_field_without_a_value_is_the_programs_own_mistake() -> None:
    with pytest.raises(KeyingError, match="a"):
        Fill(Stamp("e", 0)).tag("y:{a}", b=1)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_lifetime_that_is_none_is_refused(seconds: float) -> None:
    for fill in (Fill(Stamp("e", 0)), IDLE):
        with pytest.raises(ConfigError) as caught:
            fill.set_ttl(seconds)
        assert caught.value.option == "set_ttl"


def test_a_fill_needs_itself_and_whatever_it_waits_for_at_any_distance() -> None:
    first, second, third, apart = (Fill(Stamp("e", 0), key=key) for key in "abcd")
    first.waits_for.append(second)
    second.waits_for += [apart, third]
    assert first.needs(first)
    assert first.needs(third)
    assert not third.needs(first)
    assert not apart.needs(third)


def test_fills_that_wait_in_a_circle_are_looked_through_once() -> None:
    first, second, apart = (Fill(Stamp("e", 0), key=key) for key in "abc")
    first.waits_for.append(second)
    second.waits_for.append(first)
    assert first.needs(second)
    assert not first.needs(apart)


def test_of_what_is_said_while_nothing_is_cached_nothing_comes() -> None:
    IDLE.tag("a")
    IDLE.set_ttl(5)
    IDLE.no_store()
    IDLE.inherit(["b"], Stamp("e", 1), fresh=False)
    assert (IDLE.tags, IDLE.ttl, IDLE.stamp) == ({}, None, Stamp("", 0))


def test_implicit_tags_are_out_of_reach_of_a_users_own() -> None:
    assert {key_tag("k"), path_tag("/p"), route_tag("/r"), user_tag("u")} == {
        "*key:k",
        "*path:/p",
        "*route:/r",
        "*user:u",
    }
