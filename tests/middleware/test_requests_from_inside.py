"""Requests that begin inside another request of the same app: none waits for itself, none is mistaken for another."""

from __future__ import annotations

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run

POLICY = Policy(ttl=60)


@pytest.mark.parametrize("policy", [POLICY, Policy.http(ttl=60)])
def test_two_of_us_around_one_app_do_not_wait_for_each_other(policy: Policy) -> None:
    """As where somebody adds the middleware twice: the inner one meets the outer one's flight."""
    cache, handler = TierCache(), Handler()
    again = Middleware(TierCacheMiddleware, cache=cache, routes={"/": policy})
    app = app_of(handler, policy, cache=cache, below=[again])

    async def test() -> None:
        assert (await ask(app)).body == b"answer 1"
        assert (await ask(app)).hit

    run(test())


def test_a_handler_that_asks_its_own_app_for_the_same_thing_does_not_wait_for_itself() -> None:
    inner: list[bytes] = []

    async def respond(_: Request) -> PlainTextResponse:
        if handler.calls == 1:
            inner.append((await ask(app)).body)
        return PlainTextResponse("text")

    handler = Handler(respond)
    app = app_of(handler, POLICY)

    async def test() -> None:
        assert (await ask(app)).body == b"text"
        assert inner == [b"text"]

    run(test())


def test_what_a_handler_asks_of_its_own_app_hands_its_tags_on() -> None:
    """An answer made of another answer is as old as that one."""
    cache, data = TierCache(), ["old"]

    async def respond(request: Request) -> PlainTextResponse:
        if request.path_params["name"] == "part":
            return PlainTextResponse(data[0])
        return PlainTextResponse((await ask(app, "/part")).body)

    app = app_of(Handler(respond), Policy(ttl=60, tags=("item:{name}",)), cache=cache, path="/{name}")

    async def test() -> None:
        for text in (b"old", b"new"):
            assert (await ask(app, "/whole")).body == text
            data[0] = "new"
            await cache.invalidate("item:part")

    run(test())
