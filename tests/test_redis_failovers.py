"""The server with the control state fails, another takes its place: no request notices, and the cache comes back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.tiers.redis import RedisLink
from tests.clusters import SERVICE, ClusterServers, SentinelServers, ask, wait
from tests.conftest import BINARIES
from tests.engine.doubles import written
from tests.servers import RedisServer

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.long

CONTROL = "{tiercache}:control"
LOG = "{tiercache}:log"
SECONDS = 8.0
"""Within which the cache is back once Redis is: the longest back-off of the breaker, and the lease."""
BINARY = next(iter(BINARIES.values()))


class Servers(Protocol):
    @property
    def url(self) -> str: ...

    def primary(self) -> RedisServer:
        """The one that has the control state."""

    def give_up(self, primary: RedisServer) -> None:
        """Replace `primary`, though it is well."""

    def close(self) -> None: ...


class Cluster(ClusterServers):
    def primary(self) -> RedisServer:
        return self.owner(CONTROL)

    def give_up(self, primary: RedisServer) -> None:
        mine = ask(primary, "CLUSTER", "MYID")
        replicas = [node for node in self.nodes if mine in b"".join(_lines(ask(node, "CLUSTER", "NODES"), b"myself"))]
        replica = next(node for node in replicas if node is not primary)
        ask(replica, "CLUSTER", "FAILOVER")


class Sentinels(SentinelServers):
    def primary(self) -> RedisServer:
        return self.master

    def give_up(self, primary: RedisServer) -> None:
        ask(self.sentinels[0], "SENTINEL", "FAILOVER", SERVICE)


def _lines(text: bytes, word: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if word in line]


@pytest.fixture(params=["cluster", "sentinel"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    if request.param == "cluster":
        cluster = Cluster(BINARY)
        with contextlib.closing(cluster):
            cluster.start()
            yield cluster
    else:
        sentinels = Sentinels(BINARY)
        with contextlib.closing(sentinels):
            sentinels.start()
            sentinels.ready_to_fail_over()
            yield sentinels


HOWS: dict[str, Callable[[Servers, RedisServer], None]] = {
    "is killed": lambda servers, primary: primary.kill(),
    "hangs": lambda servers, primary: primary.pause(),
    "gives up": lambda servers, primary: servers.give_up(primary),
}


class Traffic:
    """Requests to two workers, without end; each has to be answered, and rightly."""

    def __init__(self, caches: list[TierCache]) -> None:
        self.answered = 0
        self.slowest = 0.0
        self._ending = False
        self._clients = [self._client(cache) for cache in caches]
        self._tasks = [asyncio.create_task(self._ask(client)) for client in self._clients]

    async def end(self, *, after: int) -> None:
        """Stop, once `after` requests were answered: a failover may be quicker than a busy machine's requests."""
        async with asyncio.timeout(30):
            for _ in itertools.count():
                if self.answered >= after:
                    break
                await asyncio.sleep(0.01)
        self._ending = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.aclose()

    def _client(self, cache: TierCache) -> httpx.AsyncClient:
        async def page(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.path_params["number"])

        # Short-lived in memory, so that Redis is asked all the time.
        routes = {"/{number}": Policy(ttl=60, l1_ttl=0.02, tags=["page:{number}"])}
        app = TierCacheMiddleware(Starlette(routes=[Route("/{number}", page)]), cache=cache, routes=routes)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    async def _ask(self, client: httpx.AsyncClient) -> None:
        for number in itertools.cycle(range(50)):
            if self._ending:
                return
            started = time.perf_counter()
            response = await client.get(f"/{number}")
            self.slowest = max(self.slowest, time.perf_counter() - started)
            assert (response.status_code, response.text) == (200, str(number))
            self.answered += 1
            await asyncio.sleep(0.002)


async def works(first: TierCache, second: TierCache, name: str) -> bool:
    """Whether what one stores the other finds, wherever it is kept, until the one invalidates it."""
    keys = [f"{name}:{number}" for number in range(20)]
    for key in keys:
        await first.set(key, key, ttl=60, tags=[name])
    await written(first)
    if await second.get_many(keys) != {key: key for key in keys}:
        return False
    if not (await first.invalidate(name)).durable:
        return False
    for _ in range(300):  # the lease, and then some
        if not await second.get_many(keys):
            return True
        await asyncio.sleep(0.01)
    return False


async def until_it_works(first: TierCache, second: TierCache, name: str) -> float:
    """The seconds until both caches are back."""
    started = time.perf_counter()
    async with asyncio.timeout(SECONDS):
        for attempt in itertools.count():
            if await works(first, second, f"{name}{attempt}"):
                break
            await asyncio.sleep(0.02)
    return time.perf_counter() - started


@pytest.mark.parametrize("how", list(HOWS))
def test_a_failover_costs_no_request_and_the_cache_comes_back(how: str, servers: Servers) -> None:
    async def body() -> None:
        first, second = (TierCache.from_url(servers.url) for _ in range(2))
        async with first, second:
            await until_it_works(first, second, "before")
            traffic = Traffic([first, second])
            old = servers.primary()
            started = time.perf_counter()
            HOWS[how](servers, old)
            await asyncio.to_thread(wait, lambda: servers.primary() is not old)
            promoted = time.perf_counter() - started
            back = await until_it_works(first, second, "after")
            bring_back(old, how)
            await until_it_works(first, second, "again")
            await traffic.end(after=101)
        logger.info("promoted after %.2f s, back %.2f s later, slowest request %.2f s", promoted, back, traffic.slowest)
        assert traffic.answered > 100
        assert traffic.slowest < 2.0

    asyncio.run(bounded(body()))


@pytest.mark.parametrize("how", list(HOWS))
def test_a_command_that_waits_goes_on_at_the_new_server(how: str, servers: Servers) -> None:
    async def body() -> None:
        link = RedisLink(servers.url)
        tail = Tail(link)
        await tail.follows()
        old = servers.primary()
        HOWS[how](servers, old)
        await asyncio.to_thread(wait, lambda: servers.primary() is not old)
        await tail.follows()
        bring_back(old, how)
        await tail.follows()
        await tail.end()
        await link.aclose()

    asyncio.run(bounded(body()))
    gc.collect()


class Tail:
    """Reads a log as it grows, whatever happens to its server."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._seen: list[bytes] = []
        self._ending = False
        self._task = asyncio.create_task(self._read())

    async def follows(self) -> None:
        """Return when something added now has been read."""
        async with asyncio.timeout(SECONDS):
            while (added := await self._trying(0.3, self._link.command("XADD", LOG, "*", "a", "b"))) is None:
                await self._trying(0.3, self._link.ping(b"probe"))  # what the breaker's probe does
                await asyncio.sleep(0.05)
            for _ in itertools.count():
                if added in self._seen:
                    return
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._ending = True
        await self._task

    async def _read(self) -> None:
        last = b"0-0"
        while not self._ending:
            # Longer than it may block: a server that hangs never answers.
            await self._trying(0.5, self._link.blocking("XREAD", "BLOCK", 200, "STREAMS", LOG, last, key=LOG))
            entries = await self._trying(0.3, self._link.command("XRANGE", LOG, b"(" + last, "+")) or []
            self._seen += [entry for entry, _ in entries]
            last = self._seen[-1] if self._seen else last
            await asyncio.sleep(0.01)

    async def _trying(self, seconds: float, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await call
        except Exception:
            return None


async def bounded(body: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(60):
        await body


def bring_back(server: RedisServer, how: str) -> None:
    """Let the one that was replaced come back, believing that it is still in office."""
    if how == "is killed":
        server.start()
    else:
        server.resume()
