"""No entry lives for more than 31 days, so that what has to be remembered of invalidations is bounded."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.codec.entries import decode, encode
from asgi_tiercache.config import LONGEST_LIFETIME
from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.types import Entry
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run, until

DAY = 86_400
YEAR = 365 * DAY


def test_it_is_31_days() -> None:
    assert LONGEST_LIFETIME == 31 * DAY


@pytest.mark.parametrize("way", ["policy", "response", "set_ttl"])
def test_a_response_counts_as_fresh_for_31_days_at_the_most(way: str) -> None:
    async def test() -> None:
        clock, tier = TickingClock(), ScriptedTier()
        cache = TierCache(l2=tier, clock=clock)

        def respond(_: object) -> PlainTextResponse:
            if way == "set_ttl":
                cache.current.set_ttl(YEAR)
            return PlainTextResponse("text", headers={"cache-control": f"max-age={YEAR}"} if way == "response" else {})

        handler = Handler(respond)
        policy = {"policy": Policy(ttl=YEAR), "response": Policy.http(), "set_ttl": Policy(ttl=60)}[way]
        app = app_of(handler, policy, cache=cache)
        await ask(app)
        clock.tick(1)
        assert (await ask(app)).cache_status == f"tiercache; hit; ttl={LONGEST_LIFETIME - 1}; detail=L1"
        clock.tick(LONGEST_LIFETIME - 2)
        assert (await ask(app)).hit
        clock.tick(1)
        assert not (await ask(app)).hit, "nor does it come back from the lower tier"

    run(test())


def test_a_value_lives_for_31_days_at_the_most() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(l2=ScriptedTier(), clock=clock)
        async with cache:
            await cache.set("k", 1, ttl=YEAR)
            clock.tick(LONGEST_LIFETIME - 1)
            assert await cache.get("k") == 1
            clock.tick(1)
            assert await cache.get("k") is None

    run(test())


def test_the_lower_tier_is_told_so() -> None:
    async def test() -> None:
        clock = TickingClock()
        tier = ScriptedTier(clock=clock)
        cache = TierCache(l2=tier, clock=clock)
        async with cache:
            await cache.set("k", 1, ttl=YEAR)
            await until(lambda: bool(tier.data))
            clock.tick(LONGEST_LIFETIME - 1)
            assert await tier.get_many(["k"]) != [None]
            clock.tick(1)
            assert await tier.get_many(["k"]) == [None]

    run(test())


def test_an_entry_in_the_lower_tier_that_claims_more_is_not_believed() -> None:
    """As one that an older version of this package has written."""

    async def test() -> None:
        clock, tier = TickingClock(), ScriptedTier()
        first = TierCache(l2=tier, clock=clock)
        async with first:
            await first.set("k", 1, ttl=60)
            await until(lambda: bool(tier.data))
            entry = decode(tier.data["k"])
            assert isinstance(entry, Entry)
            entry.lifetime = YEAR
            tier.data["k"] = encode(entry)
            first.engine.memory.clear()
            assert await first.get("k") == 1
            first.engine.memory.clear()
            clock.tick(LONGEST_LIFETIME)
            assert await first.get("k") is None

    run(test())
