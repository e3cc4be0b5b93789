"""`cache.on_invalidate`: who is told of which invalidations, when, and what becomes of callbacks that fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from asgi_tiercache import ConfigError, TierCache
from asgi_tiercache.invalidation.listeners import MAX_WAITING, Purged
from asgi_tiercache.testing import TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.asgi import run, turns, until


class Told:
    """A callback that remembers."""

    def __init__(self) -> None:
        self.all: list[Purged] = []

    def __call__(self, purged: Purged) -> None:
        self.all.append(purged)

    @property
    def tags(self) -> list[tuple[str, ...]]:
        return [purged.tags for purged in self.all]


def fleet(log: ScriptedLog, number: int = 2) -> tuple[TickingClock, list[TierCache]]:
    clock = TickingClock()
    return clock, [TierCache(log=log, clock=clock) for _ in range(number)]


# ---- who is told ----


def test_the_maker_is_told_once_and_others_only_where_they_want_everybodys() -> None:
    async def test() -> None:
        _, (first, second) = fleet(ScriptedLog())
        mine, theirs, everywhere, everywhere_here = Told(), Told(), Told(), Told()
        first.on_invalidate(mine)
        first.on_invalidate(everywhere_here, everywhere=True)
        second.on_invalidate(theirs)
        second.on_invalidate(everywhere, everywhere=True)
        async with first, second:
            await first.invalidate("a", "b")
            await first.invalidate("c")
            await until(lambda: len(everywhere.all) == 2)
            await turns()
        for told in (mine, everywhere, everywhere_here):
            assert told.tags == [("a", "b"), ("c",)]
        assert theirs.all == []
        assert [purged.here for purged in (*mine.all, *everywhere.all)] == [True, True, False, False]

    run(test())


def test_on_other_workers_once_whether_the_tail_or_a_question_brings_it() -> None:
    async def test() -> None:
        clock, (first, second) = fleet(ScriptedLog())
        told = Told()
        second.on_invalidate(told, everywhere=True)
        async with first, second:
            for number in range(20):
                await first.invalidate(f"{number}")
                if number % 2:
                    clock.tick(1.0)
                    await second.get("k")
            await turns(50)
        assert told.tags == [(f"{number}",) for number in range(20)]

    run(test())


def test_an_invalidation_that_the_log_did_not_take_is_told_of_once_it_is_taken() -> None:
    async def test() -> None:
        log = ScriptedLog()
        clock, (cache,) = fleet(log, 1)
        told = Told()
        cache.on_invalidate(told)
        async with cache:
            log.fail()
            assert not (await cache.invalidate("a")).durable
            await turns()
            assert told.all == []
            log.recover()
            clock.tick(5.0)
            await cache.get("k")
            await turns()
            assert told.tags == [("a",)]

    run(test())


def test_an_invalidation_by_a_caller_who_was_cancelled_is_told_of() -> None:
    async def test() -> None:
        log = ScriptedLog()
        clock, (cache,) = fleet(log, 1)
        told = Told()
        cache.on_invalidate(told)
        async with cache:
            log.pause()
            calling = asyncio.create_task(cache.invalidate("a"))
            await until(lambda: bool(log.waiting))
            calling.cancel()
            await turns()
            log.resume()
            clock.tick(5.0)
            await cache.get("k")
            await turns()
            assert told.tags == [("a",)]

    run(test())


def test_a_worker_that_began_while_the_log_was_out_of_reach_is_not_told_what_happened_before() -> None:
    async def test() -> None:
        log = ScriptedLog()
        clock, (first, second) = fleet(log)
        told = Told()
        second.on_invalidate(told, everywhere=True)
        async with first:
            for number in range(10):
                await first.invalidate(f"old {number}")
            log.fail()
            async with second:
                await turns()
                log.recover()
                clock.tick(1.0)
                await turns()
                await first.invalidate("new")
                clock.tick(1.0)
                await turns()
                await second.get("k")
                await turns()
        assert told.tags in ([("new",)], [])  # it may have heard of the log only afterwards

    run(test())


# ---- what they are told ----


def test_what_was_purged_is_told_in_the_words_of_whoever_purged_it() -> None:
    async def test() -> None:
        cache, told = TierCache(namespace="shop"), Told()
        cache.on_invalidate(told)
        async with cache:
            receipts = [
                await cache.invalidate("a:1"),
                await cache.invalidate_key("k"),
                await cache.invalidate_path("/videos/ü"),
                await cache.invalidate_route("/videos/{id}"),
                await cache.invalidate_user("u1"),
                await cache.invalidate_pattern("user:*", soft=True),
                await cache.invalidate_pattern("us?r:*"),
                await cache.clear(),
            ]
        tag, key, path, route, user, prefix, glob, everything = told.all
        assert [purged.position for purged in told.all] == [receipt.position for receipt in receipts]
        assert tag.tags == ("a:1",)
        assert (key.keys, key.tags) == (("shop:k",), ())
        assert "/videos/%C3%BC" in path.paths
        assert route.routes == ("/videos/{id}",)
        assert len(user.users) == 1
        assert "u1" not in user.users[0]
        assert (prefix.patterns, prefix.soft) == (("shop:user:*",), True)
        assert (glob.patterns, glob.soft) == (("shop:us?r:*",), False)
        assert everything.everything
        assert not glob.everything

    run(test())


def test_a_clock_that_moves_on_by_itself_is_no_invalidation() -> None:
    async def test() -> None:
        clock, told = TickingClock(), Told()
        cache = TierCache(clock=clock)
        cache.on_invalidate(told, everywhere=True)
        async with cache:
            await cache.invalidate("a", settle=1)
            clock.tick(2)
            await cache.get("k")
            await cache.invalidate()  # names nothing
        assert told.tags == [("a",)]

    run(test())


# ---- how they are called ----


def test_async_ones_are_awaited_one_after_another_behind_the_callers_back() -> None:
    async def test() -> None:
        cache, said, opened = TierCache(), list[str](), asyncio.Event()

        async def slow(purged: Purged) -> None:
            said.append(f"begin {purged.tags[0]}")
            await opened.wait()
            said.append(f"end {purged.tags[0]}")

        cache.on_invalidate(slow)
        async with cache:
            await cache.invalidate("a")
            await cache.invalidate("b")
            await turns()
            assert said == ["begin a"]
            opened.set()
        assert said == ["begin a", "end a", "begin b", "end b"], "and awaited on close"

    run(test())


def test_one_that_fails_is_logged_and_counted_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_later(_: Purged) -> None:
        raise ConnectionError("CDN")

    def fails(_: Purged) -> None:
        raise ValueError("CDN")

    async def test() -> None:
        for callback in (fails, fails_later, told):
            cache.on_invalidate(callback)
        async with cache:
            assert (await cache.invalidate("a")).durable
            await cache.invalidate("b")

    cache, told = TierCache(), Told()
    with caplog.at_level(logging.ERROR, "asgi_tiercache"):
        run(test())
    assert told.tags == [("a",), ("b",)]
    assert cache.stats()["callbacks_failed"] == {"ValueError": 2, "ConnectionError": 2}
    assert caplog.text.count("of on_invalidate failed") == 4


def test_one_that_gives_up_by_cancelling_does_not_keep_the_others_from_being_told() -> None:
    async def test() -> None:
        cache, told = TierCache(), Told()

        async def cancels(_: Purged) -> None:
            raise asyncio.CancelledError

        cache.on_invalidate(cancels)
        cache.on_invalidate(told)
        async with cache:
            await cache.invalidate("a")
            await cache.invalidate("b")
        assert told.tags == [("a",), ("b",)]
        assert cache.stats()["callbacks_failed"] == {"CancelledError": 2}

    run(test())


def test_slow_ones_are_bounded_and_what_they_miss_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        cache, told, opened = TierCache(), Told(), asyncio.Event()

        async def slow(purged: Purged) -> None:
            await opened.wait()
            told(purged)

        cache.on_invalidate(slow)
        async with cache:
            for number in range(MAX_WAITING + 10):
                await cache.invalidate(f"{number}")
            await turns()
            opened.set()
        assert len(told.all) <= MAX_WAITING + 1
        assert told.tags[-1] == (f"{MAX_WAITING + 9}",), "the latest are told of"
        assert cache.stats()["callbacks_failed"]["dropped"] == MAX_WAITING + 10 - len(told.all)

    with caplog.at_level(logging.CRITICAL, "asgi_tiercache"):
        run(test())


def test_what_they_read_is_not_taken_for_read_by_whoever_invalidated() -> None:
    async def test() -> None:
        cache, calls = TierCache(), list[str]()

        @cache.cached("other", ttl=60, tags=["other"])
        async def other() -> str:
            return "other"

        async def reads(_: Purged) -> None:
            await other()

        cache.on_invalidate(reads)

        @cache.cached("maker", ttl=60)
        async def maker() -> str:
            calls.append("maker")
            await cache.invalidate("something")
            await turns()
            return "made"

        async with cache:
            await maker()
            await cache.invalidate("other")
            await maker()
        assert calls == ["maker"]

    run(test())


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="callback"):
        TierCache().on_invalidate("purge")  # type: ignore[arg-type]


def test_in_loops_one_after_another_everybody_is_told() -> None:
    cache, told = TierCache(), Told()
    cache.on_invalidate(told)

    async def once(tag: str) -> None:
        async with cache:
            await cache.invalidate(tag)

    for tag in "abc":
        asyncio.run(once(tag))
    assert told.tags == [("a",), ("b",), ("c",)]
