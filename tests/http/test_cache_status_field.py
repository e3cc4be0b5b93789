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
