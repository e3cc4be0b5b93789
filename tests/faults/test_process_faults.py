"""Workers in processes of their own that stand still, are killed, or whose event loop is held up."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from asgi_tiercache.signals import TierFailed
from tests.engine.doubles import written
from tests.faults.process import Process
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scenario import nothing_left
from tests.faults.scene import MAX_LAG, Worker, workers
from tests.middleware.asgi import run
from tests.servers import RedisServer

BLOCKED = 1.0
PAUSES = [MAX_LAG + 0.5, pytest.param(30.0, marks=pytest.mark.long)]
NOT_DURABLE_FOR = 20.0
"""Seconds within which a worker that lost Redis finds out."""


@pytest.mark.parametrize("seconds", PAUSES)
def test_a_worker_that_stood_still_serves_nothing_that_was_invalidated_meanwhile(
    own_redis: RedisServer, seconds: float
) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1) as (one,):
            paused.ask("/item/1")
            paused.ask("/item/2")
            assert paused.ask("/item/1") == [0, False]
            paused.stop()
            receipt = await one.change("1")
            assert receipt.durable
            await asyncio.sleep(seconds)
            # All of it lies there when the worker goes on: nothing else tells it first that time has passed.
            numbers = [paused.begin("ask", path=f"/{kind}/1") for kind in ("item", "free")]
            other = paused.begin("ask", path="/item/2")
            paused.go_on()
            assert [paused.answer(number) for number in numbers] == [[0, True], [0, True]], "asked the app anew"
            assert paused.answer(other) == [0, False], "was not invalidated"

    with Process(own_redis.url) as paused:
        paused.ask("/free/1")
        asyncio.run(body())
        paused.begin("take", seconds=0.0)


@pytest.mark.parametrize("seconds", PAUSES)
def test_what_a_worker_was_making_when_it_stood_still_is_not_served_once_invalidated(
    own_redis: RedisServer, seconds: float
) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1) as (one,):
            paused.do("take", seconds=0.2)
            making = paused.begin("ask", path="/item/1")
            await asyncio.sleep(0.1)
            paused.stop()
            assert (await one.change("1")).durable
            await asyncio.sleep(seconds)
            paused.begin("commit", item="1", version=1)
            paused.go_on()
            assert paused.answer(making) == [0, True], "it was asked before"
            assert paused.ask("/item/1") == [1, True]
            assert paused.ask("/item/1") == [1, False]
            assert (await one.ask("/item/1")).version == 1

    with Process(own_redis.url) as paused:
        paused.ask("/item/2")
        asyncio.run(body())


def test_a_process_killed_with_queued_writes_costs_others_a_miss(own_redis: RedisServer) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with workers(own_redis.url, 1) as (other,):
            with Process(proxy.url) as killed:
                assert killed.ask("/item/1") == [0, True]
                proxy.begin(Fault(silent=True))
                assert killed.ask("/item/2") == [0, True]
                killed.kill()
            proxy.end()
            with Process(proxy.url) as started:
                assert started.ask("/item/2") == [0, True]
                assert started.ask("/item/2") == [0, False]
                assert (await other.change("2")).durable
                started.do("commit", item="2", version=1)
                async with asyncio.timeout(5):
                    while started.ask("/item/2")[0] == 0:  # noqa: ASYNC110 - what is waited for has no event
                        await asyncio.sleep(0.01)

    with FaultProxy(own_redis.port) as proxy:
        asyncio.run(body(proxy))


def test_a_process_killed_with_held_invalidations_had_said_that_they_were_not_durable(own_redis: RedisServer) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with workers(own_redis.url, 1) as (other,):
            await other.ask("/item/1")
            await written(other.cache)
            with Process(proxy.url) as killed:
                assert killed.ask("/item/1") == [0, False], "from Redis"
                proxy.begin(Fault(silent=True))
                assert killed.do("change", item="1") is False
                assert killed.ask("/item/1") == [1, True], "it holds where it was made"
                killed.kill()
            proxy.end()
            with Process(proxy.url) as started:
                started.do("commit", item="1", version=1)
                assert started.ask("/item/1") == [0, False], "nobody but the killed process knew"
                assert started.do("change", item="1") is True, "so whoever was told False has to say it again"
                assert started.ask("/item/1") == [2, True]
                other.truth.versions["1"] = 2
                async with asyncio.timeout(5):
                    while (await other.ask("/item/1")).version == 0:  # noqa: ASYNC110 - what is waited for has no event
                        await asyncio.sleep(0.01)

    with FaultProxy(own_redis.port) as proxy:
        asyncio.run(body(proxy))


def test_a_process_that_ends_as_it_should_sends_what_it_has_queued(own_redis: RedisServer) -> None:
    with Process(own_redis.url) as ending:
        assert ending.ask("/item/1") == [0, True]
        ending.end()
    with Process(own_redis.url) as started:
        assert started.ask("/item/1") == [0, False]
        started.end()


def test_an_app_that_holds_its_event_loop_up_opens_no_breaker(own_redis: RedisServer) -> None:
    failed: list[TierFailed] = []

    async def body(proxy: FaultProxy) -> None:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for number in range(20):
                await one.ask(f"/item/{number}")
            await written(one.cache)
            two.cache.engine.signals.subscribe(failed.append, TierFailed)
            await two.ask("/item/0")
            for numbers in (range(1, 10), range(10, 20)):
                await asyncio.gather(*(two.ask(f"/item/{number}") for number in numbers), _hold_up(two))
            assert two.calls == 0, "every answer came from Redis"
            assert two.uses_redis
            assert (await one.change("1")).durable
            assert (await two.change("2")).durable

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))
    assert failed == []
    gc.collect()


async def _hold_up(worker: Worker) -> None:
    """As a handler does that computes, once those beside it have asked Redis."""
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(BLOCKED)  # noqa: ASYNC251 - that is the fault
