"""The member that this cache adds to `Cache-Status`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.cache_status import forward, hit
from asgi_tiercache.http.structured import Item, parse_dictionary


def test_a_hit_says_how_long_it_stays_fresh_and_where_it_was_found() -> None:
    assert hit(ttl=30, detail="L1") == b"tiercache; hit; ttl=30; detail=L1"
    assert hit(ttl=376, detail="") == b"tiercache; hit; ttl=376"


def test_a_stale_hit_has_a_negative_ttl() -> None:
    assert hit(ttl=-412, detail="") == b"tiercache; hit; ttl=-412"


def test_a_miss_says_why_it_went_on() -> None:
    assert forward("uri-miss") == b"tiercache; fwd=uri-miss"
    assert forward("uri-miss", collapsed=True) == b"tiercache; fwd=uri-miss; collapsed"
    assert forward("stale", stored=True) == b"tiercache; fwd=stale; stored"
    assert (
        forward("miss", stored=True, collapsed=True, detail="x") == b"tiercache; fwd=miss; stored; collapsed; detail=x"
    )


def test_what_the_application_answered_is_told_where_the_client_is_sent_another_status() -> None:
    assert forward("stale", fwd_status=304) == b"tiercache; fwd=stale; fwd-status=304"
    assert forward("stale", fwd_status=304, stored=True) == b"tiercache; fwd=stale; fwd-status=304; stored"
    assert forward("stale", fwd_status=503, ttl=-5) == b"tiercache; fwd=stale; fwd-status=503; ttl=-5"


def test_a_miss_may_say_how_long_its_answer_stays_fresh() -> None:
    assert forward("uri-miss", ttl=60, stored=True) == b"tiercache; fwd=uri-miss; ttl=60; stored"
    assert forward("uri-miss", ttl=0) == b"tiercache; fwd=uri-miss; ttl=0"


def test_having_waited_in_vain_is_unlike_not_having_waited() -> None:
    assert forward("uri-miss", collapsed=False) == b"tiercache; fwd=uri-miss; collapsed=?0"
    assert forward("uri-miss") == b"tiercache; fwd=uri-miss"


@given(
    st.none() | st.integers(100, 599),
    st.none() | st.integers(-(10**14), 10**14),
    st.booleans(),
    st.sampled_from([None, True, False]),
)
def test_all_parameters_of_a_miss_read_back(
    fwd_status: int | None, ttl: int | None, stored: bool, collapsed: bool | None
) -> None:
    line = forward("stale", fwd_status=fwd_status, ttl=ttl, stored=stored, collapsed=collapsed, detail="L2")
    members = parse_dictionary(b"member=" + line)
    assert members is not None
    wanted = {"fwd": "stale", "fwd-status": fwd_status, "ttl": ttl, "collapsed": collapsed, "detail": "L2"}
    if stored:
        wanted["stored"] = True
    assert members["member"].parameters == {name: value for name, value in wanted.items() if value is not None}


@given(st.text(max_size=20))
def test_hit_and_fwd_exclude_each_other(detail: str) -> None:
    for line, absent in ((hit(ttl=1, detail=detail), "fwd"), (forward("miss", detail=detail), "hit")):
        members = parse_dictionary(b"member=" + line)
        assert members is not None
        assert absent not in members["member"].parameters


@pytest.mark.parametrize("reason", ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"])
def test_every_reason_of_rfc_9211_section_2_2_can_be_given(reason: str) -> None:
    assert forward(reason) == b"tiercache; fwd=" + reason.encode()


def test_a_reason_that_the_rfc_does_not_have_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="because"):
        forward("because")


def test_a_detail_that_is_no_token_is_a_string() -> None:
    assert forward("bypass", detail='not "me"') == rb'tiercache; fwd=bypass; detail="not \"me\""'
    assert hit(ttl=1, detail="2nd") == b'tiercache; hit; ttl=1; detail="2nd"'


@given(st.integers(-(10**14), 10**14), st.text(max_size=20))
def test_any_detail_makes_a_valid_structured_field(ttl: int, detail: str) -> None:
    # A member whose value is a Token with parameters reads the same in a List and in a Dictionary.
    members = parse_dictionary(b"member=" + hit(ttl=ttl, detail=detail))
    assert members is not None
    member = members["member"]
    assert isinstance(member, Item)
    assert member.value == "tiercache"
    assert member.parameters["ttl"] == ttl
    assert ("detail" in member.parameters) is bool(detail)
