"""A guarded Redis that refuses, hangs and dies, with real processes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.guard import Guarded
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.types import Write
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder, an_entry, ticks, until

Runner = Callable[[Coroutine[Any, Any, None]], None]
pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])

DEADLINE = 0.2
NOTICEABLE = 0.05
"""Seconds that no call takes while the breaker is open, however busy the machine."""


class Bench:
    def __init__(self, url: str) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.breaker = Breaker(tier="L2", deadline=DEADLINE, clock=self.clock, signals=self.signals)
        self.tier = Guarded(RedisTier(RedisLink(url)), self.breaker, clock=self.clock, signals=self.signals)

    async def seconds_of_a_read(self, answer: bytes | None = None) -> float:
        started = time.perf_counter()
        assert await self.tier.get_many(["a"]) == [answer]
        return time.perf_counter() - started

    async def recovers(self) -> None:
        """Ask as requests would, each a while after the last, until Redis is used again."""
        async with asyncio.timeout(10):
            while not self.tier.available:
                self.clock.tick(4.1)
                await self.probed()

    async def probed(self) -> None:
        """Ask once, and let the probe that this starts come to its end."""
        assert await self.seconds_of_a_read() < NOTICEABLE
        assert self.breaker.state == "half_open"
        await until(lambda: self.breaker.state == "open" or not self.breaker.is_open)

    def states(self) -> list[str]:
        """Those that it took, without the tries that came to nothing."""
        states = [change.state for change in self.signals.of(BreakerChanged) if change.state != "half_open"]
        return [state for state, _ in itertools.groupby(states)]


@pytest.fixture
def refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"redis://127.0.0.1:{port}"


def test_a_port_that_refuses_costs_no_deadline_and_soon_nothing(run: Runner, refused: str) -> None:
    bench = Bench(refused)

    async def body() -> None:
        for _ in range(3):
            assert await bench.seconds_of_a_read() < DEADLINE
        assert not bench.tier.available
        for _ in range(20):
            assert await bench.seconds_of_a_read() < NOTICEABLE

    run(body())
    assert len(bench.signals.of(TierFailed)) == 3
    gc.collect()


def test_a_redis_that_hangs_costs_those_under_way_one_deadline_and_the_next_nothing(
    run: Runner, own_redis: RedisServer
) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        await bench.tier.set_many([Write("a", b"1", 60.0)])
        own_redis.pause()
        costs = await asyncio.gather(*(bench.seconds_of_a_read() for _ in range(10)))
        assert max(costs) < 3 * DEADLINE
        assert bench.states() == ["open"]
        for _ in range(20):
            assert await bench.seconds_of_a_read() < NOTICEABLE
        own_redis.resume()
        await bench.recovers()
        assert await bench.seconds_of_a_read(b"1") < DEADLINE
        await bench.tier.aclose()

    run(body())
    assert bench.states() == ["open", "closed"]


def test_a_probe_of_a_redis_that_still_hangs_costs_no_request_anything(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        own_redis.pause()
        await bench.seconds_of_a_read()
        for _ in range(2):
            bench.clock.tick(4.1)
            await bench.probed()
        assert bench.signals.of(TierFailed)[-1] == TierFailed("L2", "probe", "TimeoutError")
        own_redis.resume()
        await bench.tier.aclose()

    run(body())
    assert bench.states() == ["open"]


def test_a_redis_that_is_killed_and_comes_back_is_used_again(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        await bench.tier.set_many([Write("a", b"1", 60.0)])
        assert await bench.seconds_of_a_read(b"1") < DEADLINE
        own_redis.kill()
        for _ in range(5):
            assert await bench.seconds_of_a_read() < 2 * DEADLINE
        assert not bench.tier.available
        own_redis.start()
        await bench.recovers()
        await bench.tier.set_many([Write("a", b"2", 60.0)])
        assert await bench.seconds_of_a_read(b"2") < DEADLINE
        await bench.tier.aclose()

    run(body())
    assert bench.states() == ["open", "closed"]
    gc.collect()


def test_a_redis_that_is_killed_under_calls_is_a_miss_for_each(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        await bench.tier.set_many([Write("a", b"1", 60.0)])
        own_redis.pause()
        reads = [asyncio.create_task(bench.seconds_of_a_read()) for _ in range(10)]
        await ticks(5)
        own_redis.kill()
        assert max(await asyncio.gather(*reads)) < 3 * DEADLINE
        await bench.tier.aclose()

    run(body())
    assert len(bench.signals.of(TierFailed)) == 10


def test_a_restart_between_two_calls_goes_unnoticed_but_for_the_lost_data(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        await bench.tier.set_many([Write("a", b"1", 60.0)])
        own_redis.restart()
        assert await bench.seconds_of_a_read() < DEADLINE
        assert bench.tier.available
        await bench.tier.aclose()

    run(body())


def test_a_caller_that_is_cancelled_while_redis_hangs_is_cancelled_at_once(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)

    async def body() -> None:
        await bench.tier.get_many(["connects"])
        own_redis.pause()
        read = asyncio.create_task(bench.tier.get_many(["a"]))
        await ticks(5)
        started = time.perf_counter()
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        assert time.perf_counter() - started < NOTICEABLE
        own_redis.resume()
        await bench.tier.aclose()

    run(body())
    assert bench.signals.of(TierFailed) == []


def test_a_stack_over_a_redis_that_hangs_still_ends_soon(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)
    stack = Stack([bench.tier], clock=bench.clock, signals=bench.signals)

    async def body() -> None:
        own_redis.pause()
        for number in range(200):
            stack.put(str(number), an_entry(created=bench.clock.time()), compress=False, ttl=60.0)
        assert await stack.get("0") is not None, "queued"
        assert await stack.get("other") is None
        started = time.perf_counter()
        await stack.aclose()
        assert time.perf_counter() - started < 4 * DEADLINE

    run(body())
    own_redis.resume()
    gc.collect()


def test_a_loop_that_ends_while_redis_hangs_ends_soon(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)
    stack = Stack([bench.tier], clock=bench.clock, signals=bench.signals)

    async def body() -> None:
        await bench.tier.get_many(["connects"])
        own_redis.pause()
        for number in range(200):
            stack.put(str(number), an_entry(created=bench.clock.time()), compress=False, ttl=60.0)
        await ticks(3)

    started = time.perf_counter()
    run(body())
    assert time.perf_counter() - started < 10 * DEADLINE
    own_redis.resume()
    gc.collect()


def test_what_is_queued_when_a_loop_ends_reaches_redis(run: Runner, own_redis: RedisServer) -> None:
    bench = Bench(own_redis.url)
    stack = Stack([bench.tier], clock=bench.clock, signals=bench.signals)

    async def writes() -> None:
        for number in range(200):
            stack.put(str(number), an_entry(created=bench.clock.time()), compress=False, ttl=60.0)

    async def reads() -> None:
        assert None not in await bench.tier.get_many([str(number) for number in range(200)])

    run(writes())
    gc.collect()
    run(reads())
    gc.collect()
