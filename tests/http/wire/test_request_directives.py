"""What a request may ask of the cache (RFC 9111, sections 5.2.1 and 5.4)."""

from __future__ import annotations

import pytest

from asgi_tiercache import Policy
from tests.http.wire.world import Answer, World, in_world, over_sockets

FRESH = "Cache-Control: max-age=60"
NEVER_STALE = ["max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "s-maxage=60", "no-cache"]


async def _after(w: World, seconds: float, *lines: str, stored: str = FRESH) -> bool:
    """Whether what was stored that long ago answers a request with these field lines."""
    w.origin.script(Answer(stored, body="stored"))
    await w.get()
    w.clock.tick(seconds)
    w.origin.script(Answer(FRESH, body="new"))
    reply = await w.get(*lines)
    assert reply.hit is (reply.text == "stored")
    return reply.hit


@pytest.mark.parametrize(("directive", "reused"), [("max-age=10", True), ("max-age=9", False), ("max-age=0", False)])
@over_sockets
async def test_max_age_bounds_the_age(w: World, directive: str, reused: bool) -> None:
    assert await _after(w, 10, f"Cache-Control: {directive}") is reused


@over_sockets
async def test_max_age_of_zero_takes_what_is_not_older_than_that(w: World) -> None:
    assert await _after(w, 0, "Cache-Control: max-age=0")


@over_sockets
async def test_max_age_makes_nothing_fresh(w: World) -> None:
    assert not await _after(w, 60, "Cache-Control: max-age=600")


@over_sockets
async def test_max_age_counts_the_age_on_arrival(w: World) -> None:
    w.origin.script(Answer(FRESH, "Age: 30"))
    await w.get()
    assert (await w.get("Cache-Control: max-age=30")).hit
    assert not (await w.get("Cache-Control: max-age=29")).hit


@pytest.mark.parametrize(
    ("directive", "reused"), [("min-fresh=50", True), ("min-fresh=51", False), ("min-fresh=0", True)]
)
@over_sockets
async def test_min_fresh_bounds_what_is_left(w: World, directive: str, reused: bool) -> None:
    assert await _after(w, 10, f"Cache-Control: {directive}") is reused


@over_sockets
async def test_max_age_and_min_fresh_count_both(w: World) -> None:
    assert await _after(w, 10, "Cache-Control: max-age=10, min-fresh=50")
    w.clock.tick(61)
    assert not await _after(w, 10, "Cache-Control: max-age=10, min-fresh=51")


@pytest.mark.parametrize(
    ("directive", "reused"),
    [
        ("max-stale=10", True),
        ("max-stale=9", False),
        ("max-stale=0", False),
        ("max-stale", True),
        ("MAX-Stale", True),
        ('max-stale="10"', True),
        ("max-stale=99999999999", True),
        ("max-stale=a", False),
        ("max-stale=-1", False),
        ("max-stale=", False),
        ("max-age=70, max-stale=10", True),
        ("max-age=69, max-stale=10", False),
        ("max-stale=10, no-cache", False),
        ("max-stale=10, min-fresh=1", False),
    ],
)
@over_sockets
async def test_max_stale_takes_what_is_stale(w: World, directive: str, reused: bool) -> None:
    assert await _after(w, 70, f"Cache-Control: {directive}") is reused


@pytest.mark.parametrize("stored", NEVER_STALE)
@over_sockets
async def test_max_stale_does_not_override_what_forbids_it(w: World, stored: str) -> None:
    assert not await _after(w, 61, "Cache-Control: max-stale", stored=f"Cache-Control: {stored}")


@over_sockets
async def test_no_cache_wants_a_new_answer(w: World) -> None:
    assert not await _after(w, 1, "Cache-Control: no-cache")
    assert (await w.get()).text == "new"


@pytest.mark.parametrize(
    "directives", ["NO-CACHE", "foo, no-cache", "no-cache, max-age=60", 'no-cache="x-a"', "max-stale, no-cache"]
)
@over_sockets
async def test_no_cache_is_found_however_it_is_written(w: World, directives: str) -> None:
    assert not await _after(w, 1, f"Cache-Control: {directives}")


@pytest.mark.parametrize(
    "directive", ["max-age=a", "max-age", "min-fresh=a", "foo", "s-maxage=0", "must-revalidate", "public", "private"]
)
@over_sockets
async def test_what_is_malformed_or_no_request_directive_is_no_error(w: World, directive: str) -> None:
    assert await _after(w, 0, f"Cache-Control: {directive}")


# ---- only-if-cached ----


@over_sockets
async def test_only_if_cached_never_reaches_the_origin(w: World) -> None:
    w.origin.script(Answer(FRESH))
    reply = await w.get("Cache-Control: only-if-cached")
    assert (reply.status, w.origin.asked) == (504, 0)


@over_sockets
async def test_only_if_cached_takes_what_is_stored(w: World) -> None:
    assert await _after(w, 1, "Cache-Control: only-if-cached")


@pytest.mark.parametrize(
    ("directives", "status"),
    [
        ("only-if-cached", 504),
        ("only-if-cached, max-stale", 200),
        ("only-if-cached, max-stale=9", 504),
        ("only-if-cached, max-stale=10", 200),
        ("only-if-cached, no-cache", 504),
    ],
)
@over_sockets
async def test_only_if_cached_wants_what_the_other_directives_allow(w: World, directives: str, status: int) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"'))
    await w.get()
    w.clock.tick(70)
    assert (await w.get(f"Cache-Control: {directives}")).status == status
    assert w.origin.asked == 1


@over_sockets
async def test_only_if_cached_wants_the_variant_that_it_asks_for(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo"))
    await w.get("Foo: 1")
    assert (await w.get("Foo: 1", "Cache-Control: only-if-cached")).status == 200
    assert (await w.get("Foo: 2", "Cache-Control: only-if-cached")).status == 504


# ---- Pragma ----


@pytest.mark.parametrize("pragma", ["no-cache", "No-Cache", "foo, no-cache", "no-cache , foo"])
@over_sockets
async def test_pragma_counts_as_no_cache(w: World, pragma: str) -> None:
    assert not await _after(w, 1, f"Pragma: {pragma}")


@pytest.mark.parametrize(
    "lines",
    [["Pragma: foo"], ["Pragma: no-cache", "Cache-Control: max-age=10"], ["Pragma: no-cache", "Cache-Control: foo"]],
)
@over_sockets
async def test_pragma_counts_only_where_there_is_no_cache_control(w: World, lines: list[str]) -> None:
    assert await _after(w, 1, *lines)


# ---- where clients have no say ----


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "min-fresh=600", "only-if-cached", "no-store"])
@in_world(Policy.rfc9111(request_directives=False))
async def test_a_policy_may_leave_clients_no_say(w: World, directive: str) -> None:
    assert await _after(w, 1, f"Cache-Control: {directive}")
