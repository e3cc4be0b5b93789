"""A client that goes away at any point of its request, before a real Redis."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal

import pytest

from tests.engine.doubles import written
from tests.faults.proxy import FaultProxy
from tests.faults.scenario import nothing_left
from tests.faults.scene import Worker, workers
from tests.middleware.asgi import run
from tests.servers import RedisServer

When = Literal["while it waits", "as it goes on"]
FEW = 16
"""Connections that two workers have open at the most, though dozens of commands were cancelled."""


class Leaving:
    """Awaits `work`, and cancels the task that does so where it waits for the `number`th time.

    Args:
        work: What is awaited.
        number: Which wait, counted from 1.
        when: While it waits, or in the very tick in which what it waits for is there.
    """

    def __init__(self, work: Awaitable[Any], number: int, when: When) -> None:
        self.waits = 0
        self._work = work
        self._number = number
        self._when = when

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._number:
                if self._when == "while it waits" or future is None:
                    task.cancel()
                else:
                    future.add_done_callback(lambda _: task.cancel())
            try:
                error = None
                yield future
            except BaseException as thrown:
                error = thrown


async def every_wait(request: Callable[[int], Awaitable[Any]], then: Callable[[int], Awaitable[None]], when: When) -> int:
    """Send `request` again and again, each time leaving one wait later, until it has none left; how many it had."""
    for number in range(1, 200):
        leaving = Leaving(request(number), number, when)
        task = asyncio.ensure_future(_await(leaving))
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        await then(number)
        if leaving.waits < number:
            return number - 1
    raise AssertionError("a request that never ends")


async def _await(leaving: Leaving) -> None:
    await leaving


@pytest.mark.parametrize("when", ["while it waits", "as it goes on"])
@pytest.mark.parametrize("kind", ["item", "sure", "free", "mine"])
@pytest.mark.parametrize("found", [True, False], ids=["in Redis", "nowhere"])
def test_whoever_leaves_at_any_point_leaves_nothing_behind(
    own_redis: RedisServer, found: bool, kind: str, when: When
) -> None:
    user = "ann" if kind == "mine" else None

    async def body(proxy: FaultProxy) -> None:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for number in range(1, 60) if found else ():
                await one.ask(f"/{kind}/{number}", user)
            await written(one.cache)

            async def request(number: int) -> None:
                await two.ask(f"/{kind}/{number}", user)

            async def then(number: int) -> None:
                await asks_rightly(two, [f"/{kind}/{number}", f"/{kind}/{number + 1000}", "/item/other"], user)

            assert 1 <= await every_wait(request, then, when) < 59
            assert two.uses_redis
            assert proxy.open <= FEW

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))
    gc.collect()


@pytest.mark.parametrize("when", ["while it waits", "as it goes on"])
@pytest.mark.parametrize("kind", ["item", "sure"])
def test_whoever_leaves_while_a_worker_connects_leaves_nothing_behind(
    own_redis: RedisServer, kind: str, when: When
) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with nothing_left(), workers(proxy.url) as (one, _):
            for number in range(1, 100):
                await one.ask(f"/{kind}/{number}")
            await written(one.cache)
            new: list[Worker] = []

            async def request(number: int) -> None:
                new.append(Worker(proxy.url, one.truth))
                await new[-1].ask(f"/{kind}/{number}")

            async def then(number: int) -> None:
                await asks_rightly(new[-1], [f"/{kind}/{number}", f"/{kind}/{number + 1000}", "/item/other"], None)
                assert new[-1].uses_redis
                await new[-1].cache.aclose()
                assert new[-1].wrong == []

            assert 2 <= await every_wait(request, then, when) < 99

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))
    gc.collect()


async def asks_rightly(worker: Worker, paths: list[str], user: str | None) -> None:
    """Whose answers are right is seen by the scene; what was cancelled must not answer any of these."""
    await asyncio.gather(*(worker.ask(path, user) for path in paths))


@pytest.mark.parametrize("when", ["while it waits", "as it goes on"])
def test_whoever_leaves_an_invalidation_at_any_point_has_invalidated(own_redis: RedisServer, when: When) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for worker in (one, two):
                await worker.ask("/item/1")

            async def then(number: int) -> None:
                assert (await one.ask("/item/1")).version == number
                async with asyncio.timeout(5):
                    while (await two.ask("/item/1")).version < number:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.01)

            assert await every_wait(lambda _: one.change("1"), then, when) >= 1
            assert proxy.open <= FEW

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))
    gc.collect()
