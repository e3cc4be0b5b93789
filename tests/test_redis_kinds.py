"""Two caches that share one Redis, of each kind: what one stores, invalidates and clears, the other sees."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.credentials import UsernamePasswordCredentialProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_tiercache import Policy, Purged, Receipt, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock, assert_hit, assert_miss
from tests.certificates import Certificates
from tests.clusters import ClusterServers, ask
from tests.conftest import BINARIES
from tests.engine.doubles import written
from tests.servers import RedisServer

Make = Callable[..., TierCache]
DEADLINE = 5.0


@pytest.fixture(params=["server", "cluster", "sentinel", "tls", "given", "given cluster"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes caches that share a namespace and a clock."""
    kind = request.param.split()[-1]
    options: dict[str, Any] = {
        "namespace": f"kinds-{secrets.token_hex(4)}",
        "clock": TickingClock(),
        "deadline": DEADLINE,
    }
    if kind == "tls":
        certificates: Certificates = request.getfixturevalue("certificates")
        server: RedisServer = request.getfixturevalue("tls_redis")
        return lambda: TierCache.from_url(f"{server.url.replace(':', 's:', 1)}?{certificates.option}", **options)
    fixture = {"cluster": "redis_cluster", "sentinel": "redis_sentinels"}.get(kind, "redis_server")
    url = request.getfixturevalue(fixture).url
    if not request.param.startswith("given"):
        return lambda: TierCache.from_url(url, **options)
    return lambda client: TierCache.from_client(client, **options)


@contextlib.asynccontextmanager
async def workers(make: Make, request: pytest.FixtureRequest) -> AsyncIterator[tuple[TierCache, TierCache]]:
    """Two caches, started."""
    kind = request.node.callspec.params["make"]
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Any] = []
        if kind == "given":
            server: RedisServer = request.getfixturevalue("redis_server")
            clients = [[Redis.from_url(server.url)] for _ in range(2)]
        elif kind == "given cluster":
            cluster: ClusterServers = request.getfixturevalue("redis_cluster")
            clients = [[RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)] for _ in range(2)]
        for (client,) in clients:
            stack.push_async_callback(client.aclose)
        caches = [make(*client) for client in clients] or [make(), make()]
        for cache in caches:
            await stack.enter_async_context(cache)
        await stack.enter_async_context(asyncio.timeout(30))
        yield caches[0], caches[1]


def tick(cache: TierCache) -> None:
    """Let the lease of every cache of the test run out."""
    clock: Any = cache.engine.clock
    clock.tick(1.0)


def test_functions_are_shared_and_invalidated_by_tag_key_and_clear(make: Make, request: pytest.FixtureRequest) -> None:
    calls: list[int] = []

    def loader(cache: TierCache) -> Callable[[int], Awaitable[int]]:
        @cache.cached("item:{n}", ttl=1000, tags=["item:{n}", "items:{parity}"], ignore=["parity"])
        async def load(n: int, parity: int) -> int:
            calls.append(n)
            return n * n

        return lambda n: load(n, n % 2)

    async def body() -> None:
        async with workers(make, request) as (first, second):
            here, there = loader(first), loader(second)

            async def made(load: Callable[[int], Awaitable[int]]) -> set[int]:
                calls.clear()
                assert [await load(n) for n in range(40)] == [n * n for n in range(40)]
                await written(first)
                await written(second)
                return set(calls)

            assert await made(here) == set(range(40))
            assert await made(there) == set()
            assert second.stats()["tiers"]["L2"]["hits"] == 40
            assert (await first.invalidate("items:1")).durable
            tick(first)
            assert await made(there) == set(range(1, 40, 2))
            assert await made(here) == set()
            assert (await second.invalidate_key("item:2", "item:4")).durable
            tick(first)
            assert await made(here) == {2, 4}
            assert (await first.clear()).durable
            tick(first)
            assert await made(there) == set(range(40))
            assert [cache.stats()["failures"] for cache in (first, second)] == [{}, {}]

    asyncio.run(body())


def test_responses_are_shared_and_invalidated(make: Make, request: pytest.FixtureRequest) -> None:
    def served(cache: TierCache) -> httpx.AsyncClient:
        async def page(request: Request) -> PlainTextResponse:
            cache.current.tag("page:7")
            return PlainTextResponse("page")

        routes = {"/page": Policy(ttl=1000)}
        app = Starlette(routes=[Route("/page", page)])
        wrapped = TierCacheMiddleware(app, cache=cache, routes=routes)
        return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://test")

    async def body() -> None:
        async with workers(make, request) as (first, second), served(first) as here, served(second) as there:
            assert_miss(await here.get("/page"), stored=True)
            await written(first)
            assert_hit(await there.get("/page"), "L2")
            await second.invalidate("page:7")
            tick(first)
            assert_miss(await here.get("/page"), stored=True)

    asyncio.run(body())


def test_others_follow_without_a_question(make: Make, request: pytest.FixtureRequest) -> None:
    """The clock stands still, so nothing but the tail can tell."""
    heard: list[Purged] = []

    async def body() -> None:
        async with workers(make, request) as (first, second):
            second.on_invalidate(heard.append, everywhere=True)
            await second.set("user:1:name", "x", ttl=1000, tags=["t"])
            ways: tuple[Callable[[], Awaitable[Receipt]], ...] = (
                lambda: first.invalidate("t"),
                lambda: first.invalidate_pattern("user:1:*"),
                lambda: first.invalidate_pattern("*:n?me", soft=True),
                first.clear,
            )
            for invalidate in ways:
                await second.set("user:1:name", "x", ttl=1000, tags=["t"])
                assert await second.get("user:1:name") == "x"
                receipt = await invalidate()
                assert receipt.durable
                assert receipt.position is not None
                for _ in range(1_000):
                    if second.stamp().position >= receipt.position:
                        break
                    await asyncio.sleep(0.005)
                assert await second.get("user:1:name") is None
            for _ in range(1_000):
                if len(heard) == 4:
                    break
                await asyncio.sleep(0.005)
            assert [(purged.tags, purged.patterns, purged.everything) for purged in heard] == [
                (("t",), (), False),
                ((), (_full(first, "user:1:*"),), False),
                ((), (_full(first, "*:n?me"),), False),
                ((), (), True),
            ]

    asyncio.run(body())


def _full(cache: TierCache, pattern: str) -> str:
    return f"{cache.namespace}:{pattern}"


def test_a_replica_confirms_where_there_is_one(make: Make, request: pytest.FixtureRequest) -> None:
    kind: str = request.node.callspec.params["make"]

    async def body() -> None:
        async with workers(make, request) as (first, _):
            receipt = await first.invalidate("t", durable="replica")
            assert receipt.durable is (kind.endswith("cluster") or kind == "sentinel")
            assert receipt.position is not None, "the log has it in any case"

    asyncio.run(body())


def test_entries_lie_on_all_nodes_of_a_cluster_and_control_state_on_one(redis_cluster: ClusterServers) -> None:
    namespace = f"spread-{secrets.token_hex(4)}"

    async def body() -> None:
        async with TierCache.from_url(redis_cluster.url, namespace=namespace, deadline=DEADLINE) as cache:
            for number in range(60):
                await cache.set(f"k{{{number % 2}}}{number}", number, ttl=1000, tags=[f"t{number}"])
            await cache.invalidate("t1", "t2")
            await written(cache)

    asyncio.run(body())
    primaries = [node for node in redis_cluster.nodes if ask(node, "ROLE")[0] == b"master"]
    entries = [len(ask(node, "KEYS", f"{namespace}:*")) for node in primaries]
    control = [sorted(ask(node, "KEYS", f"{{{namespace}}}:*")) for node in primaries]
    assert sum(entries) == 60
    assert all(entries)
    assert [names for names in control if names] == [
        [f"{{{namespace}}}:{name}".encode() for name in ("control", "log")]
    ]


@pytest.mark.parametrize("version", list(BINARIES))
def test_a_credential_provider_is_asked_for_user_and_password(version: str) -> None:
    server = RedisServer(BINARIES[version], {"requirepass": "other"})
    provider = UsernamePasswordCredentialProvider("cache", "right")
    wrong = UsernamePasswordCredentialProvider("cache", "wrong")

    async def body() -> None:
        async with Redis.from_url(server.url, password="other") as admin:
            await admin.acl_setuser("cache", enabled=True, passwords=["+right"], commands=["+@all"], keys=["*"])
        async with TierCache.from_url(server.url, credential_provider=provider, deadline=DEADLINE) as cache:
            assert (await cache.invalidate("a")).durable
        async with TierCache.from_url(server.url, credential_provider=wrong, deadline=DEADLINE) as cache:
            assert not (await cache.invalidate("a")).durable

    try:
        server.start()
        asyncio.run(body())
    finally:
        server.close()
