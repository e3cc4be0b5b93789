"""Any of twenty callers leave, at any moment: the others are answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_tiercache import TierCache
from asgi_tiercache.testing import ScriptedLeases, TickingClock
from tests.engine.doubles import Fleet
from tests.tiers.doubles import ticks

CALLERS = 20

Leaving = st.lists(st.tuples(st.integers(0, CALLERS - 1), st.integers(0, 12)), max_size=CALLERS)
"""Who leaves, and how many turns of the loop after the one who left before."""


class Function:
    """Answers after some turns of the loop; or fails."""

    def __init__(self, steps: int, *, fails: bool, stubborn: bool) -> None:
        self.calls = 0
        self.running = 0
        self._steps, self._fails, self._stubborn = steps, fails, stubborn

    async def __call__(self) -> int:
        self.calls += 1
        self.running += 1
        mine = self.calls
        try:
            for _ in range(self._steps):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    if not self._stubborn:
                        raise
            if self._fails:
                raise ValueError(mine)
            return mine
        finally:
            self.running -= 1


async def leave(callers: list[asyncio.Task[Any]], leaving: list[tuple[int, int]]) -> set[asyncio.Task[Any]]:
    left = set()
    for number, turns in leaving:
        await ticks(turns)
        if callers[number].cancel():
            left.add(callers[number])
    return left


async def all_is_well(
    caches: list[TierCache], function: Function, callers: list[asyncio.Task[Any]], left: set[asyncio.Task[Any]]
) -> None:
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    for caller, outcome in zip(callers, outcomes, strict=True):
        if caller not in left:
            assert isinstance(outcome, int | ValueError)
            assert 1 <= int(str(outcome)) <= function.calls
    for cache in caches:
        await cache.aclose()
    await ticks(40)
    assert function.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for cache in caches:
        assert all(cache.engine.fills.under_way(key) is None for key in ("k", "stale"))


@given(
    leaving=Leaving,
    steps=st.integers(0, 10),
    fails=st.booleans(),
    stubborn=st.booleans(),
    options=st.sampled_from([{}, {"finish": False}, {"hard_timeout": 5}, {"finish": False, "hard_timeout": 5}]),
)
def test_of_one_process(
    leaving: list[tuple[int, int]], steps: int, fails: bool, stubborn: bool, options: dict[str, Any]
) -> None:
    async def body() -> None:
        cache, function = TierCache(clock=TickingClock()), Function(steps, fails=fails, stubborn=stubborn)

        @cache.cached("k", ttl=60, **options)
        async def value() -> int:
            return await function()

        callers = [asyncio.create_task(value()) for _ in range(CALLERS)]
        left = await leave(callers, leaving)
        await all_is_well([cache], function, callers, left)
        assert function.calls <= 1 + len(left)

    asyncio.run(body())


async def befall(fleet: Fleet, leases: ScriptedLeases, cache: TierCache, trouble: str) -> None:
    if trouble == "seize":
        leases.seize("k", 3.0)
    elif trouble == "fail":
        leases.fail()
    elif trouble == "recover":
        leases.recover()
    elif trouble == "tick":
        fleet.clock.tick(1.0)
    elif trouble == "jump":
        fleet.clock.jump(-3600.0)
    else:
        await cache.invalidate("t")


@settings(max_examples=60)
@given(
    leaving=Leaving,
    steps=st.integers(0, 10),
    fails=st.booleans(),
    stubborn=st.booleans(),
    finish=st.booleans(),
    troubles=st.lists(st.sampled_from(["seize", "fail", "recover", "tick", "jump", "invalidate"]), max_size=4),
)
def test_of_a_fleet_whose_leases_are_taken_lost_and_out_of_reach(
    leaving: list[tuple[int, int]], steps: int, fails: bool, stubborn: bool, finish: bool, troubles: list[str]
) -> None:
    async def body() -> None:
        fleet, function = Fleet(), Function(steps, fails=fails, stubborn=stubborn)
        leases = ScriptedLeases(fleet.clock)
        caches = [fleet.worker(leases=leases) for _ in range(2)]

        def decorated(cache: TierCache) -> Any:
            @cache.cached("k", ttl=60, tags=["t"], lock_wait=4, finish=finish)
            async def value() -> int:
                return await function()

            return value

        for cache in caches:
            await cache.start()
        functions = [decorated(cache) for cache in caches]
        callers = [asyncio.create_task(functions[number % 2]()) for number in range(CALLERS)]
        leavers = asyncio.create_task(leave(callers, leaving))
        for trouble in troubles:
            await ticks(3)
            await befall(fleet, leases, caches[0], trouble)
        left = await leavers
        while not all(caller.done() for caller in callers):
            await ticks(5)
            fleet.clock.tick(1.0)
        await all_is_well(caches, function, callers, left)
        assert leases.waiting == 0
        fleet.clock.tick(3.0)
        assert leases.held == []

    asyncio.run(body())
