"""The guard around a real Redis, as requests meet it: what is shared by all requests, and what a refusal costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from asgi_tiercache import TierCache
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.tiers.writes import BATCH_ENTRIES
from tests.engine.doubles import written
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scene import Worker, workers
from tests.middleware.asgi import run
from tests.servers import RedisServer

DEADLINE = 0.3
MARGIN = 0.4
"""Seconds that a busy machine may add."""


def figure(text: str) -> None:
    """What was measured, for whoever asks pytest to show it (`-rP`)."""
    sys.stderr.write(text + "\n")


async def stored(worker: Worker, number: int) -> None:
    """Have `number` items in Redis, and none in memory."""
    for item in range(number):
        await worker.ask(f"/item/{item}")
    await written(worker.cache)
    worker.cache.engine.memory.clear()


async def asked_until(worker: Worker, tier: str, first: int = 10_000) -> None:
    """Ask for ever new items, and see each again from memory's next, until it comes from `tier`."""
    async with asyncio.timeout(15):
        while True:
            first += 1
            await worker.ask(f"/item/{first}")
            await written(worker.cache)
            worker.cache.engine.memory.clear()
            if f"detail={tier}" in (await worker.ask(f"/item/{first}")).told:
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def admin(server: RedisServer) -> AsyncIterator[Any]:
    async with Redis.from_url(server.url) as client:
        yield client


# ---- one deadline for all that a request asks ----


@pytest.mark.parametrize("seconds", [pytest.param(0.15, marks=pytest.mark.long), 0.25, 0.5])
@pytest.mark.parametrize("lag", [0.01, 1.0], ids=["lease over", "lease in force"])
def test_a_redis_that_answers_slowly_costs_a_request_one_deadline_in_all_and_the_next_nothing(
    own_redis: RedisServer, seconds: float, lag: float
) -> None:
    async def body(proxy: FaultProxy) -> None:
        async with workers(proxy.url, 1, max_lag=lag) as (worker,):
            worker.lag = 60.0
            await stored(worker, 20)
            proxy.begin(Fault(delay=seconds))
            await asyncio.sleep(0.05)
            in_flight = await asyncio.gather(*(worker.ask(f"/item/{item}") for item in range(30)))
            for item in range(100, 110):  # misses ask the most: the log, the tier, for the lease, the tier again
                await worker.ask(f"/item/{item}")
            slowest = max(answer.seconds for answer in in_flight)
            later = [answer.seconds for answer in worker.answers[-5:]]
            figure(f"in flight {slowest:.3f} s, later {max(later):.4f} s")
            assert slowest < DEADLINE + MARGIN
            assert sum(answer.seconds for answer in worker.answers[20:]) < 30 * slowest + DEADLINE + MARGIN
            assert max(later) < DEADLINE / 3
            assert not worker.uses_redis
            proxy.end()

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))


def test_a_black_hole_before_the_first_connection_costs_the_start_and_the_first_requests_one_deadline(
    own_redis: RedisServer,
) -> None:
    async def body(proxy: FaultProxy) -> None:
        proxy.begin(Fault(silent=True))
        async with workers(proxy.url, 1) as (worker,):
            started = time.perf_counter()
            await worker.cache.start()
            await asyncio.gather(*(worker.ask(f"/item/{item}") for item in range(10)))
            took = time.perf_counter() - started
            figure(f"start and ten requests {took:.3f} s")
            assert took < DEADLINE + MARGIN

    with FaultProxy(own_redis.port) as proxy:
        run(body(proxy))


def test_what_is_asked_of_the_cache_directly_takes_one_deadline_in_all(own_redis: RedisServer) -> None:
    async def body() -> None:
        async with TierCache.from_url(own_redis.url) as cache:
            await cache.set("a", 1, ttl=60)
            await written(cache)
            cache.engine.memory.clear()
            own_redis.pause()
            started = time.perf_counter()
            assert await cache.get("a", "nothing") == "nothing"
            assert await cache.get_many(["a", "b"]) == {}
            assert await cache.get_or_set("c", lambda: 3, ttl=60) == 3
            await cache.set("d", 4, ttl=60)
            await cache.delete("a")
            assert not (await cache.invalidate("tag")).durable
            took = time.perf_counter() - started
            figure(f"six operations {took:.3f} s")
            assert took < DEADLINE + MARGIN
            own_redis.resume()

    run(body())


# ---- what is no outage ----


def test_a_full_redis_serves_what_it_has_and_is_given_no_more_until_it_has_room(own_redis: RedisServer) -> None:
    async def body() -> None:
        async with admin(own_redis) as client, workers(own_redis.url, 1) as (worker,):
            changes: list[object] = []
            worker.cache.engine.signals.subscribe(changes.append, BreakerChanged)
            await stored(worker, 20)
            await client.config_set("maxmemory", 1)
            await client.config_resetstat()
            for item in range(1000, 1300):
                await worker.ask(f"/item/{item}")
                await written(worker.cache)
            refused = (await client.info("commandstats"))["cmdstat_set"]["rejected_calls"]
            worker.cache.engine.memory.clear()
            for item in range(20):
                assert "detail=L2" in (await worker.ask(f"/item/{item}")).told
            figure(f"{refused} of 600 writes and leases reached the full server")
            assert refused < 60
            assert {getattr(change, "tier", "") for change in changes} == {"L2 writes"}
            await client.config_set("maxmemory", 0)
            await asked_until(worker, "L2")
            assert worker.cache.stats()["breakers"]["L2 writes"]["state"] == "closed"

    run(body())


def test_a_replica_serves_reads_and_is_given_no_writes_until_it_takes_them(own_redis: RedisServer) -> None:
    async def body() -> None:
        async with admin(own_redis) as client, workers(own_redis.url, 1, trust_restart=True) as (worker,):
            await stored(worker, 20)
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")
            for item in range(1000, 1100):
                await worker.ask(f"/item/{item}")
                await written(worker.cache)
            for item in range(20):
                assert "detail=L2" in (await worker.ask(f"/item/{item}")).told
            assert not (await worker.change("1000")).durable
            assert worker.uses_redis
            await client.execute_command("REPLICAOF", "NO", "ONE")
            await asked_until(worker, "L2")

    run(body())


def test_an_app_that_holds_every_connection_of_its_client_is_no_outage_of_redis(own_redis: RedisServer) -> None:
    async def body() -> None:
        client: Any = Redis.from_url(own_redis.url, max_connections=4)
        async with client:
            cache = TierCache.from_client(client)
            failures: list[TierFailed] = []
            cache.engine.signals.subscribe(failures.append, TierFailed)  # type: ignore[arg-type]
            async with cache:
                await cache.set("a", 1, ttl=60)
                await written(cache)
                held = [await client.connection_pool.get_connection() for _ in range(4)]
                for _ in range(20):
                    cache.engine.memory.clear()
                    assert await cache.get("a", "nothing") == "nothing"
                assert len(failures) >= 20
                assert cache.stats()["breakers"] == {}
                for connection in held:
                    await client.connection_pool.release(connection)
                assert await cache.get("a") == 1

    run(body())


def test_an_event_loop_that_is_blocked_again_and_again_is_no_outage_of_redis(own_redis: RedisServer) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1) as (worker,):
            await stored(worker, 40)
            blocking = True

            async def handler_without_manners() -> None:
                while blocking:
                    time.sleep(0.1)  # noqa: ASYNC251 - the point
                    await asyncio.sleep(0)

            rude = asyncio.create_task(handler_without_manners())
            told = [(await worker.ask(f"/item/{item}")).told for item in range(3)]
            told += [a.told for a in await asyncio.gather(*(worker.ask(f"/item/{item}") for item in range(3, 40)))]
            blocking = False
            await rude
            assert all("detail=L2" in each for each in told)
            assert worker.cache.stats()["breakers"] == {}

    run(body())


# ---- closing, and the log ----


def test_closing_over_a_redis_that_hangs_with_a_full_queue_ends_within_seconds(own_redis: RedisServer) -> None:
    async def body() -> float:
        cache = TierCache.from_url(own_redis.url)
        async with cache:
            await cache.get("connects")
            own_redis.pause()
            for number in range(20 * BATCH_ENTRIES):
                await cache.set(str(number), "x" * 1000, ttl=60)
            started = time.perf_counter()
        return time.perf_counter() - started

    took: list[float] = []

    async def measured() -> None:
        took.append(await body())

    run(measured())
    own_redis.resume()
    figure(f"closed after {took[0]:.2f} s")
    assert took[0] < 5.0


def test_an_outage_is_two_lines_in_the_log_however_many_requests_come(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with workers(own_redis.url, 1) as (worker,):
            await stored(worker, 5)
            own_redis.kill()
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                await worker.ask(f"/item/{len(worker.answers)}")
                await asyncio.sleep(0.005)
            own_redis.start()
            await asked_until(worker, "L2")

    with caplog.at_level(logging.DEBUG, "asgi_tiercache"):
        run(body())
    messages = [record.getMessage() for record in caplog.records]
    figure(str(messages))
    assert len(messages) == 2
    assert messages[0].startswith("L2 is out of reach")
    assert messages[1].startswith("L2 is back after")
