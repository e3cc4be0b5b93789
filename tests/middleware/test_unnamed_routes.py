"""Routes that nobody named go on as they would without a cache."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_tiercache import ConfigError, Policy, Region, TierCache, TierCacheMiddleware
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, until


def test_a_handler_that_waits_for_its_client_to_leave_hears_of_it() -> None:
    heard: list[str] = []

    async def poll(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append((await receive())["type"])

    async def test() -> None:
        exchange = Exchange(TierCacheMiddleware(poll, cache=TierCache()), http_scope("/"))
        await asyncio.sleep(0)
        exchange.disconnect()
        await until(exchange.task.done)
        assert heard == ["http.disconnect"]

    run(test())


def test_a_handler_that_looks_whether_its_client_has_left_sees_it() -> None:
    async def respond(request: Request) -> PlainTextResponse:
        for _ in range(1000):
            if await request.is_disconnected():
                return PlainTextResponse("gone")
            await asyncio.sleep(0)
        raise AssertionError("it never saw that")

    handler = Handler(respond)

    async def test() -> None:
        exchange = Exchange(app_of(handler, Policy.http()), http_scope("/"))
        await until(lambda: handler.calls == 1)
        exchange.disconnect()
        await until(exchange.task.done)
        assert exchange.task.exception() is None

    run(test())


def test_as_long_as_others_wait_the_handler_does_not_hear_of_it() -> None:
    go_on = asyncio.Event()

    async def respond(request: Request) -> PlainTextResponse:
        await go_on.wait()
        return PlainTextResponse(str(await request.is_disconnected()), headers={"cache-control": "max-age=60"})

    handler = Handler(respond)
    app = app_of(handler, Policy.http())

    async def test() -> None:
        leader = Exchange(app, http_scope("/"))
        await until(lambda: handler.calls == 1)
        follower = asyncio.create_task(ask(app))
        for _ in range(10):
            await asyncio.sleep(0)
        leader.disconnect()
        go_on.set()
        assert (await follower).body == b"False"
        assert handler.calls == 1

    run(test())


def test_two_policies_cannot_draw_the_bounds_of_one_region() -> None:
    small, large = (Policy(ttl=1, region=Region(name="same", max_entries=size)) for size in (1, 2))
    with pytest.raises(ConfigError, match="region"):
        TierCacheMiddleware(Handler(), cache=TierCache(), routes={"/a": small, "/b": large})  # type: ignore[arg-type]


@pytest.mark.parametrize("template", ["a:{b", "a:}b", "a:{}", "a:{b.c}", "a:{0}"])
def test_a_malformed_tag_is_refused_when_it_is_written(template: str) -> None:
    with pytest.raises(ConfigError, match="tags"):
        Policy(ttl=1, tags=[template])
