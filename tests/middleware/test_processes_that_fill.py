"""Processes that share a real Redis: one makes a response for all of them, also where the one that does is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from asgi_tiercache.engine.core import LEASE_SECONDS
from tests.servers import RedisServer

REQUESTS = 50
PROGRAM = textwrap.dedent("""
    import asyncio, sys, time
    from redis.asyncio import Redis
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import StreamingResponse
    from starlette.routing import Route
    from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
    from tests.middleware.asgi import Exchange, running

    url, seconds, number = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

    async def main():
        redis = Redis.from_url(url)
        cache = TierCache.from_url(url, namespace="shop")

        async def endpoint(request):
            async def chunks():
                await redis.rpush("calls", "called")
                yield b"of "
                await asyncio.sleep(seconds)
                yield b"a process"
            return StreamingResponse(chunks())

        middleware = [Middleware(TierCacheMiddleware, cache=cache, routes={"/": Policy(ttl=60)})]
        app = Starlette(routes=[Route("/", endpoint)], middleware=middleware)
        async with redis, running(app):
            await cache.get("warm")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            started = time.monotonic()
            asking = [Exchange(app) for _ in range(number)]
            await asyncio.gather(*(each.task for each in asking))
            bodies = {b"".join(message.get("body", b"") for message in each.messages) for each in asking}
            print(len(asking), time.monotonic() - started, *(body.decode() for body in bodies), flush=True)

    asyncio.run(main())
""")


class Process:
    """A worker that asks its app when it is told to."""

    def __init__(self, url: str, seconds: float, requests: int = REQUESTS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(seconds), str(requests)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def ready(self) -> None:
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def answers(self) -> tuple[int, float, str]:
        """How many there were, the seconds until the last of them, and their texts."""
        number, seconds, text = self._line().split(" ", 2)
        return int(number), float(seconds), text

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
        assert time.monotonic() < until, "nobody fills"
        time.sleep(0.01)


def test_four_processes_with_fifty_requests_each_run_the_handler_once(own_redis: RedisServer, client: Redis) -> None:
    processes = [Process(own_redis.url, 0.3) for _ in range(4)]
    try:
        for process in processes:
            process.ready()
        for process in processes:
            process.go()
        answers = [process.answers() for process in processes]
        assert [(number, text) for number, _, text in answers] == [(REQUESTS, "of a process")] * 4
        assert client.llen("calls") == 1
    finally:
        for process in processes:
            process.close()
    assert client.keys("*lease") == []


def test_where_the_holder_is_killed_the_others_are_answered_within_its_lease(
    own_redis: RedisServer, client: Redis
) -> None:
    holder, *others = processes = [Process(own_redis.url, 60.0, 1), *(Process(own_redis.url, 0.1) for _ in range(3))]
    try:
        for process in processes:
            process.ready()
        holder.go()
        until_called(client, 1)
        for process in others:
            process.go()
        time.sleep(0.3)
        holder.kill()
        for process in others:
            number, seconds, text = process.answers()
            assert (number, text) == (REQUESTS, "of a process")
            assert 0.2 <= seconds < LEASE_SECONDS + 1.5
        assert client.llen("calls") == 2
    finally:
        for process in processes:
            process.close()
