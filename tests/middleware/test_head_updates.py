"""What the handler's answer to HEAD says of the stored response to GET (RFC 9111, section 4.3.5)."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from asgi_tiercache import Policy
from tests.engine.doubles import alone
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until
from tests.middleware.origins import Origin

HTTP = Policy.http(tags=("t",))
NO_CACHE = [(b"cache-control", b"no-cache")]
COOKIE = [(b"cookie", b"a=b")]


def test_head_makes_fresh_what_it_agrees_with() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        assert (await ask(app, method="HEAD")).status == 200
        reply = await ask(app)
        assert (reply.body, reply.hit) == (b"version 1", True)
        assert origin.handler.calls == 2

    run(test())


def test_head_makes_stale_what_it_contradicts() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        origin.version = 2
        await ask(app, method="HEAD", headers=NO_CACHE)
        assert (await ask(app)).body == b"version 2"

    run(test())


def test_what_is_of_no_use_past_its_freshness_is_dropped_by_a_head_that_contradicts_it() -> None:
    async def test() -> None:
        cache, clock = alone()
        lines = {"cache-control": "max-age=100, must-revalidate"}
        handler = Handler(lambda _: PlainTextResponse("x" * handler.calls, headers=lines))
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(1)
        await ask(app, method="HEAD", headers=NO_CACHE)
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize("agrees", [True, False])
def test_a_head_that_is_overtaken_by_a_fill_changes_nothing(agrees: bool) -> None:
    """It speaks of what was stored when it began, and that is no more."""

    async def test() -> None:
        cache, clock = alone()
        held = asyncio.Event()

        async def respond(request: Request) -> Response:
            if request.method == "HEAD":
                await held.wait()
                return _response("1" if agrees else "0")
            return _response(str(handler.calls))

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        head = Exchange(app, http_scope(method="HEAD"))
        await until(lambda: handler.calls == 2)
        assert (await ask(app)).body == b"3"
        held.set()
        await head.reply()
        reply = await ask(app)
        assert (reply.body, reply.hit) == (b"3", True)

    run(test())


def _response(text: str) -> Response:
    return PlainTextResponse(text, headers={"cache-control": "max-age=10", "etag": f'"{text}"'})


def test_a_head_does_not_bring_back_what_was_dropped_meanwhile() -> None:
    async def test() -> None:
        cache, clock = alone()
        held = asyncio.Event()

        async def respond(request: Request) -> Response:
            if request.method == "HEAD":
                await held.wait()
            gone = handler.calls == 3
            return PlainTextResponse("gone", 404) if gone else _response("1")

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        head = Exchange(app, http_scope(method="HEAD"))
        await until(lambda: handler.calls == 2)
        assert (await ask(app)).status == 404
        held.set()
        await head.reply()
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_head_revives_nothing_that_was_invalidated(soft: bool, when: str) -> None:
    """Without validators, whatever is as long would agree."""

    async def test() -> None:
        cache, clock = alone()
        origin = Origin(etag=False)
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        if when == "before":
            await cache.invalidate("t", soft=soft)
        origin.open.clear()
        head = Exchange(app, http_scope(method="HEAD"))
        await until(lambda: origin.handler.calls == 2)
        if when == "during":
            await cache.invalidate("t", soft=soft)
        origin.open.set()
        await head.reply()
        origin.version = 2
        reply = await ask(app)
        await turns()
        if not soft:
            assert reply.body == b"version 2"
        assert (await ask(app)).body == b"version 2"

    run(test())


def test_a_200_to_head_makes_no_stored_error_fresh() -> None:
    async def test() -> None:
        cache, clock = alone()
        lines = {"cache-control": "max-age=10"}
        handler = Handler(lambda _: PlainTextResponse("text", 404 if handler.calls == 1 else 200, headers=lines))
        app = app_of(handler, HTTP, cache=cache)
        assert (await ask(app)).status == 404
        clock.tick(11)
        await ask(app, method="HEAD")
        assert (await ask(app)).status == 200

    run(test())


@pytest.mark.parametrize("cache_control", ["no-store", "private"])
def test_what_head_says_may_not_be_stored_is_dropped(cache_control: str) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Origin("max-age=100")
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        origin.cache_control = cache_control
        await ask(app, method="HEAD", headers=NO_CACHE)
        assert not (await ask(app)).hit

    run(test())


def test_what_a_user_with_a_credential_learns_by_head_is_not_for_others_unless_it_is_public() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin("max-age=10, public", headers={"x-of": "all"})
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.cache_control, origin.headers = "max-age=10", {"x-of": "one"}
        await ask(app, method="HEAD", headers=COOKIE)
        origin.cache_control, origin.headers = "max-age=10, public", {"x-of": "all"}
        reply = await ask(app)
        assert b"one" not in dict(reply.messages[0]["headers"]).values()
        clock.tick(11)
        await ask(app, method="HEAD", headers=COOKIE)
        assert (await ask(app)).hit

    run(test())


def test_head_of_a_variant_updates_that_one_alone() -> None:
    async def test() -> None:
        cache, clock = alone()
        english, german = ([(b"accept-language", language)] for language in (b"en", b"de"))

        def respond(request: Request) -> Response:
            text = request.headers["accept-language"]
            lines = {"cache-control": "max-age=10", "etag": f'"{text}"', "vary": "accept-language"}
            return PlainTextResponse(text, headers=lines)

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache)
        await ask(app, headers=english)
        await ask(app, headers=german)
        clock.tick(11)
        await ask(app, method="HEAD", headers=german)
        reply = await ask(app, headers=german)
        assert (reply.body, reply.hit) == (b"de", True)
        assert not (await ask(app, headers=english)).hit

    run(test())


def test_a_conditional_head_that_the_handler_answers_with_304_changes_nothing() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        assert (await ask(app, method="HEAD", headers=[(b"if-none-match", b'"v1"')])).status == 304
        origin.version = 2
        assert (await ask(app)).body == b"version 2"

    run(test())
