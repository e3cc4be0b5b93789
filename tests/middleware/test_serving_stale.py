"""Soft invalidation of responses: served once more, while one request behind the clients' backs makes them anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.engine.background import MAX_FOR_EACH
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, ask, run, turns, until
from tests.middleware.users import COOKIE, signed

TAGGED = Policy(ttl=60, tags=("t",))
STALE = "tiercache; hit; ttl=0; detail=L1-stale"

Softly = Callable[[TierCache], Awaitable[object]]
WAYS: dict[str, Softly] = {
    "tag": lambda cache: cache.invalidate("t", soft=True),
    "path": lambda cache: cache.invalidate_path("/", soft=True),
    "route": lambda cache: cache.invalidate_route("/", soft=True),
    "pattern": lambda cache: cache.invalidate_pattern("api:response:*", soft=True),
    "everything": lambda cache: cache.clear(soft=True),
}


async def idle(cache: TierCache) -> None:
    """Wait until nothing is being made anew."""
    await turns()
    await until(lambda: not cache.engine.fills.tasks())


@pytest.mark.parametrize("way", WAYS)
def test_it_is_served_once_more_while_one_request_makes_it_anew(way: str) -> None:
    async def test() -> None:
        texts = iter(("old", "new", "newer"))
        cache, gated = TierCache(clock=TickingClock()), Gated(lambda: next(texts))
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        assert (await ask(app)).body == b"old"
        gated.open.clear()
        await WAYS[way](cache)
        for _ in range(5):
            reply = await ask(app)
            assert (reply.body, reply.cache_status) == (b"old", STALE)
        await gated.entered(2)
        gated.open.set()
        await idle(cache)
        reply = await ask(app)
        assert (reply.body, reply.cache_status) == (b"new", "tiercache; hit; ttl=60; detail=L1")
        assert gated.handler.calls == 2
        assert cache.stats()["refreshes"] == {"stored": 1}

    run(test())


def test_by_event() -> None:
    async def test() -> None:
        cache, handler = TierCache(), Handler()
        cache.on("edited", tags=["t"], soft=True)
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.emit("edited")
        assert (await ask(app)).cache_status == STALE
        await idle(cache)
        assert (await ask(app)).body == b"answer 2"

    run(test())


@pytest.mark.parametrize("status", [500, 503])
def test_where_the_handler_fails_the_stale_one_stays(status: int) -> None:
    async def test() -> None:
        cache = TierCache()
        handler = Handler(lambda _: PlainTextResponse(f"{handler.calls}", 200 if handler.calls == 1 else status))
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        for calls in (2, 3):
            reply = await ask(app)
            assert (reply.body, reply.cache_status) == (b"1", STALE)
            await idle(cache)
            assert handler.calls == calls, "each request is a further attempt"
        assert cache.stats()["refreshes"] == {"failed": 2}

    run(test())


def test_where_the_handler_raises_the_stale_one_stays_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def respond(_: Request) -> Response:
        if handler.calls > 1:
            raise RuntimeError("no database")
        return PlainTextResponse("old")

    async def test() -> None:
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        assert (await ask(app)).body == b"old"
        await idle(cache)
        assert (await ask(app)).cache_status == STALE
        await idle(cache)

    cache, handler = TierCache(), Handler(respond)
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        run(test())
    assert "a handler failed for nobody" in caplog.text
    assert cache.stats()["refreshes"] == {"failed": 2}


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (Response(status_code=404), "status"),
        (PlainTextResponse("new", headers={"cache-control": "no-store"}), "no-store"),
        (PlainTextResponse("new", headers={"set-cookie": "a=b"}), "set-cookie"),
        (PlainTextResponse("new", headers={"cache-control": "private"}), "private"),
    ],
)
@pytest.mark.parametrize("l2", [False, True])
def test_what_may_not_be_stored_any_more_is_not_served_any_more(now: Response, why: str, l2: bool) -> None:
    async def test() -> None:
        cache = TierCache(l2=ScriptedTier() if l2 else None)
        handler = Handler(lambda _: PlainTextResponse("old") if handler.calls == 1 else now)
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        assert (await ask(app)).body == b"old"
        await idle(cache)
        reply = await ask(app)
        assert (reply.hit, reply.status, reply.body) == (False, now.status_code, now.body)
        assert cache.stats()["refreshes"] == {why: 1}

    run(test())


@pytest.mark.parametrize("order", ["hard, soft", "soft, hard"])
def test_what_was_invalidated_hard_is_never_served_whatever_is_said_softly(order: str) -> None:
    async def test() -> None:
        cache, handler = TierCache(), Handler()
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        for way in order.split(", "):
            await cache.invalidate("t", soft=way == "soft")
        reply = await ask(app)
        assert (reply.hit, reply.body) == (False, b"answer 2")

    run(test())


def test_a_hard_invalidation_while_it_is_made_anew_holds() -> None:
    async def test() -> None:
        data = ["old"]
        cache, gated = TierCache(), Gated(lambda: data[0])
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        await ask(app)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        await ask(app)
        await gated.entered(2)  # and has read "old"
        data[0] = "new"
        await cache.invalidate("t")
        waiting = Exchange(app)
        await turns()
        gated.open.set()
        assert (await waiting.reply()).body == b"new"
        assert (await ask(app)).body == b"new"

    run(test())


def test_a_soft_invalidation_while_it_is_made_anew_makes_it_stale_again() -> None:
    async def test() -> None:
        cache, gated = TierCache(), Gated()
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        await ask(app)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        await ask(app)
        await gated.entered(2)
        await cache.invalidate("t", soft=True)
        gated.open.set()
        await idle(cache)
        assert (await ask(app)).cache_status == STALE
        await idle(cache)
        assert (await ask(app)).cache_status.endswith("detail=L1")
        assert gated.handler.calls == 3

    run(test())


# ---- more than one tier, more than one worker ----


def test_what_another_worker_has_made_anew_is_used() -> None:
    async def test() -> None:
        tier, log, clock = ScriptedTier(), ScriptedLog(), TickingClock()
        caches = [TierCache(l2=tier, log=log, clock=clock) for _ in range(2)]
        handlers = [Handler(lambda _: PlainTextResponse(f"{sum(handler.calls for handler in handlers)}"))] * 1
        handlers.append(Handler(handlers[0]._respond))
        first, second = (app_of(handler, TAGGED, cache=each) for handler, each in zip(handlers, caches, strict=True))
        for cache in caches:
            await cache.start()
        assert (await ask(first)).body == b"1"
        await until(lambda: bool(tier.data))
        assert (await ask(second)).cache_status.endswith("detail=L2")
        await caches[0].invalidate("t", soft=True)
        await turns()
        assert (await ask(first)).cache_status == STALE
        await idle(caches[0])
        await until(lambda: tier.calls.count("set_many") == 2)
        reply = await ask(second)
        assert (reply.body, reply.cache_status.split("detail=")[1]) == (b"2", "L2")
        assert [handler.calls for handler in handlers] == [2, 0]
        for cache in caches:
            await cache.aclose()

    run(test())


def test_a_stale_one_from_the_lower_tier_says_so_and_is_made_anew() -> None:
    async def test() -> None:
        tier, log, handler = ScriptedTier(), ScriptedLog(), Handler()
        maker, late = TierCache(l2=tier, log=log), TierCache(l2=tier, log=log)
        await ask(app_of(handler, TAGGED, cache=maker))
        await until(lambda: bool(tier.data))
        await maker.invalidate("t", soft=True)
        app = app_of(handler, TAGGED, cache=late)
        assert (await ask(app)).cache_status == "tiercache; hit; ttl=0; detail=L2-stale"
        await idle(late)
        assert (await ask(app)).body == b"answer 2"
        for cache in (maker, late):
            await cache.aclose()

    run(test())


# ---- who may not set off a request for nobody ----


@pytest.mark.parametrize("header", ["cookie", "authorization"])
def test_a_credential_that_is_not_in_the_key_is_used_for_its_own_request_only(header: str) -> None:
    async def test() -> None:
        cache = TierCache()
        handler = Handler(lambda _: PlainTextResponse(f"{handler.calls}", headers={"cache-control": "s-maxage=60"}))
        app = app_of(handler, Policy.http(tags=("t",)), cache=cache)
        credential = [(header.encode(), b"secret")]
        await ask(app)
        assert (await ask(app, headers=credential)).body == b"1"
        await cache.invalidate("t", soft=True)
        reply = await ask(app, headers=credential)
        assert (reply.hit, reply.body) == (False, b"2")
        assert cache.stats()["refreshes"] == {}
        assert (await ask(app)).body == b"2"

    run(test())


def test_with_dependencies_on_every_request_the_request_itself_makes_it_anew() -> None:
    cache, calls, checked = TierCache(), list[int](), list[str]()

    def check(x_api_key: Annotated[str, Header()]) -> None:
        checked.append(x_api_key)

    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.get("/", dependencies=[Depends(check)])
    @cache.response(ttl=60, tags=["t"], dependencies="always")
    async def endpoint() -> int:
        calls.append(1)
        return len(calls)

    async def test() -> None:
        for key in ("a", "b"):
            assert (await ask(app, headers=[(b"x-api-key", key.encode())])).body == b"1"
        await cache.invalidate("t", soft=True)
        assert (await ask(app, headers=[(b"x-api-key", b"c")])).body == b"2"
        await turns()
        assert (checked, len(calls)) == (["a", "b", "c"], 2)

    run(test())


def test_head_is_answered_with_the_stale_one_and_leaves_the_rest_to_a_get() -> None:
    async def test() -> None:
        cache, handler = TierCache(), Handler()
        app = app_of(handler, TAGGED, cache=cache, methods=["GET", "HEAD"])
        await ask(app)
        await cache.invalidate("t", soft=True)
        reply = await ask(app, method="HEAD")
        assert (reply.status, reply.body, reply.cache_status) == (200, b"", STALE)
        await turns()
        assert handler.calls == 1
        await ask(app)
        await idle(cache)
        assert (await ask(app, method="HEAD")).cache_status.endswith("detail=L1")

    run(test())


def test_a_client_that_wants_nothing_stored_does_not_make_others_lose_the_stale_one() -> None:
    async def test() -> None:
        cache = TierCache()
        handler = Handler(lambda _: PlainTextResponse(f"{handler.calls}", headers={"cache-control": "max-age=60"}))
        app = app_of(handler, Policy.http(tags=("t",)), cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        await ask(app, headers=[(b"cache-control", b"no-store")])
        await idle(cache)
        assert (await ask(app)).body == b"1"

    run(test())


# ---- what is made anew ----


def test_each_variant_is_made_anew_for_itself() -> None:
    async def test() -> None:
        cache = TierCache()

        def respond(request: Request) -> Response:
            language = request.headers["accept-language"]
            return PlainTextResponse(f"{language} {handler.calls}", headers={"vary": "accept-language"})

        handler = Handler(respond)
        app = app_of(handler, TAGGED, cache=cache)

        async def asked(language: str) -> tuple[bytes, str]:
            reply = await ask(app, headers=[(b"accept-language", language.encode())])
            await idle(cache)
            return reply.body, reply.cache_status.split("detail=")[-1]

        await asked("de")
        await asked("fr")
        await cache.invalidate("t", soft=True)
        assert await asked("de") == (b"de 1", "L1-stale")
        assert await asked("de") == (b"de 3", "L1")
        assert await asked("fr") == (b"fr 2", "L1-stale")
        assert await asked("fr") == (b"fr 4", "L1")
        assert await asked("de") == (b"de 3", "L1")

    run(test())


def test_a_keyed_body_is_given_to_the_handler_again() -> None:
    async def test() -> None:
        cache, bodies = TierCache(), list[bytes]()

        async def respond(request: Request) -> Response:
            bodies.append(await request.body())
            return PlainTextResponse(f"{len(bodies)}")

        app = app_of(Handler(respond), Policy(ttl=60, body=True, tags=("t",)), cache=cache)
        headers = [(b"content-length", b"5")]
        await ask(app, body=b"query", headers=headers)
        await cache.invalidate("t", soft=True)
        assert (await ask(app, body=b"query", headers=headers)).body == b"1"
        await idle(cache)
        assert (await ask(app, body=b"query", headers=headers)).body == b"2"
        assert bodies == [b"query", b"query"]

    run(test())


def test_a_condition_is_the_clients_own_and_not_the_handlers() -> None:
    async def test() -> None:
        cache = TierCache()
        handler = Handler(lambda _: PlainTextResponse("same", headers={"etag": '"1"'}))
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        reply = await ask(app, headers=[(b"if-none-match", b'"1"')])
        assert (reply.status, reply.cache_status) == (304, STALE)
        await idle(cache)
        assert "if-none-match" not in handler.seen.headers
        assert (await ask(app)).cache_status.endswith("detail=L1")

    run(test())


def test_the_handler_finds_the_tags_that_it_gives_and_they_count() -> None:
    async def test() -> None:
        cache = TierCache()

        def respond(_: Request) -> Response:
            cache.current.tag(f"author:{handler.calls}")
            return PlainTextResponse(f"{handler.calls}")

        handler = Handler(respond)
        app = app_of(handler, TAGGED, cache=cache)
        await ask(app)
        await cache.invalidate("author:1", soft=True)
        assert (await ask(app)).cache_status == STALE
        await idle(cache)
        await cache.invalidate("author:1")
        assert (await ask(app)).body == b"2"
        await cache.invalidate("author:2")
        assert (await ask(app)).body == b"3"

    run(test())


# ---- whoever is around ----


class Above:
    """Middleware above ours: keeps what it sees in scope and messages, and looks at them when the answer leaves."""

    def __init__(self, app: ASGIApp, seen: list[dict[str, Any]]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def slowly(message: Message) -> None:
            await turns(5)  # what goes on behind is further by now
            messages.append(message)
            await send(message)

        await self._app(scope, receive, slowly)
        await turns(20)
        self._seen.append({"state": dict(scope.get("state", {})), "keys": set(scope), "messages": messages})


def test_middleware_above_notices_nothing_of_it() -> None:
    async def test() -> None:
        def respond(request: Request) -> Response:
            request.state.handler = handler.calls
            request.scope["extra"] = handler.calls
            return PlainTextResponse(f"{handler.calls}")

        cache, handler, seen = TierCache(), Handler(respond), list[dict[str, Any]]()
        app = app_of(handler, TAGGED.but(strict=False), cache=cache, above=[Middleware(Above, seen=seen)])
        await ask(app)
        await ask(app)
        await cache.invalidate("t", soft=True)
        await ask(app)
        await idle(cache)
        assert handler.calls == 2
        _, hit, stale = seen
        assert (stale["state"], stale["keys"]) == (hit["state"], hit["keys"])
        assert [message["type"] for message in stale["messages"]] == [message["type"] for message in hit["messages"]]

    run(test())


def test_a_session_that_is_begun_behind_a_clients_back_is_not_its_own() -> None:
    async def test() -> None:
        def respond(request: Request) -> Response:
            if handler.calls > 1:
                request.session["visits"] = handler.calls
            return PlainTextResponse(f"{handler.calls}")

        cache, handler, seen = TierCache(), Handler(respond), list[dict[str, Any]]()
        above = [Middleware(SessionMiddleware, secret_key="s"), Middleware(Above, seen=seen)]
        app = app_of(handler, TAGGED, cache=cache, above=above)
        await ask(app)
        await cache.invalidate("t", soft=True)
        reply = await ask(app)
        assert reply.cache_status == STALE
        assert not [value for name, value in reply.messages[0]["headers"] if name == b"set-cookie"]
        await idle(cache)
        assert cache.stats()["refreshes"] == {"session": 1}

    run(test())


def test_a_session_in_the_scope_reaches_no_handler_behind_its_back() -> None:
    """A response for everyone, asked for by somebody with a session: in HTTP mode that is a credential."""

    async def test() -> None:
        cache = TierCache()
        public = {"cache-control": "public, max-age=9"}
        handler = Handler(lambda _: PlainTextResponse(f"{handler.calls}", headers=public))
        above = [Middleware(SessionMiddleware, secret_key="s")]
        app = app_of(handler, Policy.http(tags=("t",)), cache=cache, above=above)
        await ask(app)
        await cache.invalidate("t", soft=True)
        cookie = [(b"cookie", f"{COOKIE}={signed({'user': 1})}".encode())]
        assert (await ask(app, headers=cookie)).body == b"2"
        assert cache.stats()["refreshes"] == {}

    run(test())


def test_a_client_that_leaves_does_not_end_it() -> None:
    async def test() -> None:
        cache, gated = TierCache(), Gated()
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        await ask(app)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        exchange = Exchange(app)
        await exchange.until(1)
        await exchange.cancel()
        await gated.entered(2)
        gated.open.set()
        await idle(cache)
        assert (await ask(app)).cache_status.endswith("detail=L1")

    run(test())


def test_only_so_many_of_a_route_are_made_anew_at_the_same_time_and_the_rest_after_them() -> None:
    async def test() -> None:
        cache, gated = TierCache(), Gated()
        app = app_of(gated.handler, Policy(ttl=60, tags=("t",), query=["n"]), cache=cache)
        gated.open.set()
        queries = [b"n=%d" % number for number in range(MAX_FOR_EACH + 5)]
        for query in queries:
            await ask(app, query=query)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        for query in queries:
            assert (await ask(app, query=query)).cache_status == STALE
        await turns()
        assert gated.handler.calls == len(queries) + MAX_FOR_EACH
        gated.open.set()
        await until(lambda: gated.handler.calls == 2 * len(queries))
        await idle(cache)
        assert gated.handler.calls == 2 * len(queries)
        assert cache.stats()["refreshes"] == {"stored": len(queries)}

    run(test())


def test_closing_waits_for_it() -> None:
    async def test() -> None:
        tier, gated = ScriptedTier(), Gated()
        cache = TierCache(l2=tier)
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        await ask(app)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        await ask(app)
        await gated.entered(2)
        closing = asyncio.create_task(cache.aclose())
        await turns()
        assert not closing.done()
        gated.open.set()
        await closing
        assert tier.calls.count("set_many") == 2, "and for what it has stored"
        assert cache.stats()["refreshes"] == {"stored": 1}

    run(test())


def test_a_request_that_has_to_wait_for_a_fill_takes_that_which_nobody_waits_for() -> None:
    async def test() -> None:
        cache, gated = TierCache(), Gated(headers={"cache-control": "s-maxage=60"})
        app = app_of(gated.handler, Policy.http(tags=("t",)), cache=cache)
        gated.open.set()
        await ask(app)
        gated.open.clear()
        await cache.invalidate("t", soft=True)
        await ask(app)
        await gated.entered(2)
        waiting = Exchange(app, None)
        follower = Exchange(app, {**waiting._scope, "headers": [(b"host", b"example.org"), (b"cookie", b"a=b")]})
        await turns()
        gated.open.set()
        assert (await follower.reply()).cache_status.endswith("detail=flight")
        await waiting.reply()
        assert gated.handler.calls == 2

    run(test())


@pytest.mark.parametrize("media_type", ["text/event-stream", "text/plain"])
def test_a_stream_that_nobody_will_be_given_is_ended(media_type: str) -> None:
    """An endless one would otherwise keep the event loop to itself: no client slows it down."""
    sent = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1
            yield b"a line\n" * 100

    async def test() -> None:
        cache = TierCache()
        handler = Handler(
            lambda _: (
                PlainTextResponse("old") if handler.calls == 1 else StreamingResponse(stream(), media_type=media_type)
            )
        )
        app = app_of(handler, TAGGED.but(max_body=10_000), cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        assert (await ask(app)).cache_status == STALE
        await idle(cache)
        assert sent < 100
        assert "failed" not in cache.stats()["refreshes"]
        exchange = Exchange(app)
        await exchange.until(1)
        assert "; hit" not in str(exchange.messages[0]["headers"]), "the stale one is not served any more"
        await exchange.cancel()

    run(test())


def test_an_error_that_the_policy_stores_is_no_failure() -> None:
    async def test() -> None:
        cache = TierCache()
        handler = Handler(lambda _: PlainTextResponse(f"{handler.calls}", 200 if handler.calls == 1 else 503))
        app = app_of(handler, TAGGED.but(status_ttl={503: 5}), cache=cache)
        await ask(app)
        await cache.invalidate("t", soft=True)
        await ask(app)
        await idle(cache)
        assert (await ask(app)).status == 503
        assert cache.stats()["refreshes"] == {"stored": 1}

    run(test())


def test_an_older_stale_one_in_the_lower_tier_does_not_replace_the_one_at_hand() -> None:
    async def test() -> None:
        clock, tier = TickingClock(), ScriptedTier()
        cache, gated = TierCache(l2=tier, clock=clock), Gated(lambda: f"{gated.handler.calls}")
        app = app_of(gated.handler, TAGGED, cache=cache)
        gated.open.set()
        await ask(app)
        await until(lambda: bool(tier.data))
        first = dict(tier.data)
        clock.tick(1)
        await cache.invalidate("t", soft=True)
        await ask(app)
        await idle(cache)
        await until(lambda: tier.data != first)
        tier.data.update(first)  # as if the write had been dropped
        clock.tick(1)
        await cache.invalidate("t", soft=True)
        gated.open.clear()
        for _ in range(3):
            assert (await ask(app)).body == b"2"
        gated.open.set()
        await idle(cache)
        await cache.aclose()

    run(test())
