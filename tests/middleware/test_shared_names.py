"""Names that must be the same wherever they are made: tags here and there, and keys of one policy or another."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.keys.request import RequestKey, RequestKeys
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, http_scope, run

POLICY = Policy(ttl=60)


def test_a_tag_takes_the_last_of_several_values_as_the_handler_does() -> None:
    cache = TierCache()
    handler = Handler(lambda request: PlainTextResponse(request.query_params["q"]))
    app = app_of(handler, POLICY.but(tags=["s:{q}"]), cache=cache)

    async def test() -> None:
        assert (await ask(app, query=b"q=a&q=b")).body == b"b"
        await cache.invalidate("s:a")
        assert (await ask(app, query=b"q=a&q=b")).hit
        await cache.invalidate("s:b")
        assert not (await ask(app, query=b"q=a&q=b")).hit

    run(test())


@pytest.mark.parametrize("tag", ["a{b}", "{", "a}b{c", "{not a name}"])
def test_a_tag_written_out_with_braces_is_the_same_for_whoever_gives_and_whoever_purges(tag: str) -> None:
    cache = TierCache()

    def respond(_: Request) -> Response:
        cache.current.tag(tag)
        return PlainTextResponse("text")

    app = app_of(Handler(respond), POLICY, cache=cache)

    async def test() -> None:
        assert (await ask(app)).status == 200
        assert (await ask(app)).hit
        await cache.invalidate("another")
        assert (await ask(app)).hit
        assert (await cache.invalidate(tag)).durable
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize(
    "tag", ["author:" + "x" * 300, "a{b}", "*", "a\nb", ""], ids=["long", "braces", "star", "line", "empty"]
)
def test_no_tag_that_a_client_may_have_made_fails_its_request(tag: str) -> None:
    cache = TierCache()

    def respond(_: Request) -> Response:
        cache.current.tag(tag)
        return PlainTextResponse("text")

    app = app_of(Handler(respond), POLICY, cache=cache)

    async def test() -> None:
        assert (await ask(app)).status == 200
        assert (await ask(app)).hit

    run(test())


def test_a_stored_values_tag_with_braces_is_purged_as_it_was_written() -> None:
    cache = TierCache()

    async def test() -> None:
        await cache.set("key", 1, ttl=60, tags=["a{b}"])
        assert await cache.get("key") == 1
        await cache.invalidate("a{b}")
        assert await cache.get("key") is None

    run(test())


def test_what_clients_are_told_is_part_of_the_key() -> None:
    """It is stored with the response: a deployment that changes it must not go on answering with the old."""

    def key(downstream: str) -> RequestKey:
        made = RequestKeys(POLICY.but(downstream=downstream)).of(http_scope())
        assert isinstance(made, RequestKey)
        return made

    keys = [key(downstream) for downstream in ("keep", "remove", "no-cache", "no-store")]
    assert len({made.canonical for made in keys}) == len({made.text for made in keys}) == 4
    assert key("remove") == keys[1]
