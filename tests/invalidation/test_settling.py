"""`settle=`: for origins whose replicas lag behind, nothing is reused until these have caught up."""

from __future__ import annotations

import asyncio

import pytest

from asgi_tiercache import ConfigError, Policy, TierCache
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run
from tests.servers import RedisServer
from tests.tiers.doubles import ticks


@pytest.mark.parametrize("how", ["tag", "pattern", "clear", "key"])
@pytest.mark.parametrize("l2", [False, True])
def test_nothing_is_reused_until_it_has_settled_then_caching_resumes_by_itself(how: str, l2: bool) -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock, l2=ScriptedTier() if l2 else None)
        calls: list[int] = []

        @cache.cached("value", ttl=3600, tags=["t"])
        async def value() -> int:
            calls.append(1)
            return len(calls)

        async with cache:
            assert [await value(), await value()] == [1, 1]
            if how == "tag":
                await cache.invalidate("t", settle=2.5)
            elif how == "pattern":
                await cache.invalidate_pattern("v?lue", settle=2.5)
            elif how == "key":
                await cache.invalidate_key("value", settle=2.5)
            else:
                await cache.clear(settle=2.5)
            for passed in range(5):  # 0 to 2.4 seconds
                assert [await value(), await value()] == [2 * passed + 2, 2 * passed + 3]
                clock.tick(0.6)
            clock.tick(0.2)
            assert [await value(), await value(), await value()] == [12, 12, 12]

    run(test())


def test_what_settles_soon_does_not_wait_for_what_takes_longer() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        calls = {"quick": 0, "slow": 0}

        async def computed(name: str) -> int:
            async def load() -> int:
                calls[name] += 1
                return calls[name]

            value: int = await cache.get_or_set(name, load, ttl=36_000, tags=[name])
            return value

        async with cache:
            await cache.invalidate("slow", settle=3600)
            await cache.invalidate("quick", settle=1)
            clock.tick(2.5)
            assert [await computed("quick"), await computed("quick")] == [1, 1]
            assert [await computed("slow"), await computed("slow")] == [1, 2]
            clock.tick(3600)
            assert [await computed("slow"), await computed("slow")] == [3, 3]

    run(test())


def test_what_does_not_carry_the_tag_is_cached_meanwhile() -> None:
    async def test() -> None:
        cache = TierCache(clock=TickingClock())
        async with cache:
            await cache.set("other", 1, ttl=60)
            await cache.invalidate("t", settle=60)
            await cache.set("another", 2, ttl=60)
            await cache.set("t", 3, ttl=60, tags=["t"])
            assert await cache.get_many(["other", "another", "t"]) == {"other": 1, "another": 2}

    run(test())


def test_softly_it_is_stale_until_it_has_settled() -> None:
    async def test() -> None:
        clock, handler = TickingClock(), Handler()
        cache = TierCache(clock=clock)
        app = app_of(handler, Policy(ttl=3600, tags=("t",)), cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True, settle=2)
        for _ in range(3):
            assert "detail=L1-stale" in (await ask(app)).cache_status
            await ticks(20)
        assert handler.calls == 4, "each was made anew, and none of them counts as new yet"
        clock.tick(2.1)
        await ask(app)
        await ticks(20)
        assert (await ask(app)).cache_status.endswith("detail=L1")

    run(test())


def test_a_later_invalidation_without_it_takes_nothing_back() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        async with cache:
            await cache.invalidate("t", settle=10)
            clock.tick(1)
            await cache.invalidate("t")
            await cache.clear()
            await cache.set("k", 1, ttl=60, tags=["t"])
            assert await cache.get("k") is None
            clock.tick(9.1)
            await cache.set("k", 1, ttl=60, tags=["t"])
            assert await cache.get("k") == 1

    run(test())


def test_through_redis_it_binds_every_worker_and_ends_by_itself(each_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = (
            TierCache.from_url(each_redis.url, namespace="settling", deadline=5.0, max_lag=0.05) for _ in range(2)
        )
        async with first, second:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await first.invalidate("t", settle=0.3)
            resumed = dict.fromkeys((first, second), 0.0)
            async with asyncio.timeout(5):
                while not all(resumed.values()):
                    for cache in (first, second):
                        await cache.set(f"of {id(cache)}", 1, ttl=60, tags=["t"])
                        if await cache.get(f"of {id(cache)}") == 1:
                            resumed[cache] = resumed[cache] or loop.time() - began
                    await asyncio.sleep(0.01)
            # What the first does at once, the second may hear of a moment later, but not cease to hold too soon.
            assert resumed[first] >= 0.3

    run(test())


@pytest.mark.parametrize("settle", [-1, float("inf"), float("nan"), "1", True, None, 31 * 86_400 + 1, 1e300])
def test_what_is_no_duration_is_refused(settle: object) -> None:
    async def test() -> None:
        cache = TierCache()
        for call in (cache.invalidate, cache.invalidate_key, cache.invalidate_pattern):
            with pytest.raises(ConfigError, match="settle"):
                await call("t", settle=settle)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="settle"):
            await cache.clear(settle=settle)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="settle"):
            cache.on("e", tags="t", settle=settle)  # type: ignore[arg-type]

    run(test())
