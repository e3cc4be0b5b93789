from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import AT_FIRST, AT_ONCE, Breaker
from asgi_tiercache.tiers.loops import WrongLoopError
from tests.tiers.doubles import Recorder, ticks, until


class Remote:
    """What the breaker protects; fails or hangs as told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.seconds = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
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
        await self.gate.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return "answer"


class Bench:
    """A breaker around a remote, with everything that it is given."""

    def __init__(self, *, jitter: float = 1.0, deadline: float = 0.3, at_once: int = AT_ONCE) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.remote = Remote()
        self.breaker = Breaker(
            tier="L2",
            deadline=deadline,
            clock=self.clock,
            signals=self.signals,
            at_once=at_once,
            random=lambda: jitter,
        )

    async def run(self) -> str:
        return await self.breaker.run("get", self.remote.call, probe=self.remote.probe)

    async def fail(self, times: int = 1, error: Exception | None = None) -> None:
        self.remote.error = error or ConnectionError("refused")
        for _ in range(times):
            with pytest.raises(TierError):
                await self.run()

    def states(self) -> list[str]:
        return [change.state for change in self.signals.of(BreakerChanged)]

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
        assert not bench.breaker.is_open
        await bench.fail()
        assert bench.breaker.is_open

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
    assert bench.states() == ["open", "half_open", "closed"]


def test_no_probe_is_made_before_its_time() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.24)
        await bench.fail()
        await ticks(5)

    asyncio.run(body())
    assert bench.remote.probes == 0


def test_the_back_off_doubles_up_to_two_seconds() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        for seconds in (0.25, 0.5, 1.0, 2.0, 2.0, 2.0):
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
        await bench.run()
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
    assert bench.states() == ["open", "half_open", "open"]


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


# ---- half-open ----


def test_it_is_half_open_while_the_probe_runs_and_until_a_call_was_answered() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        with pytest.raises(TierError):
            await bench.run()
        assert (bench.breaker.state, bench.breaker.is_open) == ("half_open", True)
        bench.remote.error = None
        await ticks(5)
        assert (bench.breaker.state, bench.breaker.is_open) == ("half_open", False)
        await bench.run()
        assert bench.breaker.state == "closed"

    asyncio.run(body())


def test_a_probe_that_fails_while_a_later_one_is_answered_does_not_leave_it_open_in_name() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.remote.error = None
        bench.remote.gate.clear()
        for _ in range(2):  # the second comes when the first should have ended, on a loop that was blocked
            bench.clock.tick(0.31)
            with pytest.raises(TierError):
                await bench.run()
            await ticks(3)
        assert bench.remote.probes == 2
        first, second = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: task.get_name())
        first.cancel()
        await ticks(3)
        bench.remote.gate.set()
        await second
        assert not bench.breaker.is_open
        await bench.run()
        assert bench.breaker.state == "closed"

    asyncio.run(body())


def test_a_tier_that_answers_probes_and_nothing_else_is_asked_ever_more_seldom_and_never_counts_as_well() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        for seconds in (0.25, 0.5, 1.0, 2.0, 2.0):
            bench.clock.tick(seconds - 0.01)
            before = bench.remote.probes
            await bench.fail()
            await ticks(5)
            assert bench.remote.probes == before, f"probed before {seconds} s"
            bench.clock.tick(0.02)
            error, bench.remote.error = bench.remote.error, None
            await bench.probed()
            calls = bench.remote.calls
            await bench.fail(2, error)
            assert bench.remote.calls == calls + 1, "one failure is enough now"

    asyncio.run(body())
    assert "closed" not in bench.states()


def test_after_a_probe_one_failure_opens_it_again_though_one_timeout_had_opened_it() -> None:
    bench = Bench(deadline=0.05)

    async def body() -> None:
        bench.remote.hangs = True
        with pytest.raises(TierError):
            await bench.run()
        bench.remote.hangs = False
        bench.clock.tick(0.26)
        await bench.probed()
        await bench.fail()
        assert bench.breaker.is_open

    asyncio.run(body())


def test_a_probe_that_is_answered_slowly_is_a_failure() -> None:
    bench = Bench(deadline=1.0)

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.error = None
        bench.remote.seconds = 0.45
        with pytest.raises(TierError):
            await bench.run()
        await until(lambda: bench.breaker.state == "open")

    asyncio.run(body())
    assert bench.signals.of(TierFailed)[-1] == TierFailed("L2", "probe", "answers too slowly")


def test_after_an_outage_few_are_let_in_and_each_answer_lets_in_one_more() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.clock.tick(0.26)
        bench.remote.error = None
        await bench.probed()
        bench.remote.gate.clear()
        calls, all_workers_requests = bench.remote.calls, [asyncio.create_task(bench.run()) for _ in range(200)]
        await ticks(3)
        assert bench.remote.calls - calls == AT_FIRST
        bench.remote.gate.set()
        assert await asyncio.gather(*all_workers_requests) == ["answer"] * 200
        assert bench.breaker.deadline.at_once == AT_ONCE
        assert not bench.breaker.convalescent

    asyncio.run(body())


# ---- what is no failure of the tier ----


@pytest.mark.parametrize(
    "reply",
    [
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        ReadOnlyError("You can't write against a read only replica."),
        NoPermissionError("this user has no permissions to run the 'set' command"),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        ClusterCrossSlotError("Keys in request don't hash to the same slot"),
    ],
    ids=lambda reply: type(reply).__name__,
)
@pytest.mark.parametrize("translated", [False, True])
def test_what_the_tier_refuses_opens_nothing_for_it_has_answered(reply: Exception, *, translated: bool) -> None:
    bench = Bench()

    async def body() -> None:
        error: Exception = reply
        if translated:
            error = TierError("L2: " + str(reply))
            error.__cause__ = reply
        await bench.fail(10, error)
        assert (bench.breaker.state, bench.breaker.failures) == ("closed", 0)

    asyncio.run(body())
    assert all(failed.refused for failed in bench.signals.of(TierFailed))


@pytest.mark.parametrize(
    "reply",
    [
        BusyLoadingError("Redis is loading the dataset in memory"),
        ClusterDownError("The cluster is down"),
        MasterDownError("Link with MASTER is down"),
        TryAgainError("Multiple keys request during rehashing of slot"),
        AuthenticationError("invalid username-password pair"),
        ResponseError("BUSY Redis is busy running a script."),
        ResponseError("ERR DB index is out of range"),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_a_reply_that_says_that_nothing_can_be_done_is_a_failure(reply: Exception) -> None:
    bench = Bench()
    asyncio.run(bench.fail(3, reply))
    assert bench.breaker.state == "open"


def test_a_pool_that_has_no_connection_left_is_no_failure() -> None:
    bench = Bench()
    asyncio.run(bench.fail(10, MaxConnectionsError("Too many connections")))
    assert (bench.breaker.state, bench.breaker.failures) == ("closed", 0)


def test_calls_from_a_loop_that_is_ending_say_nothing_of_the_tier() -> None:
    bench = Bench()
    asked = []

    async def asks_at_the_end() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await ticks(3)  # what belongs to the loop is let go at the same time
            for _ in range(10):
                with pytest.raises(TierError, match="ending"):
                    await bench.run()
                asked.append(bench.breaker.state)

    late = asks_at_the_end()

    async def body() -> None:
        await bench.run()
        await anext(late)

    asyncio.run(body())
    assert asked == ["closed"] * 10


def test_a_probe_that_could_not_ask_does_not_put_the_next_one_off_for_longer() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.fail(3)
        bench.remote.error = WrongLoopError("the client that was given belongs to another event loop")
        bench.clock.tick(0.26)
        for _ in range(5):
            await bench.probed()
            bench.clock.tick(0.31)
        bench.remote.error = None
        await bench.probed()
        assert await bench.run() == "answer"

    asyncio.run(body())
    assert bench.breaker.state == "closed"


def test_calls_that_never_had_their_turn_open_nothing_while_others_are_answered() -> None:
    bench = Bench(deadline=0.12, at_once=2)

    async def body() -> None:
        bench.remote.seconds = 0.015
        outcomes = await asyncio.gather(*(bench.run() for _ in range(40)), return_exceptions=True)
        answered = outcomes.count("answer")
        assert 2 <= answered < 40
        assert all(outcome == "answer" or isinstance(outcome, TierError) for outcome in outcomes)

    asyncio.run(body())
    assert bench.states() == []


def test_a_crowd_before_a_tier_that_hangs_opens_it_after_one_deadline() -> None:
    bench = Bench(deadline=0.05, at_once=2)

    async def body() -> float:
        bench.remote.hangs = True
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(bench.run() for _ in range(40)), return_exceptions=True)
        assert all(isinstance(outcome, TierError) for outcome in outcomes)
        return time.perf_counter() - started

    assert asyncio.run(body()) < 0.15
    assert bench.states() == ["open"]
    assert bench.remote.calls == 2


def test_answers_that_are_all_slow_open_it_after_one_deadline_in_all() -> None:
    bench = Bench(deadline=0.3)

    async def body() -> float:
        bench.remote.seconds = 0.2
        started = time.perf_counter()
        for _ in range(10):  # what one request asks, one after the other
            with contextlib.suppress(TierError):
                await bench.run()
        return time.perf_counter() - started

    assert asyncio.run(body()) < 0.6
    assert bench.states() == ["open"]


def test_its_repr_tells_the_state() -> None:
    bench = Bench()
    asyncio.run(bench.fail(3))
    assert repr(bench.breaker) == "<Breaker L2: open, 3 failures in a row>"
