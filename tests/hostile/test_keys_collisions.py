"""Requests, variants and calls that meet under one key: each is compared by what it is, and none answers another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.http.vary import variant
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.keys.request import RequestKey, RequestKeys
from asgi_tiercache.testing import ScriptedTier
from tests.hostile.apps import MODES, asked
from tests.hostile.collisions import colliding
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, Reply, http_scope, run, turns, until
from tests.servers import RedisServer

modes = pytest.mark.parametrize("policy", MODES.values(), ids=MODES)
CACHEABLE = {"cache-control": "public, max-age=60"}


def key_of(policy: Policy, query: bytes) -> RequestKey:
    key = RequestKeys(policy).of(http_scope(query=query))
    assert isinstance(key, RequestKey)
    return key


def two_queries(policy: Policy) -> tuple[bytes, bytes]:
    """Queries that `policy` gives one key, and two canonical requests."""
    one, other = colliding(key_of(policy, b"z" * 900).canonical.index(b"z" * 900))
    assert 100 <= len(one) < 1_000, "else the length of the query takes another number of digits"
    keys = [key_of(policy, query) for query in (one, other)]
    assert keys[0].text == keys[1].text
    assert keys[0].canonical != keys[1].canonical
    return one, other


def which(value: bytes) -> str:
    return "one" if value.index(b"evil") < value.index(b"good") else "other"


def told(request: Request) -> Response:
    return PlainTextResponse(which(request.scope["query_string"]), headers=CACHEABLE)


async def ask(app: Starlette, query: bytes) -> Reply:
    return await Exchange(app, http_scope(query=query)).reply()


@modes
def test_in_memory_a_collision_is_a_miss(policy: Policy) -> None:
    one, other = two_queries(policy)
    handler = Handler(told)

    async def test() -> None:
        app = app_of(handler, policy)
        for query, body in [(one, b"one"), (other, b"other"), (one, b"one"), (other, b"other")]:
            reply = await ask(app, query)
            assert (reply.body, reply.hit) == (body, False)
            assert (await ask(app, query)).hit, "the later one has taken the place"

    run(test())


class Fleet:
    """Processes that share a lower tier: what one stores the others may find."""

    def __init__(self, policy: Policy) -> None:
        self.tier = ScriptedTier()
        self._log = ProcessLog()
        self._policy = policy

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Starlette]:
        """An app with nothing in memory; when it is left, what it has stored is in the tier."""
        cache = TierCache(l2=self.tier, log=self._log)
        yield app_of(Handler(told), self._policy, cache=cache)
        await cache.aclose()


@modes
def test_in_a_lower_tier_a_collision_is_a_miss(policy: Policy) -> None:
    one, other = two_queries(policy)

    async def test() -> None:
        fleet = Fleet(policy)
        for query, body, hit in [(one, b"one", False), (other, b"other", False), (other, b"other", True)]:
            async with fleet.worker() as app:
                reply = await ask(app, query)
                assert (reply.body, reply.hit) == (body, hit)

    run(test())


@modes
def test_those_who_read_a_lower_tier_at_a_time_judge_it_each(policy: Policy) -> None:
    """One read serves all who ask for a key at the same time: also those whose requests merely share it."""
    one, other = two_queries(policy)

    async def test() -> None:
        fleet = Fleet(policy)
        async with fleet.worker() as app:
            await ask(app, one)
        for queries in ((one, other, other, one), (other, one, one, other)):
            async with fleet.worker() as app:
                fleet.tier.hang()
                under_way = [Exchange(app, http_scope(query=query)) for query in queries]
                await turns()
                fleet.tier.recover()
                bodies = [(await each.reply()).body for each in under_way]
                assert bodies == [b"one" if query == one else b"other" for query in queries]

    run(test())


@modes
@pytest.mark.parametrize("streams", [False, True])
def test_whoever_waits_for_a_flight_is_not_given_what_it_brings_another(streams: bool, policy: Policy) -> None:
    one, other = two_queries(policy)
    go_on = asyncio.Event()

    async def respond(request: Request) -> Response:
        if not streams:
            await go_on.wait()
            return told(request)
        body = bytes(told(request).body)

        async def parts() -> Any:
            yield body[:1]
            await go_on.wait()
            yield body[1:]

        return StreamingResponse(parts(), headers=CACHEABLE)

    async def test() -> None:
        handler = Handler(respond)
        app = app_of(handler, policy)
        leader = Exchange(app, http_scope(query=one))
        await until(lambda: handler.calls == 1)
        await turns()
        followers = [Exchange(app, http_scope(query=query)) for query in (other, one, other)]
        await turns()
        go_on.set()
        bodies = [(await each.reply()).body for each in (leader, *followers)]
        assert bodies == [b"one", b"other", b"one", b"other"]

    run(test())


@modes
def test_variants_whose_values_collide_are_told_apart(policy: Policy) -> None:
    name = "accept-thing" if policy.strict else "x-thing"
    prefix = variant([name], [(name.encode(), b"?" * 900)]).index(b"?")
    values = [value + b"." * 100 for value in colliding(prefix)]
    assert 200 < len(values[0]) < 1_000

    def respond(request: Request) -> Response:
        return PlainTextResponse(which(request.headers[name].encode("latin-1")), headers={**CACHEABLE, "vary": name})

    async def test() -> None:
        app = app_of(Handler(respond), policy)
        for _ in range(2):
            for value, body in zip(values, (b"one", b"other"), strict=True):
                reply = await asked(app, (name.encode(), value))
                assert (reply.body, reply.hit) == (body, False)
                assert (await asked(app, (name.encode(), value))).hit

    run(test())


@modes
def test_the_list_of_variants_of_one_request_says_nothing_of_another(policy: Policy) -> None:
    """Under one key lies the marker of a response that varies, and the whole of one that does not."""
    one, other = two_queries(policy)

    def respond(request: Request) -> Response:
        response = told(request)
        if request.scope["query_string"] == one:
            response.headers["vary"] = "accept-language"
        return response

    async def test() -> None:
        app = app_of(Handler(respond), policy)
        for _ in range(2):
            for query, body in [(one, b"one"), (other, b"other")]:
                reply = await ask(app, query)
                assert (reply.body, reply.hit) == (body, False)
                assert (await ask(app, query)).hit
        # Both vary now: the variant of each stands under one key, too.
        app = app_of(Handler(lambda request: _varying(told(request))), policy)
        for _ in range(2):
            for query, body in [(one, b"one"), (other, b"other")]:
                assert (await ask(app, query)).body == body
                reply = await ask(app, query)
                assert (reply.body, reply.hit) == (body, True)

    run(test())


def _varying(response: Response) -> Response:
    response.headers["vary"] = "accept-language"
    return response


def test_whoever_waits_for_the_lease_of_a_collision_answers_for_itself(
    redis_server: RedisServer,
) -> None:
    policy = Policy(ttl=60)
    one, other = two_queries(policy)
    go_on = asyncio.Event()

    async def respond(request: Request) -> Response:
        if request.scope["query_string"] == one:
            await go_on.wait()
        return told(request)

    async def test() -> None:
        namespace = "collisions"
        caches = [TierCache.from_url(redis_server.url, namespace=namespace) for _ in range(2)]
        await caches[0].clear()
        handlers = [Handler(respond) for _ in caches]
        apps = [app_of(handler, policy, cache=cache) for handler, cache in zip(handlers, caches, strict=True)]
        for app in apps:
            await ask(app, b"evilgood")  # both are known to be good for something
        leader = Exchange(apps[0], http_scope(query=one))
        await until(lambda: handlers[0].calls == 2)
        waiter = Exchange(apps[1], http_scope(query=other))
        await turns()
        go_on.set()
        assert (await leader.reply()).body == b"one"
        assert (await waiter.reply()).body == b"other"
        for cache in caches:
            await cache.aclose()

    run(test())


@modes
def test_whoever_shares_a_key_with_a_flight_shares_neither_its_time_nor_its_failure(policy: Policy) -> None:
    one, other = two_queries(policy)
    go_on = asyncio.Event()

    async def respond(request: Request) -> Response:
        if request.scope["query_string"] == one:
            await go_on.wait()
            raise LookupError("of one")
        return told(request)

    async def test() -> None:
        handler = Handler(respond)
        app = app_of(handler, policy)
        under_way = [Exchange(app, http_scope(query=one)) for _ in range(2)]
        await until(lambda: handler.calls == 1)
        await turns()
        assert [(await ask(app, other)).body for _ in range(2)] == [b"other"] * 2
        go_on.set()
        for each in under_way:
            with pytest.raises(LookupError, match="of one"):
                await each.reply()
        assert handler.calls == (2 if policy.mode == "explicit" else 3)  # elsewhere each fails for itself

    run(test())


# ---- functions: no need to force anything, values that are written alike share a key ----

ALIKE: list[tuple[Any, Any]] = [(1, "1"), (True, "true"), (None, "none"), (b"a", "a"), (1.5, "1.5")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
@pytest.mark.parametrize("together", [False, True])
def test_calls_that_share_a_key_share_no_value(one: object, other: object, together: bool) -> None:
    cache = TierCache()
    go_on = asyncio.Event()

    @cache.cached("f:{value}", ttl=60)
    async def f(value: Any) -> str:
        await go_on.wait()
        return type(value).__name__

    async def test() -> None:
        calls: list[Callable[[], Any]] = [lambda value=value: f(value) for value in (one, other, one, other)]  # type: ignore[misc]
        expected = [type(value).__name__ for value in (one, other, one, other)]
        if together:
            tasks = [asyncio.ensure_future(call()) for call in calls]
            await turns()
            go_on.set()
            assert await asyncio.gather(*tasks) == expected
        else:
            go_on.set()
            assert [await call() for call in calls] == expected

    run(test())


def test_calls_that_share_a_key_share_no_value_in_a_lower_tier() -> None:
    tier, log = ScriptedTier(), ProcessLog()
    runs: list[object] = []

    async def value_of(value: Any) -> str:
        cache = TierCache(l2=tier, log=log)

        @cache.cached("f:{value}", ttl=60)
        async def f(value: Any) -> str:
            runs.append(value)
            return type(value).__name__

        async with cache:
            return await f(value)

    async def test() -> None:
        assert [await value_of(value) for value in (1, "1", "1", 1)] == ["int", "str", "str", "int"]
        assert runs == [1, "1", 1]

    run(test())


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_calls_that_share_a_key_share_neither_time_nor_failure(one: object, other: object) -> None:
    cache = TierCache()
    go_on = asyncio.Event()
    runs: list[object] = []

    @cache.cached("f:{value}", ttl=60)
    async def f(value: Any) -> str:
        runs.append(value)
        if type(value) is type(one):
            await go_on.wait()
            raise LookupError("of one")
        return "other"

    async def test() -> None:
        tasks = [asyncio.ensure_future(f(one)) for _ in range(2)]
        await turns()
        assert [await f(other) for _ in range(2)] == ["other"] * 2
        go_on.set()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(failure) for failure in failures] == ["of one"] * 2
        assert runs == [one, other]

    run(test())
