"""Soft invalidation of function values: returned once more, while they are computed anew in the background."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.engine.background import MAX_FOR_EACH
from asgi_tiercache.invalidation.service import Receipt
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.asgi import run, turns, until


async def idle(cache: TierCache) -> None:
    """Wait until nothing is being computed."""
    await turns()
    await until(lambda: not cache.engine.fills.tasks())


class Origin:
    """Counts how often it is read; raises what it is told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def read(self) -> int:
        self.reads += 1
        mine = self.reads
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return mine


Ask = Callable[[TierCache, Origin], Callable[[], Coroutine[Any, Any, Any]]]


def cached(cache: TierCache, origin: Origin) -> Callable[[], Coroutine[Any, Any, Any]]:
    @cache.cached("k", ttl=60, tags=["t"])
    async def value() -> int:
        return await origin.read()

    return value


def get_or_set(cache: TierCache, origin: Origin) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: cache.get_or_set("k", origin.read, ttl=60, tags=["t"])


@pytest.mark.parametrize("way", [cached, get_or_set])
def test_it_is_returned_once_more_while_it_is_computed_once_in_the_background(way: Ask) -> None:
    async def test() -> None:
        cache, origin = TierCache(clock=TickingClock()), Origin()
        value = way(cache, origin)
        assert await value() == 1
        origin.open.clear()
        await cache.invalidate("t", soft=True)
        assert [await value() for _ in range(5)] == [1] * 5
        await turns()
        assert origin.reads == 2
        origin.open.set()
        await idle(cache)
        assert [await value(), origin.reads] == [2, 2]
        assert cache.stats()["refreshes"] == {"stored": 1}

    run(test())


@pytest.mark.parametrize("way", [cached, get_or_set])
def test_where_it_cannot_be_computed_the_stale_one_stays(way: Ask, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        value = way(cache, origin)
        assert await value() == 1
        await cache.invalidate("t", soft=True)
        origin.error = RuntimeError("no database")
        for _ in range(2):
            assert await value() == 1
            await idle(cache)
        assert cache.stats()["refreshes"] == {"failed": 2}
        origin.error = None
        assert await value() == 1
        await idle(cache)
        assert await value() == 4

    with caplog.at_level(logging.ERROR, "asgi_tiercache"):
        run(test())
    assert "while its stale value was being made anew" in caplog.text


@pytest.mark.parametrize("l2", [False, True])
def test_what_may_not_be_stored_any_more_is_not_returned_any_more(l2: bool) -> None:
    async def test() -> None:
        cache, origin = TierCache(l2=ScriptedTier() if l2 else None), Origin()

        @cache.cached("k", ttl=60, tags=["t"])
        async def value() -> int:
            read = await origin.read()
            if read > 1:
                cache.current.no_store()
            return read

        assert await value() == 1
        await cache.invalidate("t", soft=True)
        assert await value() == 1
        await idle(cache)
        assert [await value(), await value()] == [3, 4]
        assert cache.stats()["refreshes"] == {"no-store": 1}

    run(test())


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_what_was_invalidated_hard_is_never_returned_whatever_is_said_softly(order: tuple[bool, bool]) -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        value = cached(cache, origin)
        await value()
        for soft in order:
            await cache.invalidate("t", soft=soft)
        assert await value() == 2

    run(test())


def test_what_set_has_stored_is_a_miss_for_get_since_nobody_could_make_it_anew() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        await cache.set("k", "old", ttl=60, tags=["t"])
        await cache.invalidate("t", soft=True)
        assert await cache.get("k") is None
        assert await cache.get_many(["k"]) == {}
        assert await cache.get_or_set("k", origin.read, ttl=60, tags=["t"]) == "old", "here there is somebody"
        await idle(cache)
        assert await cache.get("k") == 1

    run(test())


def test_by_key_pattern_and_everything() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        value, expected = cached(cache, origin), 1
        ways: list[Callable[[], Coroutine[Any, Any, Receipt]]] = [
            lambda: cache.invalidate_key("k", soft=True),
            lambda: cache.invalidate_pattern("[jk]", soft=True),
            lambda: cache.clear(soft=True),
        ]
        for way in ways:
            assert await value() == expected
            await way()
            assert await value() == expected
            await idle(cache)
            expected += 1
            assert await value() == expected

    run(test())


def test_what_another_worker_has_computed_anew_is_used() -> None:
    async def test() -> None:
        tier, log, origin = ScriptedTier(), ScriptedLog(), Origin()
        first, second = (TierCache(l2=tier, log=log) for _ in range(2))
        async with first, second:
            mine, theirs = cached(first, origin), cached(second, origin)
            assert await mine() == 1
            await until(lambda: bool(tier.data))
            assert await theirs() == 1
            await first.invalidate("t", soft=True)
            await turns()
            assert await mine() == 1
            await idle(first)
            await until(lambda: tier.calls.count("set_many") == 2)
            assert await theirs() == 2
            await turns()
            assert origin.reads == 2

    run(test())


# ---- values inside values ----


def test_a_value_made_from_a_stale_one_is_stale_and_becomes_fresh_with_it() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        inner = cached(cache, origin)

        @cache.cached("outer", ttl=60)
        async def outer() -> list[int]:
            return [await inner()]

        assert await outer() == [1]
        await cache.invalidate("t", soft=True)
        assert await outer() == [1]
        await idle(cache)  # made anew from what was stale still, which in turn was made anew
        assert await inner() == 2
        seen = []
        for _ in range(2):
            seen.append(await outer())
            await idle(cache)
        assert await outer() == [2]
        assert origin.reads == 2

    run(test())


def test_a_new_value_that_read_a_stale_one_is_not_fresh_itself() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        inner = cached(cache, origin)
        await inner()
        await cache.invalidate("t", soft=True)
        origin.open.clear()

        @cache.cached("outer", ttl=60)
        async def outer() -> list[int]:
            return [await inner()]

        assert await outer() == [1]
        origin.open.set()
        await idle(cache)
        await outer()
        await idle(cache)
        assert await outer() == [2], "it was stored as old as what it was made from"

    run(test())


def test_hard_after_soft_reaches_what_was_made_from_it() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        inner = cached(cache, origin)

        @cache.cached("outer", ttl=60)
        async def outer() -> list[int]:
            return [await inner()]

        await outer()
        await cache.invalidate("t", soft=True)
        await outer()
        await cache.invalidate("t")
        assert await outer() == [origin.reads]

    run(test())


# ---- how it runs ----


def test_it_runs_in_nobodys_context_and_leaves_that_of_whoever_was_given_the_stale_one_alone() -> None:
    """What a context variable says of the caller is not in the key."""

    async def test() -> None:
        variable, seen = contextvars.ContextVar("variable", default="nobody"), list[str]()
        cache = TierCache()

        @cache.cached("k", ttl=60, tags=["t"])
        async def value() -> int:
            seen.append(variable.get())
            variable.set("changed")
            return len(seen)

        await value()
        await cache.invalidate("t", soft=True)
        variable.set("second")
        await value()
        await idle(cache)
        assert seen == ["nobody", "nobody"]
        assert variable.get() == "second"

    run(test())


def test_whoever_reads_a_stale_value_does_not_wait_for_it_nor_end_it_by_leaving() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        value = cached(cache, origin)
        await value()
        await cache.invalidate("t", soft=True)
        origin.open.clear()
        reader = asyncio.create_task(value())
        assert await reader == 1
        reader.cancel()
        await turns()
        origin.open.set()
        await idle(cache)
        assert await value() == 2

    run(test())


def test_only_so_many_are_computed_at_the_same_time() -> None:
    async def test() -> None:
        cache, origin = TierCache(), Origin()
        keys = [f"k{number}" for number in range(MAX_FOR_EACH + 5)]

        async def values() -> None:
            for key in keys:
                await cache.get_or_set(key, origin.read, ttl=60, tags=["t"])

        await values()
        await cache.invalidate("t", soft=True)
        origin.open.clear()
        await values()
        await turns()
        assert origin.reads == len(keys) + MAX_FOR_EACH
        origin.open.set()
        await idle(cache)
        await values()
        await idle(cache)
        assert origin.reads == 2 * len(keys)

    run(test())


def test_closing_waits_for_what_is_being_computed_and_for_its_way_into_the_lower_tier() -> None:
    async def test() -> None:
        tier, origin = ScriptedTier(), Origin()
        cache = TierCache(l2=tier)
        value = cached(cache, origin)
        await value()
        await cache.invalidate("t", soft=True)
        origin.open.clear()
        await value()
        await turns()
        closing = asyncio.create_task(cache.aclose())
        await turns()
        assert not closing.done()
        origin.open.set()
        await closing
        assert tier.calls.count("set_many") == 2

    run(test())


def test_plain_functions_in_threads_are_refreshed_likewise() -> None:
    cache = TierCache()
    calls: list[int] = []

    @cache.cached("k", ttl=60, tags=["t"])
    def value() -> int:
        calls.append(1)
        return len(calls)

    async def test() -> None:
        async with cache:
            assert await asyncio.to_thread(value) == 1
            await cache.invalidate("t", soft=True)
            assert await asyncio.to_thread(value) == 1
            await until(lambda: len(calls) == 2 and not cache.engine.fills.tasks())
            assert await asyncio.to_thread(value) == 2

    run(test())
    cache.close()


def test_in_a_program_without_a_loop_they_are_refreshed_too() -> None:
    cache = TierCache()
    calls: list[int] = []

    @cache.cached("k", ttl=60, tags=["t"])
    def value() -> int:
        calls.append(1)
        return len(calls)

    assert value() == 1
    asyncio.run(softly(cache))
    assert value() == 1
    for _ in range(100_000):
        if value() == 2:
            break
    assert (value(), len(calls)) == (2, 2)
    cache.close()


async def softly(cache: TierCache) -> None:
    await cache.invalidate("t", soft=True)
