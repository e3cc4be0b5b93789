"""What a pattern has made invalid is deleted in the background, and nothing but that."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.engine.reclaim import MAX_WAITING, PAUSE
from asgi_tiercache.errors import TierError
from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.tiers.redis import RedisLink
from tests.clusters import ClusterServers
from tests.engine.doubles import alone, written
from tests.servers import RedisServer
from tests.tiers.doubles import ticks


class OpenTier(ScriptedTier):
    """A scripted tier that can be looked through, two keys at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.scans: list[str] = []

    async def scan(
        self, beginning: str, wanted: Callable[[str], bool], size: int
    ) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        self.scans.append(beginning)
        found = [(key, data[:size]) for key, data in self.data.items() if key.startswith(beginning) and wanted(key)]
        for first in range(0, len(found), 2):
            await self._operate("scan")
            yield found[first : first + 2]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def over(tier: ScriptedTier) -> tuple[TierCache, TickingClock]:
    clock = TickingClock()
    return TierCache(l2=tier, clock=clock, namespace="shop"), clock


async def stored(cache: TierCache, *keys: str) -> None:
    for key in keys:
        await cache.set(key, 1, ttl=6000)
    if cache.engine.stack is not None:
        await written(cache)


async def paced(clock: TickingClock, pauses: int = 10) -> None:
    """Let what waits for `clock` go on for some batches."""
    for _ in range(pauses):
        await ticks(10)
        clock.tick(PAUSE)
    await ticks(10)


def held(cache: TierCache) -> list[str]:
    return sorted(key for bucket in cache.engine.memory.buckets() for key, _ in bucket.entries())


# ---- scripted tiers ----


def test_what_matches_is_deleted_in_memory_and_below_and_nothing_else() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, "user:1:a", "user:1:b", "user:10:a", "video:1:a", "user:1:a:deep")
        tier.data["shop:user:2:a"] = b"somebody else's"
        await cache.invalidate_pattern("user:?:*")
        await paced(clock)
        assert tier.scans == ["shop:user:"]
        assert sorted(tier.data) == ["shop:user:10:a", "shop:user:2:a", "shop:video:1:a"]
        assert held(cache) == ["shop:user:10:a", "shop:video:1:a"]

    run(test)


def test_what_was_stored_since_stays() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, "a1", "a2")
        await cache.invalidate_pattern("a*")
        await stored(cache, "a1")
        await paced(clock)
        assert list(tier.data) == ["shop:a1"]
        assert held(cache) == ["shop:a1"]

    run(test)


def test_there_is_a_pause_after_each_batch() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, *(f"a{number}" for number in range(6)))
        await cache.invalidate_pattern("a*")
        for left in (4, 2, 0):
            await ticks(30)
            assert len(tier.data) == left
            clock.tick(PAUSE * 0.9)
            await ticks(30)
            assert len(tier.data) == left
            clock.tick(PAUSE)

    run(test)


@pytest.mark.parametrize("soft", [False, True])
def test_only_hard_patterns_that_no_tag_can_stand_for_are_looked_for(soft: bool) -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, "user:1:a")
        await cache.invalidate_pattern("user:1:*" if not soft else "user:?:*", soft=soft)
        await cache.invalidate("user")
        await paced(clock)
        assert tier.scans == []

    run(test)


def test_a_pattern_of_an_event_is_looked_for_too() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        cache.on("update", patterns=["activity:{user}*"])
        await stored(cache, "activity:1:a", "activity:2:a")
        await cache.emit("update", user="1")
        await paced(clock)
        assert list(tier.data) == ["shop:activity:2:a"]

    run(test)


def test_one_at_a_time_and_a_few_that_wait() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, *(f"{letter}{n}" for letter in "abcdefghijklmn" for n in range(3)))
        await cache.invalidate_pattern("a*")
        await ticks(30)
        for letter in "bcdefghijklmn":
            await cache.invalidate_pattern(f"{letter}*")
        await ticks(30)
        assert tier.scans == ["shop:a"]
        await paced(clock, 60)
        assert tier.scans == [f"shop:{letter}" for letter in "abcdefghijklmn"[: 1 + MAX_WAITING]]

    run(test)


def test_a_failure_ends_it_and_is_counted_and_opens_no_breaker() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        await stored(cache, *(f"a{number}" for number in range(6)))
        for _ in range(4):
            tier.fail(TierError("NOPERM"))
            receipt = await cache.invalidate_pattern("a*")
            assert receipt.durable
            await paced(clock)
        stats = cache.stats()
        assert stats["failures"] == {"L2": {"scan": 4}}
        assert stats["breakers"] == {}
        assert len(tier.data) == 6
        assert await cache.get("a1") is None

    run(test)


def test_closing_gives_up_what_is_left() -> None:
    async def test() -> None:
        tier = OpenTier()
        cache, clock = over(tier)
        async with cache:
            await stored(cache, *(f"a{number}" for number in range(6)))
            await cache.invalidate_pattern("a*")
            await cache.invalidate_pattern("b*")
            await ticks(30)
        left = dict(tier.data)
        assert left
        await paced(clock)
        assert tier.data == left
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


@pytest.mark.parametrize("tier", [None, ScriptedTier()])
def test_memory_is_looked_through_without_a_tier_that_can_be(tier: ScriptedTier | None) -> None:
    async def test() -> None:
        cache, clock = over(tier) if tier is not None else alone()
        await stored(cache, "a1", "b1")
        await cache.invalidate_pattern("a*")
        await paced(clock)
        assert [key[-2:] for key in held(cache)] == ["b1"]
        assert cache.stats()["failures"] == {}

    run(test)


# ---- Redis ----


async def keys_of(link: RedisLink, namespace: str) -> list[str]:
    return sorted([key.decode() async for batch in link.scan(f"{namespace}:*") for key in batch])


async def reclaimed(url: str) -> None:
    namespace = f"reclaim-{secrets.token_hex(4)}"
    link = RedisLink(url)
    async with TierCache.from_url(url, namespace=namespace, deadline=5.0) as cache:
        await stored(cache, *(f"a*{n}" for n in range(300)), "a{b}c", "ab", "b*1", "a\udc80*")
        await link.command("SET", f"{namespace}:a*foreign", "1")
        await link.command("HSET", f"{namespace}:a*hash", "1", "2")
        await cache.invalidate_pattern("a[*{]*")
        await cache.invalidate_pattern("a\udc80*?")
        await cache.invalidate_pattern("a\udc80?")
        left = [f"{namespace}:{key}" for key in ("a*foreign", "ab", "b*1")]
        async with asyncio.timeout(10):
            while await keys_of(link, namespace) != left:  # noqa: ASYNC110 - Redis has no event
                await asyncio.sleep(0.02)
        assert await link.command("EXISTS", f"{namespace}:a*hash") == 1
        assert await link.command("EXISTS", f"{{{namespace}}}:control") == 1
        assert await cache.get_many(["a*1", "a{b}c", "ab", "b*1"]) == {"ab": 1, "b*1": 1}
        assert cache.stats()["failures"] == {}
    await link.aclose()


def test_redis_has_its_memory_back(each_redis: RedisServer) -> None:
    asyncio.run(reclaimed(each_redis.url))


def test_a_cluster_has_its_memory_back(redis_cluster: ClusterServers) -> None:
    asyncio.run(reclaimed(redis_cluster.url))


def test_without_a_namespace_the_keys_of_others_and_control_state_stay(own_redis: RedisServer) -> None:
    async def test() -> None:
        link = RedisLink(own_redis.url)
        async with TierCache.from_url(own_redis.url, deadline=5.0) as cache:
            await stored(cache, "session:1", "other")
            for key in ("session:2", "{tiercache}:3", "%7Btiercache}:4"):
                await link.command("SET", key, "1")
            await cache.invalidate_pattern("*:?")
            await cache.invalidate_pattern("*")
            async with asyncio.timeout(10):
                while await link.command("EXISTS", "session:1", "other"):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            there = ("session:2", "{tiercache}:3", "%7Btiercache}:4", "{tiercache}:control", "{tiercache}:log")
            assert [await link.command("EXISTS", key) for key in there] == [1] * 5
        await link.aclose()

    run(test)
