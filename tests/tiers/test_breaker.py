from __future__ import annotations

import asyncio
import time

import pytest

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from tests.tiers.doubles import Recorder, ticks, until


class Remote:
    """What the breaker protects; fails or hangs as told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.calls = 0
        self.probes = 0

    async def call(self) -> str:
        self.calls += 1
        return await self._behave()

    async def probe(self) -> str:
        self.probes += 1
        return await self._behave()

    async def _behave(self) -> str:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return "answer"


class Bench:
    """A breaker around a remote, with everything that it is given."""

    def __init__(self, *, jitter: float = 1.0, deadline: float = 0.3) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.remote = Remote()
        self.breaker = Breaker(
            tier="L2", deadline=deadline, clock=self.clock, signals=self.signals, random=lambda: jitter
        )

    async def run(self) -> str:
        return await self.breaker.run("get", self.remote.call, probe=self.remote.probe)

    async def fail(self, times: int = 1, error: Exception | None = None) -> None:
        self.remote.error = error or ConnectionError("refused")
        for _ in range(times):
            with pytest.raises(TierError):
                await self.run()

    async def probed(self) -> None:
        """Ask once, and let the probe that this starts come to its end."""
        before = self.remote.probes
        with pytest.raises(TierError):
            await self.run()
        await ticks(5)
        assert self.remote.probes == before + 1


def test_a_call_that_works_returns_what_it_returned() -> None:
    bench = Bench()
    assert asyncio.run(bench.run()) == "answer"
    assert bench.signals.seen == []


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("refused"),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>"),
        ValueError(),
    ],
)
def test_every_exception_is_a_failure_and_leaves_as_a_tier_error(error: Exception) -> None:
    bench = Bench()

    async def body() -> None:
        bench.remote.error = error
        with pytest.raises(TierError) as caught:
            await bench.run()
        assert caught.value.__cause__ is error

    asyncio.run(body())
    (failed,) = bench.signals.of(TierFailed)
    assert (failed.tier, failed.operation) == ("L2", "get")
    assert type(error).__name__ in failed.error


def test_three_failures_in_a_row_open_it() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(2)
        assert bench.breaker.state == "closed"
        await bench.fail()
        assert bench.breaker.state == "open"

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged) == [BreakerChanged("L2", "open")]


def test_a_success_in_between_starts_the_count_anew() -> None:
    bench = Bench()

    async def body() -> None:
        for _ in range(3):
            await bench.fail(2)
            bench.remote.error = None
            await bench.run()
        assert bench.breaker.state == "closed"

    asyncio.run(body())


def test_one_timeout_opens_it() -> None:
    bench = Bench(deadline=0.01)

    async def body() -> None:
        bench.remote.hangs = True
        with pytest.raises(TierError, match="TimeoutError"):
            await bench.run()

    asyncio.run(body())
    assert bench.breaker.state == "open"


def test_an_open_breaker_makes_no_call_and_answers_at_once() -> None:
    bench = Bench()

    async def body() -> float:
        await bench.fail(3)
        bench.remote.hangs = True
        started = time.perf_counter()
        for _ in range(100):
            with pytest.raises(TierError):
                await bench.run()
        return (time.perf_counter() - started) / 100

    assert asyncio.run(body()) < 0.001
    assert bench.remote.calls == 3


def test_cancelling_the_caller_is_no_failure() -> None:
    bench = Bench()

    async def body() -> None:
        bench.remote.hangs = True
        for _ in range(4):
            task = asyncio.create_task(bench.run())
            await ticks(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(body())
    assert (bench.breaker.state, bench.signals.seen) == ("closed", [])


def test_a_probe_that_works_closes_it() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.remote.error = None
        bench.clock.tick(0.26)
        await bench.probed()
        assert await bench.run() == "answer"

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged) == [BreakerChanged("L2", "open"), BreakerChanged("L2", "closed")]


def test_no_probe_is_made_before_its_time() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.24)
        await bench.fail()
        await ticks(5)

    asyncio.run(body())
    assert bench.remote.probes == 0


def test_the_back_off_doubles_up_to_four_seconds() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        for seconds in (0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0):
            bench.clock.tick(seconds - 0.01)
            before = bench.remote.probes
            await bench.fail()
            await ticks(5)
            assert bench.remote.probes == before, f"probed before {seconds} s"
            bench.clock.tick(0.02)
            await bench.probed()

    asyncio.run(body())


def test_after_a_recovery_the_back_off_begins_small_again() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        for seconds in (0.26, 0.51, 1.01):
            bench.clock.tick(seconds)
            await bench.probed()
        bench.remote.error = None
        bench.clock.tick(2.01)
        await bench.probed()
        await bench.fail(3)
        bench.clock.tick(0.26)
        await bench.probed()

    asyncio.run(body())


def test_jitter_spreads_the_probes_over_half_of_the_back_off() -> None:
    bench = Bench(jitter=0.0)

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.12)
        await bench.fail()
        await ticks(5)
        assert bench.remote.probes == 0
        bench.clock.tick(0.01)
        await bench.probed()

    asyncio.run(body())


def test_many_calls_start_one_probe_and_none_waits_for_it() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.hangs = True
        outcomes = await asyncio.gather(*(bench.run() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, TierError) for outcome in outcomes)
        await ticks(5)
        assert bench.remote.probes == 1

    asyncio.run(body())


def test_a_probe_that_hangs_ends_with_the_deadline_and_is_a_failure() -> None:
    bench = Bench(deadline=0.01)

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.hangs = True
        await bench.fail()
        await until(lambda: len(bench.signals.of(TierFailed)) == 4)

    asyncio.run(body())
    assert bench.signals.of(TierFailed)[-1] == TierFailed("L2", "probe", "TimeoutError")
    assert bench.breaker.state == "open"


def test_a_loop_that_ends_with_a_probe_under_way_does_not_keep_it_open_for_ever() -> None:
    bench = Bench()

    async def ends_early() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.hangs = True
        await bench.fail()
        await ticks(2)

    async def later() -> None:
        assert bench.breaker.state == "open"
        bench.remote.hangs = False
        bench.remote.error = None
        bench.clock.tick(0.31)
        await bench.probed()
        assert await bench.run() == "answer"

    asyncio.run(ends_early())
    asyncio.run(later())


def test_a_failure_that_was_under_way_when_it_opened_does_not_put_the_probe_off() -> None:
    bench = Bench(deadline=0.02)

    async def body() -> None:
        bench.remote.hangs = True
        slow = asyncio.create_task(bench.run())
        await ticks(2)
        bench.remote.hangs = False
        await bench.fail(3)
        bench.clock.tick(0.2)
        with pytest.raises(TierError):
            await slow
        bench.clock.tick(0.06)
        await bench.probed()

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged) == [BreakerChanged("L2", "open")]


def test_closing_ends_the_probe() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.hangs = True
        await bench.fail()
        await ticks(2)
        await bench.breaker.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())


def test_its_repr_tells_the_state() -> None:
    bench = Bench()
    asyncio.run(bench.fail(3))
    assert repr(bench.breaker) == "<Breaker L2: open, 3 failures in a row>"
