"""Processes that share a real Redis: one computes a value for all of them, also where the one that does is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from asgi_tiercache import TierCache
from asgi_tiercache.engine.core import LEASE_SECONDS
from tests.servers import RedisServer

PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from redis.asyncio import Redis
    from asgi_tiercache import TierCache

    url, seconds = sys.argv[1], float(sys.argv[2])

    async def main():
        redis = Redis.from_url(url)
        cache = TierCache.from_url(url, namespace="shop")

        @cache.cached("k:{a}", ttl=60)
        async def value(a: int) -> str:
            await redis.rpush("calls", "called")
            await asyncio.sleep(seconds)
            return "of a process"

        async with cache, redis:
            await cache.get("warm")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            answers = await asyncio.gather(*(value(1) for _ in range(50)))
            print(len(answers), *set(answers), flush=True)

    asyncio.run(main())
""")


class Process:
    """A worker that computes when it is told to."""

    def __init__(self, url: str, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def client(own_redis: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(own_redis.url, decode_responses=True) as found:
        yield found


def until_called(client: Redis, times: int) -> None:
    until = time.monotonic() + 10.0
    while client.llen("calls") < times:
        assert time.monotonic() < until, "nobody computes"
        time.sleep(0.01)


def test_two_processes_with_fifty_callers_each_compute_once(own_redis: RedisServer, client: Redis) -> None:
    processes = [Process(own_redis.url, 0.3) for _ in range(2)]
    try:
        for process in processes:
            process.go()
        assert [process.line() for process in processes] == ["50 of a process"] * 2
        assert client.llen("calls") == 1
    finally:
        for process in processes:
            process.close()
    assert client.keys("*lease") == []


def test_where_the_holder_is_killed_one_takes_over_within_its_lease(own_redis: RedisServer, client: Redis) -> None:
    holder = Process(own_redis.url, 60.0)

    async def ask(url: str) -> tuple[list[str], float]:
        async with TierCache.from_url(url, namespace="shop") as cache:

            @cache.cached("k:{a}", ttl=60)
            async def value(a: int) -> str:
                client.rpush("calls", "called")
                return "of the others"

            await cache.get("warm")
            started = time.monotonic()
            callers = [asyncio.create_task(value(1)) for _ in range(20)]
            await asyncio.sleep(0.2)
            holder.kill()
            return await asyncio.gather(*callers), time.monotonic() - started

    try:
        holder.go()
        until_called(client, 1)
        answers, seconds = asyncio.run(ask(own_redis.url))
    finally:
        holder.close()
    assert answers == ["of the others"] * 20
    assert client.llen("calls") == 2
    assert 0.2 <= seconds < LEASE_SECONDS + 1.5


def test_an_overwritten_lease_is_left_to_whoever_wrote_it(own_redis: RedisServer, client: Redis) -> None:
    async def body() -> None:
        async with TierCache.from_url(own_redis.url, namespace="shop") as cache:

            @cache.cached("k", ttl=60)
            async def value() -> str:
                assert client.keys("*lease") == ["shop:k{}lease"]
                client.set("shop:k{}lease", "somebody else's")
                return "value"

            assert await value() == "value"
        assert client.get("shop:k{}lease") == "somebody else's"
        assert client.exists("shop:k") == 1

    asyncio.run(body())


def test_a_cold_call_costs_three_commands_more_than_without_a_lock(own_redis: RedisServer, client: Redis) -> None:
    async def commands(lock: bool) -> dict[str, int]:
        async with TierCache.from_url(own_redis.url, namespace="shop") as cache:

            @cache.cached(f"k{lock}:{{a}}", ttl=60, lock=lock)
            async def value(a: int) -> int:
                return a

            await value(0)
            assert cache.engine.stack is not None
            await cache.engine.stack.flush()
            await asyncio.sleep(0.1)
            client.config_resetstat()
            await value(1)
            await cache.engine.stack.flush()
            await asyncio.sleep(0.1)
            stats = client.info("commandstats")
        names = ("get", "set", "evalsha")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names}

    without, with_it = asyncio.run(commands(False)), asyncio.run(commands(True))
    assert without == {"get": 1, "set": 1, "evalsha": 0}
    assert with_it == {"get": 3, "set": 2, "evalsha": 1}, "one of the three reads is made by the script"
