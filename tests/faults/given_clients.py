"""A client that the application shares with the cache: its limits and its protocol are the application's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from tests.engine.doubles import written
from tests.faults.scenario import DEADLINE, SLACK, nothing_left
from tests.faults.scene import Truth, Worker
from tests.faults.table import Case
from tests.servers import RedisServer

SECONDS = 10.0
ROUNDS = 50
POOLS: dict[str, Callable[[str], ConnectionPool]] = {
    "raises at once": lambda url: ConnectionPool.from_url(url, max_connections=2),
    "waits 20 s": lambda url: BlockingConnectionPool.from_url(url, max_connections=2, timeout=20),
}


def exhausted(redis: RedisServer, pool: str) -> str:
    """An application that holds every connection of the pool is left alone."""

    async def body() -> str:
        client: Any = Redis.from_pool(POOLS[pool](redis.url))
        async with nothing_left(), client:
            worker = Worker(client, Truth(), max_unverified=1.0)
            await worker.ask("/item/1")
            await written(worker.cache)
            held = [await client.connection_pool.get_connection() for _ in range(2)]
            worker.lag = 2.0
            for number in range(ROUNDS):
                await asyncio.gather(*(worker.ask(f"/item/{number}-{one}") for one in range(4)), worker.ask("/item/1"))
            assert not (await worker.change("1")).durable
            slowest = max(answer.seconds for answer in worker.answers)
            assert slowest < DEADLINE + SLACK
            assert worker.uses_redis or pool != "raises at once", "it was not even asked"
            assert len(client.connection_pool._in_use_connections) == 2
            for connection in held:
                await client.connection_pool.release(connection)
            ended = time.monotonic()
            async with asyncio.timeout(SECONDS):
                while not (await worker.change("1")).durable:
                    await worker.ask("/item/1")
                    await asyncio.sleep(0.01)
            back = time.monotonic() - ended
            assert (await client.execute_command("PING")) is True
            await worker.cache.aclose()
            assert worker.wrong == []
            return f"slowest of {5 * ROUNDS} requests {slowest * 1000:.0f} ms, right after {back:.2f} s"

    return asyncio.run(body())


def pushed(redis: RedisServer) -> str:
    """The application lets Redis track what its connections read (RESP3), and the cache uses the same ones."""

    async def body() -> str:
        client: Any = Redis.from_url(redis.url, protocol=3, max_connections=4)
        async with nothing_left(), client, Redis.from_url(redis.url) as other:
            worker = Worker(client, Truth())
            connections = [await client.connection_pool.get_connection() for _ in range(4)]
            for connection in connections:
                await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST")
                await connection.read_response()
                await client.connection_pool.release(connection)
            durable = 0
            for number in range(100):
                await other.set(f"noise{number}", "1")
                await worker.ask(f"/item/{number % 10}")
                if number % 10 == 5:
                    assert (await worker.change(str(number % 10))).durable
                    durable += 1
            assert worker.uses_redis
            await worker.cache.aclose()
            assert worker.wrong == []
            return f"{len(worker.answers)} right answers, {durable} of {durable} durable"

    return asyncio.run(body())


_TEST = "faults.test_redis_given_clients::"
_EXHAUSTED = f"{_TEST}test_an_application_that_holds_every_connection_of_the_pool_is_left_alone"
CASES = (
    Case(
        name="pool of the app's client exhausted, it raises at once",
        play=lambda redis: exhausted(redis, "raises at once"),
        clients="misses, answered by the app at once; what is in memory is served",
        receipts="held, then replayed",
        recovery="with the first connection that is free",
        test=_EXHAUSTED,
    ),
    Case(
        name="pool of the app's client exhausted, it waits for 20 s",
        play=lambda redis: exhausted(redis, "waits 20 s"),
        clients="misses, answered by the app; those in flight wait one deadline first",
        receipts="held, then replayed",
        recovery="a probe",
        test=_EXHAUSTED,
    ),
    Case(
        name="push messages on the app's connections (RESP3, `CLIENT TRACKING`)",
        play=pushed,
        clients="nothing",
        receipts="durable",
        recovery="none is needed",
        test=f"{_TEST}test_push_messages_to_connections_of_a_shared_pool_do_no_harm",
    ),
)
