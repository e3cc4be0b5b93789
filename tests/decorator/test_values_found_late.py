"""Values that others store between a call's look into the cache and its turn to compute."""

from __future__ import annotations

import asyncio

from tests.engine.doubles import Fleet, Paused
from tests.tiers.doubles import ticks, until

PATIENCE = 5.0


def test_a_value_that_lands_while_another_call_reads_the_lower_tier_is_computed_once() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(deadline=PATIENCE)
        load = Paused("first", "second")

        @cache.cached("f:{a}", ttl=60)
        async def f(a: int) -> object:
            return await load()

        async with cache, asyncio.timeout(PATIENCE):
            first = asyncio.create_task(f(1))
            await until(lambda: load.calls == 1)
            fleet.tier.hang()
            reads = fleet.tier.calls.count("get_many")
            second = asyncio.create_task(f(1))
            await until(lambda: fleet.tier.calls.count("get_many") > reads)
            load.go.set()
            assert await first == "first"
            await ticks(5)
            assert not second.done(), "it is still reading"
            fleet.tier.recover()
            assert await second == "first"
            assert load.calls == 1

    asyncio.run(body())


def test_what_get_or_set_stores_while_another_call_reads_the_lower_tier_is_computed_once() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(deadline=PATIENCE)
        load = Paused(None, "second")  # None is a value, too

        async with cache, asyncio.timeout(PATIENCE):
            first = asyncio.create_task(cache.get_or_set("key", load, ttl=60))
            await until(lambda: load.calls == 1)
            fleet.tier.hang()
            reads = fleet.tier.calls.count("get_many")
            second = asyncio.create_task(cache.get_or_set("key", load, ttl=60))
            await until(lambda: fleet.tier.calls.count("get_many") > reads)
            load.go.set()
            assert await first is None
            await ticks(5)
            assert not second.done(), "it is still reading"
            fleet.tier.recover()
            assert await second is None
            assert load.calls == 1

    asyncio.run(body())
