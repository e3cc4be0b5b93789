"""What every fault is compared with: the same workers before a Redis that is well."""

from __future__ import annotations

import asyncio

from tests.engine.doubles import written
from tests.faults.proxy import FaultProxy
from tests.faults.scene import USERS, Worker, workers
from tests.middleware.asgi import run
from tests.servers import RedisServer


def test_a_well_redis_serves_both_workers_and_takes_every_invalidation(own_redis: RedisServer) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with workers(proxy.url) as (one, two):
            await everything(one)
            calls = one.calls
            await written(one.cache)
            await everything(two)
            assert (one.calls, two.calls) == (calls, 0)
            receipt = await one.change("1")
            assert receipt.durable
            await everything(one)
            assert one.calls == 2 * calls
            async with asyncio.timeout(5):
                while (await two.ask("/item/1")).version == 0:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0)
            assert two.calls == 0
            assert one.uses_redis
            assert two.uses_redis

    async def everything(worker: Worker) -> None:
        await worker.ask("/item/1")
        await worker.ask("/free/1")
        for user in USERS:
            await worker.ask("/mine/1", user)

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))
