"""A client that the application shares with the cache: its limits and its protocol are the application's."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from tests.engine.doubles import written
from tests.faults.scenario import nothing_left
from tests.faults.scene import Truth, Worker
from tests.servers import RedisServer

logger = logging.getLogger(__name__)

SECONDS = 10.0
POOLS: dict[str, Callable[[str], ConnectionPool]] = {
    "raises at once": lambda url: ConnectionPool.from_url(url, max_connections=2),
    "waits 20 s": lambda url: BlockingConnectionPool.from_url(url, max_connections=2, timeout=20),
}


@pytest.mark.parametrize("pool", list(POOLS))
def test_an_application_that_holds_every_connection_of_the_pool_is_left_alone(
    own_redis: RedisServer, pool: str
) -> None:
    async def body() -> None:
        client: Any = Redis.from_pool(POOLS[pool](own_redis.url))
        async with nothing_left(), client:
            worker = Worker(client, Truth(), max_unverified=1.0)
            await worker.ask("/item/1")
            await written(worker.cache)
            held = [await client.connection_pool.get_connection() for _ in range(2)]
            worker.lag = 2.0
            for number in range(50):
                await asyncio.gather(*(worker.ask(f"/item/{number}-{one}") for one in range(4)), worker.ask("/item/1"))
            assert not (await worker.change("1")).durable
            slowest = max(answer.seconds for answer in worker.answers)
            assert len(client.connection_pool._in_use_connections) == 2
            for connection in held:
                await client.connection_pool.release(connection)
            ended = time.monotonic()
            async with asyncio.timeout(SECONDS):
                while not (await worker.change("1")).durable:
                    await worker.ask("/item/1")
                    await asyncio.sleep(0.01)
            logger.info("%s: slowest %.3f s, back after %.2f s", pool, slowest, time.monotonic() - ended)
            assert (await client.execute_command("PING")) is True
            await worker.cache.aclose()
            assert worker.wrong == []

    asyncio.run(body())
    gc.collect()


def test_push_messages_to_connections_of_a_shared_pool_do_no_harm(own_redis: RedisServer) -> None:
    """The application lets Redis track what its connections read (RESP3), and the cache uses the same ones."""

    async def body() -> None:
        client: Any = Redis.from_url(own_redis.url, protocol=3, max_connections=4)
        async with nothing_left(), client, Redis.from_url(own_redis.url) as other:
            worker = Worker(client, Truth())
            connections = [await client.connection_pool.get_connection() for _ in range(4)]
            for connection in connections:
                await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST")
                await connection.read_response()
                await client.connection_pool.release(connection)
            for number in range(100):
                await other.set(f"noise{number}", "1")
                await worker.ask(f"/item/{number % 10}")
                if number % 10 == 5:
                    assert (await worker.change(str(number % 10))).durable
            assert worker.uses_redis
            await worker.cache.aclose()
            assert worker.wrong == []

    asyncio.run(body())
    gc.collect()
