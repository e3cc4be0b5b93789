"""Event loops that end in the middle of things: nothing is lost, and nobody is warned."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.invalidation.log import Record
from asgi_tiercache.testing import TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.asgi import turns, until


def test_an_invalidation_under_way_is_sent_by_whoever_uses_the_cache_next(caplog: pytest.LogCaptureFixture) -> None:
    log = ScriptedLog()
    cache = TierCache(log=log, clock=TickingClock())
    pending: set[asyncio.Task[object]] = set()

    async def first() -> None:
        await cache.set("k", 1, ttl=60, tags=["t"])
        log.pause()
        pending.add(asyncio.create_task(cache.invalidate("t")))
        await until(lambda: bool(log.waiting))

    async def second() -> None:
        assert await cache.get("k") is None
        await cache.aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(first())
        log.waiting.clear()
        log.resume()
        taken = log.count("append")
        asyncio.run(second())
        gc.collect()
    assert log.count("append") > taken
    assert "pending=0" in repr(cache.engine.invalidation)
    assert caplog.text == ""


@pytest.mark.parametrize("moment", range(8))
def test_an_invalidation_that_is_cancelled_at_any_moment_holds(moment: int) -> None:
    async def test() -> None:
        log = ScriptedLog()
        cache = TierCache(log=log, clock=TickingClock())
        async with cache:
            await cache.set("k", 1, ttl=60, tags=["t"])
            log.pause()
            calling = asyncio.create_task(cache.invalidate("t"))
            await turns(moment)
            if moment > 4:
                log.resume()
            begun = bool(log.count("append"))
            calling.cancel()
            await turns(moment)
            log.resume()
            if begun:
                assert await cache.get("k") is None

    asyncio.run(test())


def test_what_is_being_made_anew_ends_with_its_loop_and_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    cache, calls = TierCache(), list[int]()

    @cache.cached("k", ttl=60, tags=["t"])
    async def value() -> int:
        calls.append(1)
        if len(calls) == 2:
            await asyncio.Event().wait()
        return len(calls)

    async def ask() -> int:
        return await value()

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(ask()) == 1

        async def softly() -> None:
            await cache.invalidate("t", soft=True)
            assert await value() == 1
            await turns()

        asyncio.run(softly())
        assert len(calls) == 2

        async def again() -> None:
            assert await value() == 1
            await until(lambda: not cache.engine.fills.tasks())
            assert await value() == 3

        asyncio.run(again())
        gc.collect()
    assert caplog.text == ""


class LosesACancellation(ScriptedLog):
    """What `asyncio.wait_for` does up to Python 3.11, if the cancellation comes just when the reply does."""

    lost = False

    async def follow(self, after: int) -> list[Record]:
        try:
            return await super().follow(after)
        except asyncio.CancelledError:
            if self.lost:
                raise
            self.lost = True
            return []


def test_a_tail_whose_cancellation_was_lost_ends_all_the_same() -> None:
    async def closed(log: LosesACancellation) -> bool:
        async with asyncio.timeout(10), TierCache(log=log, clock=TickingClock()):
            await turns()
        return log.lost

    async def left(log: LosesACancellation) -> None:
        await TierCache(log=log, clock=TickingClock()).start()
        await turns()

    assert asyncio.run(closed(LosesACancellation()))
    left_behind = LosesACancellation()
    asyncio.run(left(left_behind))
    assert left_behind.lost
