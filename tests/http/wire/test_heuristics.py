"""Lifetimes that a response does not state (RFC 9111, section 4.2.2; RFC 9110, section 15)."""

from __future__ import annotations

import pytest

from asgi_tiercache import Policy
from tests.http.wire.world import Answer, World, in_world, over_sockets

DAY = 86_400.0
# 451 by RFC 7725, section 3; 206 is a matter of its own.
CACHEABLE = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501]
NOT_CACHEABLE = [
    201,
    202,
    205,
    299,
    302,
    303,
    305,
    307,
    400,
    401,
    403,
    406,
    409,
    418,
    421,
    499,
    500,
    502,
    503,
    504,
]


@over_sockets
async def test_it_is_a_tenth_of_the_time_since_the_last_modification(w: World) -> None:
    w.origin.script(Answer(f"Last-Modified: {w.date(-1_000)}", f"Date: {w.date()}"))
    await w.get()
    w.clock.tick(99)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@pytest.mark.parametrize("status", CACHEABLE)
@over_sockets
async def test_it_is_given_to_the_statuses_that_allow_it(w: World, status: int) -> None:
    assert await w.reuses(f"Last-Modified: {w.date(-DAY)}", status=status)


@pytest.mark.parametrize("status", NOT_CACHEABLE)
@over_sockets
async def test_it_is_given_to_no_other_status(w: World, status: int) -> None:
    assert not await w.reuses(f"Last-Modified: {w.date(-DAY)}", status=status)


@pytest.mark.parametrize("status", [201, 302, 403, 599])
@over_sockets
async def test_public_allows_it_for_any_status(w: World, status: int) -> None:
    assert await w.reuses("Cache-Control: public", f"Last-Modified: {w.date(-DAY)}", status=status)


@pytest.mark.parametrize(
    "stated",
    ["Cache-Control: max-age=0", "Cache-Control: s-maxage=0", "Cache-Control: max-age=a", "Expires: 0", "Expires: {}"],
)
@over_sockets
async def test_it_never_takes_the_place_of_a_stated_one(w: World, stated: str) -> None:
    assert not await w.reuses(stated.format(w.date(-1)), f"Last-Modified: {w.date(-DAY)}")


@over_sockets
async def test_there_is_none_without_a_modification(w: World) -> None:
    assert not await w.reuses(f"Date: {w.date()}", 'ETag: "a"')


@pytest.mark.parametrize("modified", ["0", "yesterday", "Mon, 13 Nov 2023 00:00:00 EST"])
@over_sockets
async def test_there_is_none_where_the_modification_is_no_date(w: World, modified: str) -> None:
    assert not await w.reuses(f"Last-Modified: {modified}")


@over_sockets
async def test_there_is_none_where_the_modification_lies_ahead(w: World) -> None:
    assert not await w.reuses(f"Last-Modified: {w.date(DAY)}")


@over_sockets
async def test_a_query_in_the_uri_is_no_obstacle(w: World) -> None:
    w.origin.script(Answer(f"Last-Modified: {w.date(-DAY)}"))
    await w.get(path="/?a=b")
    assert (await w.get(path="/?a=b")).hit


@in_world(Policy.http())
async def test_the_http_policy_guesses_nothing(w: World) -> None:
    assert not await w.reuses(f"Last-Modified: {w.date(-DAY)}")
