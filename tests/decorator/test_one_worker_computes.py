"""Of several workers that want the same value, one computes it; the others wait for it, look, and go on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.engine.core import LEASE_SECONDS
from asgi_tiercache.testing import ScriptedLeases
from asgi_tiercache.tiers.leases import Ended, Lease
from tests.engine.doubles import Fleet, written
from tests.middleware.asgi import run, turns, until


class Origin:
    def __init__(self) -> None:
        self.reads = 0
        self.refuses = False
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


class Workers:
    """So many caches over one tier, one set of leases and one origin, with one function each."""

    def __init__(self, number: int = 2, **options: Any) -> None:
        self.fleet = Fleet()
        self.clock = self.fleet.clock
        self.leases = ScriptedLeases(self.clock)
        self.caches = [self.fleet.worker(leases=self.leases, random=lambda: 0.0) for _ in range(number)]
        self.origin = Origin()
        self.functions = [self._decorated(cache, options) for cache in self.caches]

    def _decorated(self, cache: TierCache, options: dict[str, Any]) -> Callable[[], Coroutine[Any, Any, int]]:
        @cache.cached("k", **{"ttl": 60, "tags": ["t"], **options})
        async def value() -> int:
            read = await self.origin.read()
            if self.origin.refuses:
                cache.current.no_store()
            return read

        return value

    def ask(self, number: int = 0) -> asyncio.Task[int]:
        return asyncio.create_task(self.functions[number]())

    async def __aenter__(self) -> Workers:
        for cache in self.caches:
            await cache.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for cache in self.caches:
            await cache.aclose()

    async def idle(self) -> None:
        await turns()
        await until(lambda: not any(cache.engine.fills.tasks() for cache in self.caches))

    async def wait_for_the_lease(self, number: int) -> None:
        """Return when so many workers wait, and sleep."""
        await until(lambda: self.leases.waiting == number)
        await turns()

    def tier_of(self, number: int) -> dict[str, Any]:
        """What the answers of a worker were."""
        tiers: dict[str, Any] = self.caches[number].stats()["tiers"]["L2"]
        return tiers


def test_fifty_calls_on_each_of_four_workers_are_one() -> None:
    async def test() -> None:
        async with Workers(4) as workers:
            workers.origin.open.clear()
            callers = [workers.ask(number % 4) for number in range(200)]
            await workers.wait_for_the_lease(3)
            workers.origin.open.set()
            assert await asyncio.gather(*callers) == [1] * 200
            assert workers.origin.reads == 1
            assert workers.leases.held == []
            assert [worker.stats()["answers"]["misses"] for worker in workers.caches].count(0) == 3
            assert sum(workers.tier_of(number)["answers"] for number in range(4)) == 3

    run(test())


def test_the_others_are_told_when_it_is_in_the_tier_and_the_caller_does_not_wait_for_that() -> None:
    async def test() -> None:
        async with Workers() as workers:
            workers.origin.open.clear()
            mine, theirs = workers.ask(0), workers.ask(1)
            await workers.wait_for_the_lease(1)
            workers.fleet.tier.hang()
            workers.origin.open.set()
            assert await mine == 1
            await turns()
            assert workers.leases.held == ["k"]
            assert not theirs.done()
            workers.fleet.tier.recover()
            assert await theirs == 1
            assert workers.leases.held == []
            assert workers.origin.reads == 1

    run(test())


def test_where_the_write_fails_the_others_compute_at_once() -> None:
    async def test() -> None:
        async with Workers(3) as workers:
            workers.origin.open.clear()
            callers = [workers.ask(number) for number in range(3)]
            await workers.wait_for_the_lease(2)
            workers.fleet.tier.fail()
            workers.origin.open.set()
            assert sorted(await asyncio.gather(*callers)) == [1, 2, 3]
            assert workers.leases.calls.count("acquire") == 3

    run(test())


@pytest.mark.parametrize("fails", [True, False])
def test_what_fails_or_may_not_be_shared_is_computed_by_each_worker_without_waiting_in_turn(fails: bool) -> None:
    async def test() -> None:
        async with Workers(3) as workers:
            workers.origin.open.clear()
            workers.origin.refuses = True
            workers.origin.error = RuntimeError("no database") if fails else None
            callers = [workers.ask(number) for number in range(3)]
            await workers.wait_for_the_lease(2)
            workers.origin.open.set()
            await asyncio.gather(*callers, return_exceptions=True)
            assert workers.origin.reads == 3
            assert workers.leases.calls.count("acquire") == 3
            assert workers.leases.held == []

    run(test())


def test_a_dead_holder_delays_by_its_lease_and_one_takes_over() -> None:
    async def test() -> None:
        async with Workers() as workers:
            workers.leases.seize("k", LEASE_SECONDS)
            callers = [workers.ask(number % 2) for number in range(10)]
            await workers.wait_for_the_lease(2)
            workers.clock.tick(LEASE_SECONDS)
            assert await asyncio.gather(*callers) == [1] * 10
            assert workers.origin.reads == 1

    run(test())


def test_after_lock_wait_it_is_computed_all_the_same() -> None:
    async def test() -> None:
        async with Workers(1, lock_wait=2) as workers:
            workers.leases.seize("k")
            caller = workers.ask()
            await workers.wait_for_the_lease(1)
            workers.clock.tick(2)
            assert await caller == 1
            assert workers.leases.held == ["k"]

    run(test())


@pytest.mark.parametrize("invalidated", [False, True])
def test_after_lock_wait_what_is_stale_is_returned_unless_it_was_invalidated_meanwhile(invalidated: bool) -> None:
    async def test() -> None:
        async with Workers(1, lock_wait=2, stale_if_error=300) as workers:
            assert await workers.ask() == 1
            workers.clock.tick(60)
            await turns()
            workers.leases.seize("k")
            callers = [workers.ask() for _ in range(3)]
            await workers.wait_for_the_lease(1)
            if invalidated:
                await workers.caches[0].invalidate("t")
            workers.clock.tick(2)
            assert await asyncio.gather(*callers) == [2 if invalidated else 1] * 3

    run(test())


def test_without_a_lock_each_worker_computes() -> None:
    async def test() -> None:
        async with Workers(lock=False) as workers:
            workers.origin.open.clear()
            callers = [workers.ask(0), workers.ask(1)]
            await until(lambda: workers.origin.reads == 2)
            workers.origin.open.set()
            await asyncio.gather(*callers)
            assert workers.leases.calls == []

    run(test())


def test_get_or_set_is_computed_by_one_too() -> None:
    async def test() -> None:
        async with Workers() as workers:
            workers.origin.open.clear()
            first, second = (
                asyncio.create_task(cache.get_or_set("direct", workers.origin.read, ttl=60)) for cache in workers.caches
            )
            await workers.wait_for_the_lease(1)
            workers.origin.open.set()
            assert [await first, await second] == [1, 1]

    run(test())


def test_a_lease_out_of_reach_stops_nobody() -> None:
    async def test() -> None:
        async with Workers() as workers:
            workers.leases.fail()
            assert [*await asyncio.gather(workers.ask(0), workers.ask(1))] == [1, 2]

    run(test())


def test_what_was_invalidated_while_one_waited_is_not_what_one_is_given() -> None:
    async def test() -> None:
        async with Workers() as workers:
            workers.origin.open.clear()
            mine, theirs = workers.ask(0), workers.ask(1)
            await workers.wait_for_the_lease(1)
            await workers.caches[1].invalidate("t")
            workers.origin.open.set()
            assert await mine == 1, "it arrived before"
            assert await theirs == 2

    run(test())


def test_the_stamp_is_that_of_when_the_function_is_called_not_of_when_one_began_to_wait() -> None:
    async def test() -> None:
        async with Workers(1) as workers:
            workers.leases.seize("k", 1.0)
            caller = workers.ask()
            await workers.wait_for_the_lease(1)
            await workers.caches[0].invalidate("t")
            workers.clock.tick(1.0)
            assert await caller == 1
            assert await workers.ask() == 1
            assert workers.origin.reads == 1, "what was read after the invalidation is good"

    run(test())


def test_what_another_version_of_the_function_has_stored_is_no_answer_and_no_error() -> None:
    async def test() -> None:
        fleet = Fleet()
        leases = ScriptedLeases(fleet.clock)
        old, new = fleet.worker(leases=leases), fleet.worker(leases=leases)

        @old.cached("k", ttl=60)
        async def before() -> str:
            return "text"

        async def after() -> datetime:
            return datetime(2026, 1, 1)

        async with old, new:
            assert await before() == "text"
            await written(old)
            # A rolling deployment: the template is the same, what is annotated is not.
            assert await new.cached("k", ttl=60)(after)() == datetime(2026, 1, 1)
            await written(new)
            await turns()
            assert leases.held == []

    run(test())


# ---- in the background ----


def test_a_renewal_uses_what_another_worker_has_made_already() -> None:
    async def test() -> None:
        async with Workers(stale_while_revalidate=300) as workers:
            assert await workers.ask(0) == 1
            await written(workers.caches[0])
            assert await workers.ask(1) == 1
            workers.clock.tick(60)
            assert await workers.ask(0) == 1
            await workers.idle()
            await written(workers.caches[0])
            assert await workers.ask(1) == 2, "found below"
            assert workers.origin.reads == 2

    run(test())


def test_a_renewal_ahead_of_the_expiry_looks_below_before_it_computes() -> None:
    async def test() -> None:
        async with Workers(early_refresh=1) as workers:
            workers.origin.open.clear()
            first = workers.ask(0)
            await until(lambda: workers.origin.reads == 1)
            workers.clock.tick(2.0)
            workers.origin.open.set()
            await first
            await written(workers.caches[0])
            workers.caches[1].engine.memory.clear()
            assert await workers.ask(1) == 1
            await workers.caches[1].engine.forget("k")  # the second learns how long a fill takes, too
            workers.origin.open.clear()
            second = workers.ask(1)
            await until(lambda: workers.origin.reads == 2)
            workers.clock.tick(2.0)
            workers.origin.open.set()
            await second
            await written(workers.caches[1])
            workers.caches[0].engine.memory.clear()
            assert await workers.ask(0) == 2
            workers.clock.tick(57.0)
            assert await workers.ask(0) == 2
            await workers.idle()
            await written(workers.caches[0])
            assert workers.origin.reads == 3
            assert await workers.ask(1) == 2
            await workers.idle()
            assert await workers.ask(1) == 3
            assert workers.origin.reads == 3
            assert workers.caches[1].stats()["refreshes"] == {"found": 1}

    run(test())


def test_what_is_refreshed_ahead_goes_on_being_so_where_another_worker_has_done_it() -> None:
    async def test() -> None:
        async with Workers(refresh_ahead=True) as workers:
            first, second = workers.caches
            workers.origin.open.clear()
            caller = workers.ask(0)
            await until(lambda: workers.origin.reads == 1)
            workers.clock.tick(0.5)  # the first one knows how long it takes, and is earlier
            workers.origin.open.set()
            await caller
            await written(first)
            workers.clock.tick(0.25)  # so that no tick below falls on an expiry
            for _ in range(18):
                assert await workers.ask(0) == await workers.ask(1)
                await workers.idle()
                for _ in range(10):
                    workers.clock.tick(1)
                    await workers.idle()
                    await written(first)
            await workers.idle()
            assert first.stats()["refreshes"] == {"stored": 3}
            assert second.stats()["refreshes"] == {"found": 3}
            assert workers.origin.reads == 4

    run(test())


def test_a_renewal_that_another_worker_is_at_is_left_to_it() -> None:
    async def test() -> None:
        async with Workers(stale_while_revalidate=300) as workers:
            await workers.ask(0)
            await turns()
            workers.clock.tick(60)
            workers.leases.seize("k")
            assert await workers.ask(0) == 1
            await workers.idle()
            assert workers.origin.reads == 1
            assert workers.leases.waiting == 0
            assert workers.caches[0].stats()["refreshes"] == {"elsewhere": 1}

    run(test())


def test_a_renewal_that_fails_ends_its_lease() -> None:
    async def test() -> None:
        async with Workers(stale_while_revalidate=300) as workers:
            await workers.ask(0)
            await turns()
            workers.clock.tick(60)
            workers.origin.error = RuntimeError("no database")
            assert await workers.ask(0) == 1
            await workers.idle()
            assert workers.leases.held == []
            assert workers.leases.calls.count("end") == 2

    run(test())


# ---- what `keep` tells ----


class Recorded(Lease):
    def __init__(self) -> None:
        self.ends: list[Ended] = []

    @property
    def lost(self) -> bool:
        return bool(self.ends)

    def end(self, ended: Ended) -> None:
        self.ends.append(ended)


@pytest.mark.parametrize(
    ("l2", "fails", "lifetime", "ended"),
    [
        (True, False, 60.0, Ended.STORED),
        (True, True, 60.0, Ended.NOTHING),
        (True, False, 0.0, Ended.NOTHING),
        (False, False, 60.0, Ended.NOTHING),
    ],
)
def test_keeping_an_entry_ends_the_lease_once(l2: bool, fails: bool, lifetime: float, ended: Ended) -> None:
    async def test() -> None:
        from tests.engine.test_engine import a_place, an_entry

        fleet, lease = Fleet(), Recorded()
        cache = fleet.worker() if l2 else TierCache(clock=fleet.clock)
        async with cache:
            if fails:
                fleet.tier.fail()
            cache.engine.keep(a_place(cache), "k", an_entry(cache, lifetime=lifetime), lease=lease)
            await turns()
            assert lease.ends == [ended]

    run(test())
