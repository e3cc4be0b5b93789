from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from asgi_tiercache.errors import TierError
from asgi_tiercache.testing import ScriptedTier, TickingClock, assert_hit, assert_miss
from asgi_tiercache.types import Write
from tests.tiers.doubles import ticks, until

# ---- the clock ----


def test_the_clock_moves_only_on_command() -> None:
    clock = TickingClock(time=100.0, monotonic=5.0)
    assert (clock.time(), clock.monotonic()) == (100.0, 5.0)
    clock.tick(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 7.5)
    clock.jump(-50)
    assert (clock.time(), clock.monotonic()) == (52.5, 7.5)


def test_sleepers_wake_in_their_order_once_their_time_has_come() -> None:
    async def body() -> None:
        clock = TickingClock()
        woken: list[float] = []

        async def sleep(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        tasks = [asyncio.create_task(sleep(seconds)) for seconds in (3.0, 1.0, 2.0)]
        await ticks(2)
        clock.tick(0.9)
        await ticks(2)
        assert woken == []
        clock.tick(1.1)
        await ticks(2)
        assert woken == [1.0, 2.0]
        clock.tick(10)
        await asyncio.gather(*tasks)
        assert woken == [1.0, 2.0, 3.0]

    asyncio.run(body())


def test_a_sleeper_that_was_cancelled_is_not_woken() -> None:
    async def body() -> None:
        clock = TickingClock()
        task = asyncio.create_task(clock.sleep(1))
        await ticks(2)
        task.cancel()
        await ticks(2)
        clock.tick(1)
        assert task.cancelled()

    asyncio.run(body())


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_at_all_has_gone_by_already(seconds: float) -> None:
    async def body() -> None:
        task = asyncio.create_task(TickingClock().sleep(seconds))
        await ticks(5)
        ended = task.done()
        task.cancel()
        assert ended

    asyncio.run(body())


# ---- the tier ----


def test_a_scripted_tier_holds_what_it_is_given_and_remembers_what_it_was_asked() -> None:
    async def body() -> None:
        tier = ScriptedTier("L3")
        await tier.set_many([Write("a", b"1", 5), Write("b", b"2", 5)])
        assert await tier.get_many(["b", "none", "a"]) == [b"2", None, b"1"]
        await tier.delete_many(["a", "none"])
        assert tier.data == {"b": b"2"}
        await tier.ping()
        await tier.aclose()
        assert tier.calls == ["set_many", "get_many", "delete_many", "ping", "aclose"]
        assert tier.name == "L3"

    asyncio.run(body())


def test_with_a_clock_entries_expire() -> None:
    async def body() -> None:
        clock = TickingClock()
        tier = ScriptedTier(clock=clock)
        await tier.set_many([Write("a", b"1", 5)])
        clock.tick(4.9)
        assert await tier.get_many(["a"]) == [b"1"]
        clock.tick(0.1)
        assert await tier.get_many(["a"]) == [None]

    asyncio.run(body())


def test_a_tier_that_is_told_to_fail_fails_until_it_recovers() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        tier.fail()
        for _ in range(2):
            with pytest.raises(TierError):
                await tier.get_many(["a"])
        with pytest.raises(TierError):
            await tier.ping()
        tier.recover()
        assert await tier.get_many(["a"]) == [None]

    asyncio.run(body())


def test_a_tier_can_be_told_to_fail_a_few_times_in_given_ways() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        tier.fail(OSError("x"), RuntimeError("y"))
        with pytest.raises(OSError, match="x"):
            await tier.get_many(["a"])
        with pytest.raises(RuntimeError, match="y"):
            await tier.set_many([])
        assert await tier.get_many(["a"]) == [None]

    asyncio.run(body())


def test_a_tier_that_hangs_answers_when_it_recovers() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        tier.hang()
        first = asyncio.create_task(tier.get_many(["a"]))
        await until(lambda: tier.calls == ["get_many"])
        await ticks(3)
        assert not first.done()
        tier.recover()
        assert await first == [None]

    asyncio.run(body())


def test_a_tier_told_twice_to_hang_leaves_nobody_behind_when_it_recovers() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        tier.hang()
        first = asyncio.create_task(tier.get_many(["a"]))
        await until(lambda: tier.calls == ["get_many"])
        tier.hang()
        tier.recover()
        await ticks(3)
        ended = first.done()
        first.cancel()
        assert ended

    asyncio.run(body())


# ---- assertions on responses ----


@dataclass
class Response:
    headers: dict[str, str]


def answered(status: str | None) -> Response:
    return Response({} if status is None else {"cache-status": status})


def test_a_hit_is_told_by_the_cache_nearest_to_the_client() -> None:
    assert_hit(answered("tiercache; hit; ttl=5; detail=L1"))
    assert_hit(answered("tiercache; hit; detail=L1"), "L1")
    assert_hit(answered("inner; fwd=uri-miss, tiercache; hit; detail=L2"), "L2")
    for status in (None, "tiercache; fwd=uri-miss; stored", "inner; hit, tiercache; fwd=bypass"):
        with pytest.raises(AssertionError, match="not a hit"):
            assert_hit(answered(status))
    with pytest.raises(AssertionError, match="not from L2"):
        assert_hit(answered("tiercache; hit; detail=L1"), "L2")


def test_a_miss_may_be_asked_whether_it_was_stored() -> None:
    assert_miss(answered("tiercache; fwd=uri-miss; stored"))
    assert_miss(answered("tiercache; fwd=uri-miss; stored"), stored=True)
    assert_miss(answered("tiercache; fwd=uri-miss; detail=no-store"), stored=False)
    with pytest.raises(AssertionError, match="a hit"):
        assert_miss(answered("tiercache; hit; detail=L1"))
    with pytest.raises(AssertionError, match="stored"):
        assert_miss(answered("tiercache; fwd=uri-miss"), stored=True)


def test_a_response_that_met_no_cache_is_no_miss() -> None:
    with pytest.raises(AssertionError):
        assert_miss(answered(None))
