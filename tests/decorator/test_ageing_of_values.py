"""Values of functions grow old: stale while they are made anew, for errors, for lack of time; and renewed early.

The clock ticks on command, and functions do as they are told.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from asgi_tiercache import ConfigError, Policy, TierCache
from asgi_tiercache.engine.core import REFRESH_SECONDS
from asgi_tiercache.testing import TickingClock
from tests.engine.doubles import Fleet, written
from tests.middleware.asgi import run, turns, until


class Origin:
    """Answers with the number of the call; or raises, waits, or will not end, as it is told."""

    def __init__(self) -> None:
        self.reads = 0
        self.cancelled = 0
        self.error: Exception | None = None
        self.stubborn = False
        self.open = asyncio.Event()
        self.open.set()

    async def read(self) -> int:
        self.reads += 1
        mine = self.reads
        while not self.open.is_set():
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.stubborn:
                    raise
        if self.error is not None:
            raise self.error
        return mine


class Service:
    """A cache with a clock that ticks, and one function over an origin."""

    def __init__(self, cache: TierCache | None = None, clock: TickingClock | None = None, **options: Any) -> None:
        self.clock = clock or TickingClock()
        self.chance = 0.0
        self.cache = cache or TierCache(clock=self.clock, random=lambda: self.chance)
        self.origin = Origin()

        @self.cache.cached("k", **{"ttl": 60, "tags": ["t"], **options})
        async def value() -> int:
            return await self.origin.read()

        self.value: Callable[[], Coroutine[Any, Any, int]] = value

    async def idle(self) -> None:
        """Return when nothing is being computed."""
        await turns()
        await until(lambda: not self.cache.engine.fills.tasks())

    def asks(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.value())

    @property
    def refreshes(self) -> dict[str, int]:
        counts: dict[str, int] = self.cache.stats()["refreshes"]
        return counts


# ---- stale-while-revalidate ----


def test_past_its_freshness_it_is_returned_at_once_and_computed_once_in_the_background() -> None:
    async def test() -> None:
        service = Service(stale_while_revalidate=30)
        assert await service.value() == 1
        service.clock.tick(60)
        service.origin.open.clear()
        assert [await service.value() for _ in range(5)] == [1] * 5
        await turns()
        assert service.origin.reads == 2
        service.origin.open.set()
        await service.idle()
        assert [await service.value(), service.origin.reads, service.refreshes] == [2, 2, {"stored": 1}]

    run(test())


def test_past_the_seconds_for_which_it_may_be_stale_callers_wait() -> None:
    async def test() -> None:
        service = Service(stale_while_revalidate=30)
        await service.value()
        service.clock.tick(60 + 30.5)
        assert await service.value() == 2

    run(test())


def test_what_is_stale_by_time_is_no_value_for_get() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        await cache.set("k", "old", ttl=60)
        clock.tick(60)
        assert await cache.get("k") is None

    run(test())


def test_hard_invalidated_values_are_not_returned_while_they_are_made_anew() -> None:
    async def test() -> None:
        service = Service(stale_while_revalidate=30, stale_if_error=300)
        await service.value()
        service.clock.tick(60)
        await service.cache.invalidate("t")
        assert await service.value() == 2

    run(test())


# ---- stale-if-error ----


def test_a_function_that_fails_is_stood_in_for_by_what_it_returned_before(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        service = Service(stale_if_error=300)
        await service.value()
        service.clock.tick(60 + 299)
        service.origin.error = RuntimeError("no database")
        assert await service.value() == 1
        service.clock.tick(1)
        with pytest.raises(RuntimeError, match="no database"):
            await service.value()
        service.origin.error = None
        assert await service.value() == 4

    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        run(test())
    assert "what it returned before stands in: RuntimeError('no database')" in caplog.text


def test_it_stands_in_for_all_who_waited_and_the_function_was_called_once() -> None:
    async def test() -> None:
        service = Service(stale_if_error=300)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        service.origin.error = RuntimeError("no database")
        callers = [service.asks() for _ in range(10)]
        await until(lambda: service.origin.reads == 2)
        service.origin.open.set()
        assert await asyncio.gather(*callers) == [1] * 10
        assert service.origin.reads == 2

    run(test())


def test_what_was_invalidated_while_the_function_ran_stands_in_for_nothing() -> None:
    async def test() -> None:
        service = Service(stale_if_error=300)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        service.origin.error = RuntimeError("no database")
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.origin.reads == 2)
        await service.cache.invalidate("t")
        service.origin.open.set()
        for caller in callers:
            with pytest.raises(RuntimeError):
                await caller

    run(test())


def test_what_was_made_from_a_stand_in_is_invalidated_with_it() -> None:
    async def test() -> None:
        service = Service(stale_if_error=300)

        @service.cache.cached("outer", ttl=600)
        async def outer() -> list[int]:
            return [await service.value()]

        await service.value()
        service.clock.tick(60)
        service.origin.error = RuntimeError("no database")
        assert await outer() == [1]
        service.origin.error = None
        await service.cache.invalidate("t")
        assert await outer() == [3]

    run(test())


def test_a_value_that_cannot_be_stored_is_the_callers_error_and_not_hidden() -> None:
    async def test() -> None:
        clock, values = TickingClock(), [1, object()]
        cache = TierCache(clock=clock)

        @cache.cached("k", ttl=60, stale_if_error=300)
        async def value() -> Any:
            return values.pop(0)

        assert await value() == 1
        clock.tick(60)
        with pytest.raises(Exception, match="object"):
            await value()

    run(test())


# ---- soft and hard timeouts ----


def test_whoever_waits_longer_than_softly_allowed_is_given_the_stale_value_and_the_new_one_is_stored() -> None:
    async def test() -> None:
        service = Service(stale_if_error=300, soft_timeout=0.5)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.clock.sleeping == 3)
        service.clock.tick(0.4)
        late = service.asks()
        await until(lambda: service.clock.sleeping == 4)
        assert not any(caller.done() for caller in callers)
        service.clock.tick(0.1)
        assert await asyncio.gather(*callers, late) == [1] * 4, "counted from when the function was called"
        assert await service.value() == 1, "who comes now does not wait at all"
        service.origin.open.set()
        await service.idle()
        assert [await service.value(), service.origin.reads] == [2, 2]

    run(test())


def test_without_anything_stale_everybody_waits() -> None:
    async def test() -> None:
        service = Service(stale_if_error=300, soft_timeout=0.5)
        service.origin.open.clear()
        caller = service.asks()
        await turns()
        service.clock.tick(10)
        await turns()
        assert not caller.done()
        service.origin.open.set()
        assert await caller == 1

    run(test())


def test_a_function_that_takes_too_long_is_cancelled_and_everybody_told() -> None:
    async def test() -> None:
        service = Service(hard_timeout=5)
        service.origin.open.clear()
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.clock.sleeping == 1)
        service.clock.tick(5)
        for caller in callers:
            with pytest.raises(TimeoutError, match="5 s"):
                await caller
        await turns()
        assert [service.origin.reads, service.origin.cancelled] == [1, 1]
        service.origin.open.set()
        assert await service.value() == 2

    run(test())


def test_after_the_hard_timeout_the_stale_value_is_returned_where_that_is_allowed() -> None:
    async def test() -> None:
        service = Service(hard_timeout=5, stale_if_error=300)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.clock.sleeping == 1)
        service.clock.tick(5)
        assert await asyncio.gather(*callers) == [1] * 3

    run(test())


def test_a_function_that_ignores_its_cancellation_holds_nobody_and_what_it_returns_is_dropped() -> None:
    async def test() -> None:
        service = Service(hard_timeout=5)
        service.origin.open.clear()
        service.origin.stubborn = True
        caller = service.asks()
        await until(lambda: service.clock.sleeping == 1)
        service.clock.tick(5)
        with pytest.raises(TimeoutError):
            await caller
        again = service.asks()
        await until(lambda: service.origin.reads == 2)
        service.origin.open.set()
        assert await again == 2
        await service.idle()
        assert await service.value() == 2
        await service.cache.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_a_function_that_never_returns_keeps_nobody_who_comes_a_minute_later() -> None:
    async def test() -> None:
        service = Service()
        service.origin.open.clear()
        first = service.asks()
        await until(lambda: service.origin.reads == 1)
        service.clock.tick(REFRESH_SECONDS)
        later = service.asks()
        await until(lambda: service.origin.reads == 2)
        service.origin.open.set()
        assert [*await asyncio.gather(first, later)] == [1, 2]

    run(test())


def test_in_the_background_it_is_given_a_minute() -> None:
    async def test() -> None:
        service = Service(stale_while_revalidate=300)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        service.origin.stubborn = True
        assert await service.value() == 1
        await until(lambda: service.clock.sleeping == 1)
        service.clock.tick(REFRESH_SECONDS)
        await service.idle()
        assert service.refreshes == {"failed": 1}
        assert await service.value() == 1
        await until(lambda: service.origin.reads == 3)
        service.origin.open.set()
        await service.idle()
        assert await service.value() == 3

    run(test())


# ---- who leaves ----


@pytest.mark.parametrize("finish", [True, False])
def test_what_nobody_waits_for_any_more_is_finished_unless_the_policy_says_otherwise(finish: bool) -> None:
    async def test() -> None:
        service = Service(finish=finish)
        service.origin.open.clear()
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.origin.reads == 1)
        for caller in callers[:2]:
            caller.cancel()
        await turns()
        assert service.origin.cancelled == 0, "one is left"
        callers[2].cancel()
        await turns()
        assert service.origin.cancelled == (not finish)
        service.origin.open.set()
        await service.idle()
        assert await service.value() == (1 if finish else 2)

    run(test())


def test_who_comes_after_all_have_left_begins_anew_though_the_function_ignores_its_cancellation() -> None:
    async def test() -> None:
        service = Service(finish=False)
        service.origin.open.clear()
        service.origin.stubborn = True
        caller = service.asks()
        await until(lambda: service.origin.reads == 1)
        caller.cancel()
        await turns()
        again = service.asks()
        await until(lambda: service.origin.reads == 2)
        service.origin.open.set()
        assert await again == 2
        await service.idle()

    run(test())


def test_what_somebody_could_wait_no_longer_for_is_finished_in_any_case() -> None:
    async def test() -> None:
        service = Service(finish=False, stale_if_error=300, soft_timeout=0.5)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        patient, other = service.asks(), service.asks()
        await until(lambda: service.clock.sleeping == 2)
        service.clock.tick(0.5)
        assert [*await asyncio.gather(patient, other)] == [1, 1]
        late = service.asks()
        await asyncio.sleep(0)
        assert late.cancel(), "it is about to be given the stale one"
        await turns()
        service.origin.open.set()
        await service.idle()
        assert await service.value() == 2

    run(test())


# ---- failures ----


def test_a_named_exception_is_stored_and_raised_anew_each_time() -> None:
    async def test() -> None:
        service = Service(negative={LookupError: 10, KeyError: 0})
        service.origin.error = IndexError("nobody", 7)
        raised = []
        for _ in range(3):
            with pytest.raises(IndexError) as caught:
                await service.value()
            raised.append(caught.value)
        assert service.origin.reads == 1
        assert [error.args for error in raised] == [("nobody", 7)] * 3
        assert len(set(map(id, raised))) == 3
        service.clock.tick(10)
        service.origin.error = None
        assert await service.value() == 2

    run(test())


def test_one_that_is_named_with_nothing_or_not_at_all_is_not_stored() -> None:
    async def test() -> None:
        service = Service(negative={LookupError: 10, KeyError: 0})
        for error in (KeyError("k"), ValueError("v")):
            service.origin.error = error
            for _ in range(2):
                with pytest.raises(type(error)):
                    await service.value()
        assert service.origin.reads == 4

    run(test())


def test_those_who_waited_are_given_exceptions_of_their_own() -> None:
    async def test() -> None:
        service = Service(negative={LookupError: 10})
        service.origin.open.clear()
        service.origin.error = LookupError("nobody")
        callers = [service.asks() for _ in range(3)]
        await until(lambda: service.origin.reads == 1)
        service.origin.open.set()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert {type(error) for error in errors} == {LookupError}
        assert len(set(map(id, errors))) == 3

    run(test())


def test_tags_apply_to_what_was_raised() -> None:
    async def test() -> None:
        service = Service(negative={LookupError: 10})
        service.origin.error = LookupError("nobody")
        with pytest.raises(LookupError):
            await service.value()
        await service.cache.invalidate("t")
        service.origin.error = None
        assert await service.value() == 2

    run(test())


def test_an_exception_that_is_stored_takes_the_place_of_the_value_and_is_never_stale() -> None:
    async def test() -> None:
        service = Service(negative={LookupError: 10}, stale_if_error=300, stale_while_revalidate=30)
        await service.value()
        service.clock.tick(60 + 31)
        service.origin.error = LookupError("deleted")
        for _ in range(2):
            with pytest.raises(LookupError):
                await service.value()
        service.clock.tick(10)
        service.origin.error = RuntimeError("no database")
        with pytest.raises(RuntimeError):
            await service.value()
        assert service.origin.reads == 3

    run(test())


def test_that_it_was_too_slow_is_not_stored_as_if_it_had_said_so() -> None:
    async def test() -> None:
        service = Service(negative={TimeoutError: 10}, hard_timeout=5)
        service.origin.open.clear()
        caller = service.asks()
        await until(lambda: service.clock.sleeping == 1)
        service.clock.tick(5)
        with pytest.raises(TimeoutError):
            await caller
        service.origin.open.set()
        assert await service.value() == 2

    run(test())


def test_exceptions_reach_other_workers() -> None:
    async def test() -> None:
        fleet = Fleet()
        first, second = (Service(fleet.worker(), fleet.clock, negative={LookupError: 10}) for _ in range(2))
        async with first.cache, second.cache:
            first.origin.error = LookupError("nobody")
            with pytest.raises(LookupError):
                await first.value()
            await written(first.cache)
            with pytest.raises(LookupError, match="nobody"):
                await second.value()
            assert second.origin.reads == 0

    run(test())


def test_those_who_waited_for_a_failure_fail_with_it_and_nobody_tries_again() -> None:
    async def test() -> None:
        service = Service()
        service.origin.open.clear()
        service.origin.error = RuntimeError("no database")
        callers = [service.asks() for _ in range(10)]
        await until(lambda: service.origin.reads == 1)
        service.origin.open.set()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert {type(error) for error in errors} == {RuntimeError}
        assert service.origin.reads == 1

    run(test())


def test_values_that_may_not_be_shared_are_not_queued_for_again_until_one_is_stored() -> None:
    async def test() -> None:
        clock, go = TickingClock(), asyncio.Event()
        cache, calls, refused = TierCache(clock=clock), list[int](), True

        @cache.cached("k", ttl=60)
        async def value() -> int:
            calls.append(1)
            await go.wait()
            if refused:
                cache.current.no_store()
            return len(calls)

        callers = [asyncio.create_task(value()) for _ in range(3)]
        await turns()
        assert len(calls) == 1
        go.set()
        await asyncio.gather(*callers)
        assert len(calls) == 3
        go.clear()
        callers = [asyncio.create_task(value()) for _ in range(3)]
        await turns()
        assert len(calls) == 6, "nobody waits for anybody"
        refused = False
        go.set()
        await asyncio.gather(*callers)
        assert await value() == 6
        assert len(calls) == 6

    run(test())


# ---- what is renewed before anybody misses it ----


async def measured(service: Service, seconds: float) -> None:
    """Let one call take `seconds`."""
    service.origin.open.clear()
    caller = service.asks()
    await until(lambda: service.origin.reads == 1)
    service.clock.tick(seconds)
    service.origin.open.set()
    await caller


def test_shortly_before_its_expiry_it_is_renewed_once_and_nobody_waits() -> None:
    async def test() -> None:
        service = Service(early_refresh=1)
        await measured(service, 2.0)  # with its deviation, 6 s are expected; 9 s before the end, for chance gives 0
        service.clock.tick(50.5)
        assert [await service.value() for _ in range(3)] == [1] * 3
        await turns()
        assert service.origin.reads == 1
        service.clock.tick(0.6)
        service.origin.open.clear()
        assert [await service.value() for _ in range(5)] == [1] * 5
        await turns()
        assert service.origin.reads == 2
        service.origin.open.set()
        await service.idle()
        assert [await service.value(), service.origin.reads, service.refreshes] == [2, 2, {"stored": 1}]

    run(test())


def test_a_renewal_that_fails_is_not_tried_again_before_the_expiry() -> None:
    async def test() -> None:
        service = Service(early_refresh=1)
        await measured(service, 2.0)
        service.clock.tick(52)
        service.origin.error = RuntimeError("no database")
        for _ in range(3):
            assert await service.value() == 1
            await service.idle()
        assert service.origin.reads == 2
        service.clock.tick(8)
        with pytest.raises(RuntimeError):
            await service.value()

    run(test())


def test_at_a_thousand_calls_a_second_nobody_waits_after_the_first() -> None:
    async def test() -> None:
        clock, chance, ends, calls = TickingClock(), Random(1), list[float](), 0
        cache = TierCache(clock=clock, random=chance.random)

        @cache.cached("k", ttl=5, early_refresh=1)
        async def value() -> int:
            ends.append(clock.monotonic() + 0.3)
            await clock.sleep(0.3)
            return len(ends)

        waited = 0
        while calls < 20_000:
            caller = asyncio.create_task(value())
            calls += 1
            for _ in range(6):
                await asyncio.sleep(0)
            if not caller.done():
                waited += 1
                while not caller.done():
                    clock.tick(0.001)
                    await turns()
            clock.tick(0.001)
        assert waited == 1
        assert 4 <= len(ends) <= 4 * 3
        await cache.aclose()

    run(test())


def test_chance_takes_from_a_lifetime_once_and_all_workers_agree() -> None:
    async def test() -> None:
        fleet, chance = Fleet(), [0.5]
        first, second = (Service(fleet.worker(random=lambda: chance[0]), fleet.clock, jitter=0.2) for _ in range(2))
        async with first.cache, second.cache:
            assert await first.value() == 1
            await written(first.cache)
            chance[0] = 0.9
            fleet.clock.tick(53.9)
            assert [await first.value(), await second.value()] == [1, 1]
            fleet.clock.tick(0.2)
            assert await first.value() == 2
            assert second.origin.reads == 0

    run(test())


def test_what_is_asked_for_in_a_rhythm_is_renewed_ahead_and_given_up_when_it_is_not() -> None:
    async def test() -> None:
        service = Service(refresh_ahead=True)
        cache, clock, origin = service.cache, service.clock, service.origin
        for _ in range(6):
            await service.value()
            await turns()
            clock.tick(10)
        await until(lambda: origin.reads == 2)  # at its expiry, with nobody asking: no fill has taken any time yet
        assert await service.value() == 2
        for _ in range(5):
            await service.idle()
            clock.tick(60)
        await service.idle()
        assert origin.reads == 3, "nobody has asked since"
        await turns()
        assert clock.sleeping == 0
        await cache.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_nobody_sleeps_where_no_policy_wants_anything_ahead() -> None:
    async def test() -> None:
        service = Service(early_refresh=1, stale_while_revalidate=30, stale_if_error=30, jitter=0.1)
        await service.value()
        await service.value()
        assert service.clock.sleeping == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_at_shutdown_what_waits_for_its_turn_is_not_begun() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache, origin = TierCache(clock=clock), Origin()

        @cache.cached("k:{number}", ttl=60, stale_while_revalidate=60)
        async def value(number: int) -> int:
            return await origin.read()

        for number in range(20):
            await value(number)
        clock.tick(60)
        origin.open.clear()
        for number in range(20):
            await value(number)
        await until(lambda: origin.reads == 20 + 16)
        closing = asyncio.create_task(cache.aclose())
        await turns()
        assert not closing.done()
        origin.open.set()
        await closing
        assert origin.reads == 20 + 16
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_what_never_ends_and_nobody_waits_for_is_cancelled_when_the_cache_is_closed() -> None:
    async def test() -> None:
        service = Service(stale_while_revalidate=60)
        await service.value()
        service.clock.tick(60)
        service.origin.open.clear()
        await service.value()
        await until(lambda: service.origin.reads == 2)
        await service.cache.engine.aclose(0.01)
        await turns()
        assert service.origin.cancelled == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


# ---- plain functions ----


def test_the_thread_that_calls_a_plain_function_is_not_the_one_that_makes_it_anew() -> None:
    clock, threads = TickingClock(), list[str]()
    cache = TierCache(clock=clock)

    @cache.cached("k", ttl=60, stale_while_revalidate=60, tags=["t"])
    def value() -> int:
        threads.append(threading.current_thread().name)
        cache.current.tag("more")
        return len(threads)

    assert value() == 1
    clock.tick(60)
    assert value() == 1
    for _ in range(100_000):
        if value() == 2:
            break
    assert value() == 2
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("renewing ")
    cache.close()


def test_a_plain_function_that_fails_is_stood_in_for_and_its_named_exceptions_are_stored() -> None:
    clock = TickingClock()
    cache = TierCache(clock=clock)
    answers: list[int | Exception] = [1, RuntimeError("no database"), LookupError("nobody")]

    @cache.cached("k", ttl=60, stale_if_error=60, negative={LookupError: 10})
    def value() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert value() == 1
    clock.tick(60)
    assert value() == 1
    for _ in range(2):
        with pytest.raises(LookupError, match="nobody"):
            value()
    assert answers == []
    cache.close()


def test_a_plain_function_that_ends_a_program_in_the_background_ends_nothing() -> None:
    clock, calls = TickingClock(), list[int]()
    cache = TierCache(clock=clock)

    @cache.cached("k", ttl=60, stale_while_revalidate=60)
    def value() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        return len(calls)

    assert value() == 1
    clock.tick(60)
    assert value() == 1
    for _ in range(100_000):
        if value() == 3:
            break
    assert value() == 3
    cache.close()


@pytest.mark.parametrize("soft", [False, True])
def test_with_a_timeout_only_the_thread_on_which_a_plain_function_runs_waits_for_its_end(soft: bool) -> None:
    clock, release, calls = TickingClock(), threading.Event(), list[int]()
    release.set()
    cache = TierCache(clock=clock)

    @cache.cached("k", ttl=60, stale_if_error=300, soft_timeout=2 if soft else None, hard_timeout=None if soft else 2)
    def value() -> int:
        calls.append(1)
        mine = len(calls)
        release.wait(5)
        return mine

    async def test() -> None:
        async with cache:
            assert await asyncio.to_thread(value) == 1
            clock.tick(60)
            release.clear()
            first = asyncio.create_task(asyncio.to_thread(value))
            await until(lambda: len(calls) == 2)
            second = asyncio.create_task(asyncio.to_thread(value))
            arrived = cache.engine.fills.under_way("k")
            assert arrived is not None
            await until(lambda: arrived.waiting == 2 and clock.sleeping == (2 if soft else 1))
            clock.tick(2)
            assert await second == 1
            assert not first.done()
            release.set()
            assert await first == 1
            await until(lambda: not cache.engine.fills.tasks())
            assert await asyncio.to_thread(value) == (2 if soft else 3), "what comes too late is dropped"

    run(test())
    cache.close()


@pytest.mark.parametrize("option", ["soft_timeout", "hard_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_timeouts_that_are_none_are_refused(option: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=option):
        Policy(ttl=1, stale_if_error=1).but(**{option: seconds})


def test_finish_is_yes_or_no() -> None:
    with pytest.raises(ConfigError, match="finish"):
        TierCache().cached("k", ttl=1, finish=1)
