"""Values that are stored between a call's look into the cache and its turn to compute."""

from __future__ import annotations

import asyncio

from tests.engine.doubles import Fleet, Paused, written
from tests.tiers.doubles import ticks, until

PATIENCE = 5.0


def test_a_value_that_lands_while_another_call_reads_the_lower_tier_is_computed_once() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(deadline=PATIENCE)
        load = Paused("old", "first", "second")
        load.go.set()

        @cache.cached("f:{a}", ttl=60, stale_if_error=600)
        async def f(a: int) -> object:
            return await load()

        async with cache, asyncio.timeout(PATIENCE):
            assert await f(1) == "old"
            await written(cache)
            fleet.clock.tick(61)  # it stays in memory, so each call looks for a better one further down
            load.go.clear()
            first = asyncio.create_task(f(1))
            await until(lambda: load.calls == 2)
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
            assert load.calls == 2

    asyncio.run(body())


def test_what_is_set_while_a_call_reads_the_lower_tier_is_not_computed() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(deadline=PATIENCE)
        load = Paused("computed")

        async with cache, asyncio.timeout(PATIENCE):
            await cache.get("warm")
            fleet.tier.hang()
            reads = fleet.tier.calls.count("get_many")
            reading = asyncio.create_task(cache.get_or_set("key", load, ttl=60))
            await until(lambda: fleet.tier.calls.count("get_many") > reads)
            await cache.set("key", None, ttl=60)  # None is a value, too
            await ticks(5)
            assert not reading.done(), "it is still reading"
            fleet.tier.recover()
            assert await reading is None
            assert load.calls == 0

    asyncio.run(body())


def test_who_joins_a_computation_does_not_read_the_lower_tier() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(deadline=PATIENCE)
        load = Paused("value")

        async with cache, asyncio.timeout(PATIENCE):
            first = asyncio.create_task(cache.get_or_set("key", load, ttl=60))
            await until(lambda: load.calls == 1)
            reads = fleet.tier.calls.count("get_many")
            others = [asyncio.create_task(cache.get_or_set("key", load, ttl=60)) for _ in range(5)]
            await ticks(5)
            load.go.set()
            assert await asyncio.gather(first, *others) == ["value"] * 6
            assert fleet.tier.calls.count("get_many") == reads

    asyncio.run(body())
