"""Random keys without end: what they may push out, fill up and slow down."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter

import pytest
from redis import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_tiercache import Policy, Region, TierCache, TierCacheMiddleware
from asgi_tiercache.admission import FIRST_SIGHT
from asgi_tiercache.config import Eviction
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.testing import ScriptedLeases, ScriptedTier, TickingClock
from asgi_tiercache.types import SystemClock
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run, turns
from tests.servers import RedisServer

HOT = 20
TOO_MANY = "detail=too-many-keys"


def an_app(cache: TierCache, policy: Policy, handler: Handler | None = None) -> TierCacheMiddleware:
    """Two routes under one policy."""
    endpoint = (handler or Handler()).answer
    app = Starlette(routes=[Route("/a", endpoint), Route("/b", endpoint)])
    return TierCacheMiddleware(app, cache=cache, routes={"/a": policy, "/b": policy})


def query(number: int | str) -> bytes:
    return f"q={number}".encode()


async def ask_hot(app: TierCacheMiddleware, times: int = 1) -> list[Reply]:
    return [await ask(app, "/a", query=query(f"hot {number}")) for _ in range(times) for number in range(HOT)]


def from_memory(replies: list[Reply]) -> int:
    return sum("detail=L1" in reply.cache_status for reply in replies)


# ---- in memory ----


@pytest.mark.parametrize("path", ["/a", "/b"])
@pytest.mark.parametrize("eviction", ["lru", "lfu", "ttl"])
def test_what_is_hot_stays_in_memory_while_keys_sweep_through_that_are_asked_for_once(
    eviction: Eviction, path: str
) -> None:
    region = Region(name="small", max_entries=100, eviction=eviction)
    app = an_app(TierCache(), Policy(ttl=3600, region=region))

    async def test() -> None:
        await ask_hot(app, times=2)
        for number in range(400):
            await ask(app, path, query=query(number))
        assert from_memory(await ask_hot(app)) == HOT

    asyncio.run(test())


def test_what_is_hot_stays_where_those_that_sweep_through_are_large() -> None:
    async def large(request: Request) -> Response:
        return Response(bytes(20_000 if "hot" not in str(request.url) else 100))

    app = an_app(TierCache(), Policy(ttl=3600, region=Region(name="small", max_bytes=400_000)), Handler(large))

    async def test() -> None:
        await ask_hot(app, times=2)
        for number in range(200):
            await ask(app, "/b", query=query(number))
        assert from_memory(await ask_hot(app)) == HOT

    asyncio.run(test())


def test_what_is_hot_stays_while_others_come_up_from_below() -> None:
    tier = ScriptedTier()
    policy = Policy(ttl=3600, region=Region(name="small", max_entries=100))
    log = ProcessLog(clock=SystemClock())
    other, app = (an_app(TierCache(l2=tier, log=log), policy) for _ in range(2))

    async def test() -> None:
        for number in range(300):
            await ask(other, "/a", query=query(number))
            await asyncio.sleep(0)
        await ask_hot(app, times=2)
        found = [await ask(app, "/a", query=query(number)) for number in range(300)]
        assert sum("detail=L2" in reply.cache_status for reply in found) > 250
        assert from_memory(await ask_hot(app)) == HOT

    asyncio.run(test())


def test_a_key_that_had_to_go_unasked_for_is_trusted_when_it_comes_again() -> None:
    app = an_app(TierCache(), Policy(ttl=3600, region=Region(name="small", max_entries=100)))
    numbers = itertools.count()

    async def sweep(requests: int) -> None:
        for _ in range(requests):
            await ask(app, "/b", query=query(next(numbers)))

    async def test() -> None:
        await sweep(200)
        await ask_hot(app)
        await sweep(100)
        assert from_memory(await ask_hot(app)) == 0
        await sweep(100)
        assert from_memory(await ask_hot(app)) == HOT

    asyncio.run(test())


def test_what_is_hot_has_no_probation_again_after_it_has_expired() -> None:
    clock = TickingClock()
    region = Region(name="small", max_entries=100)
    app = an_app(TierCache(clock=clock), Policy(ttl=60, region=region))

    async def test() -> None:
        for number in range(200):
            await ask(app, "/b", query=query(number))
        await ask_hot(app, times=2)
        clock.tick(61)
        await ask_hot(app)
        for number in range(200, 500):
            await ask(app, "/b", query=query(number))
        assert from_memory(await ask_hot(app)) == HOT

    asyncio.run(test())


# ---- in Redis ----


def test_random_queries_fill_redis_up_to_a_bound(own_redis: RedisServer) -> None:
    cache = TierCache.from_url(own_redis.url)
    app = an_app(cache, Policy(ttl=3600, max_keys=100))

    async def test() -> None:
        for number in range(500):
            reply = await ask(app, "/a", query=query(number))
            assert reply.status == 200
        for number in range(150):
            for _ in range(3):
                await ask(app, "/b", query=query(number))
        await cache.aclose()

    asyncio.run(test())
    with Redis(port=own_redis.port) as redis:
        stored = Counter(key.split(b":")[2] for key in redis.scan_iter(match="api:*", count=1_000))
    assert 50 <= stored[b"/a"] <= 60  # half of max_keys at first sight, and a few by mistake
    assert 95 <= stored[b"/b"] <= 105


# ---- what is not stored ----


def a_full_route(max_keys: int = 2, **options: object) -> tuple[TierCacheMiddleware, Handler]:
    """The first of its keys is stored, the others once they come again."""
    handler = Handler()
    return an_app(TierCache(), Policy(ttl=60, max_keys=max_keys).but(**options), handler), handler


def test_what_is_not_stored_is_answered_and_says_why_and_is_counted() -> None:
    app, _ = a_full_route()

    async def test() -> None:
        stored = await ask(app, "/a", query=query(1))
        assert stored.cache_status == "tiercache; fwd=uri-miss; stored"
        reply = await ask(app, "/a", query=query(2))
        assert (reply.status, reply.body) == (200, b"answer 2")
        assert reply.cache_status == f"tiercache; fwd=uri-miss; {TOO_MANY}"
        again = await ask(app, "/a", query=query(2))
        assert again.cache_status == "tiercache; fwd=uri-miss; stored"
        assert (await ask(app, "/a", query=query(2))).hit
        stats = app._cache.stats()  # type: ignore[attr-defined]
        assert stats["routes"]["/a"]["not_stored"] == {"too-many-keys": 1}
        assert stats["routes"]["/a"]["answers"]["misses"] == 3

    run(test())


def test_it_is_logged_once_for_each_route_and_window(caplog: pytest.LogCaptureFixture) -> None:
    clock = TickingClock()
    app = an_app(TierCache(clock=clock), Policy(ttl=60, max_keys=2))

    async def test() -> None:
        for path in ("/a", "/b"):
            for number in range(20):
                await ask(app, path, query=query(number))
        assert sorted(record.getMessage()[:4] for record in caplog.records) == ["'/a'", "'/b'"]
        assert all("max_keys=2" in record.getMessage() for record in caplog.records)
        clock.tick(61)
        for number in range(20, 40):
            await ask(app, "/a", query=query(number))
        assert len(caplog.records) == 3

    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        run(test())


def test_one_route_under_attack_leaves_another_its_own_keys() -> None:
    app, _ = a_full_route(max_keys=20)

    async def test() -> None:
        for number in range(200):
            await ask(app, "/a", query=query(number))
        assert "stored" in (await ask(app, "/b", query=query(1))).cache_status.split("; ")

    run(test())


@pytest.mark.parametrize("policy", [Policy(ttl=60, max_keys=2), Policy.http(ttl=60, max_keys=2)])
def test_those_who_ask_at_the_same_time_share_what_is_not_stored(policy: Policy) -> None:
    gated = Gated()
    app = app_of(gated.handler, policy)

    async def test() -> None:
        gated.open.set()
        await ask(app, query=query(1))
        gated.open.clear()
        under_way = [Exchange(app, http_scope(query=query(2))) for _ in range(20)]
        await gated.entered(2)
        await turns()
        gated.open.set()
        replies = [await each.reply() for each in under_way]
        assert [reply.status for reply in replies] == [200] * 20
        assert sum("detail=flight" in reply.cache_status for reply in replies) == 19
        assert gated.handler.calls == 2

    run(test())


def test_what_is_stored_is_made_anew_however_many_keys_there_are() -> None:
    clock = TickingClock()
    app = an_app(TierCache(clock=clock), Policy.http(ttl=60, max_keys=2, retention=600, stale_while_revalidate=30))

    async def test() -> None:
        await ask(app, "/a", query=query("old"))
        for number in range(50):
            await ask(app, "/a", query=query(number))
        clock.tick(70)
        assert (await ask(app, "/a", query=query("old"))).hit
        await turns()
        assert (await ask(app, "/a", query=query("old"))).body.startswith(b"answer 52")
        clock.tick(200)
        assert (await ask(app, "/a", query=query("old"))).cache_status == "tiercache; fwd=stale; stored"

    run(test())


def test_so_is_what_only_a_lower_tier_holds() -> None:
    clock, tier = TickingClock(), ScriptedTier()
    nothing_fits = Region(name="tiny", max_bytes=700)
    policy = Policy.http(ttl=60, max_keys=2, retention=600, region=nothing_fits)
    log = ProcessLog(clock=clock)
    other, app = (an_app(TierCache(l2=tier, log=log, clock=clock), policy) for _ in range(2))

    async def test() -> None:
        await ask(other, "/a", query=query("old"))
        for number in range(200):
            await ask(app, "/a", query=query(number))
        await turns()
        held = len(tier.data)
        clock.tick(70)
        assert (await ask(app, "/a", query=query("old"))).cache_status == "tiercache; fwd=stale; stored"
        await turns()
        assert (await ask(app, "/a", query=query("old"))).hit
        assert len(tier.data) == held

    asyncio.run(test())


def test_other_workers_are_not_kept_waiting_for_what_is_not_stored() -> None:
    clock, tier = TickingClock(), ScriptedTier()
    leases = ScriptedLeases(clock)
    app = an_app(TierCache(l2=tier, leases=leases, clock=clock), Policy(ttl=60, max_keys=2))

    async def test() -> None:
        await ask(app, "/a", query=query(1))
        assert TOO_MANY in (await ask(app, "/a", query=query(2))).cache_status
        await turns()
        assert leases.held == []

    run(test())


def test_each_variant_counts_as_a_key() -> None:
    async def varying(request: Request) -> Response:
        return PlainTextResponse(request.headers["accept-language"], headers={"vary": "accept-language"})

    app = an_app(TierCache(), Policy(ttl=60, max_keys=4), Handler(varying))

    async def test() -> None:
        told = []
        for number in range(10):
            headers = [(b"accept-language", b"x-%d" % number)]
            told.append((await ask(app, "/a", headers=headers)).cache_status)
        assert [TOO_MANY in each for each in told] == [False] * 2 + [True] * 8

    run(test())


def test_values_of_functions_are_bounded_likewise_and_those_that_code_names_are_not() -> None:
    async def test() -> None:
        async with TierCache() as cache:
            calls = Counter[int]()

            @cache.cached("square:{number}", ttl=60, max_keys=20)
            async def square(number: int) -> int:
                calls[number] += 1
                await asyncio.sleep(0)
                return number * number

            for number in range(100):
                assert list(await asyncio.gather(square(number), square(number))) == [number * number] * 2
            assert set(calls.values()) == {1}
            assert await square(0) == 0
            assert await square(99) == 99 * 99
            assert (calls[0], calls[99]) == (1, 2)
            (counted,) = (row for name, row in cache.stats()["routes"].items() if "square" in name)
            assert counted["not_stored"]["too-many-keys"] > 85

            for number in range(FIRST_SIGHT + 10):
                await cache.get_or_set(f"made:{number}", dict, ttl=60)
            assert cache.stats()["routes"]["(direct)"]["not_stored"] == {}

    asyncio.run(test())
