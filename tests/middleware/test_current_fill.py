"""`cache.current` in handlers: what may be said of the response while it is being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext

import pytest
from fastapi import FastAPI, Response
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from asgi_tiercache import ConfigError, NoFillError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock, assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import ask, run

Say = Callable[[TierCache], None]


def _fastapi(cache: TierCache, say: Say, *, sync: bool, policy: Policy | None = None) -> TestClient:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/": policy or Policy(ttl=60)})

    async def async_read() -> str:
        say(cache)
        return "text"

    def sync_read() -> str:
        say(cache)
        return "text"

    app.get("/")(sync_read if sync else async_read)
    return TestClient(app)


@pytest.mark.parametrize("sync", [True, False])
def test_a_handler_sets_its_own_ttl(sync: bool) -> None:
    clock = TickingClock()
    client = _fastapi(TierCache(clock=clock), lambda cache: cache.current.set_ttl(5), sync=sync)
    client.get("/")
    clock.tick(4)
    assert_hit(client.get("/"))
    clock.tick(2)
    assert_miss(client.get("/"))


@pytest.mark.parametrize("sync", [True, False])
def test_a_handler_sets_a_longer_ttl(sync: bool) -> None:
    clock = TickingClock()
    client = _fastapi(TierCache(clock=clock), lambda cache: cache.current.set_ttl(500), sync=sync)
    client.get("/")
    clock.tick(400)
    assert_hit(client.get("/"))


@pytest.mark.parametrize("sync", [True, False])
def test_a_ttl_of_zero_is_not_stored(sync: bool) -> None:
    client = _fastapi(TierCache(), lambda cache: cache.current.set_ttl(0), sync=sync)
    assert_miss(client.get("/"), stored=False)
    assert_miss(client.get("/"))


@pytest.mark.parametrize("sync", [True, False])
def test_a_handler_refuses_to_be_stored(sync: bool) -> None:
    client = _fastapi(TierCache(), lambda cache: cache.current.no_store(), sync=sync)
    assert_miss(client.get("/"), stored=False)
    assert_miss(client.get("/"))


@pytest.mark.parametrize("sync", [True, False])
def test_a_handler_tags_what_it_makes(sync: bool) -> None:
    cache = TierCache()
    client = _fastapi(cache, lambda cache: cache.current.tag("author:{id}", id=7), sync=sync)
    client.get("/")
    asyncio.run(_invalidate(cache, "author:8"))
    assert_hit(client.get("/"))
    asyncio.run(_invalidate(cache, "author:7"))
    assert_miss(client.get("/"))


async def _invalidate(cache: TierCache, tag: str) -> None:
    receipt = await cache.invalidate(tag)
    assert receipt.durable


def test_a_refusal_after_the_response_began_counts() -> None:
    cache = TierCache()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"te"
        cache.current.no_store()
        yield b"xt"

    client = client_of(Handler(lambda _: StreamingResponse(chunks())), Policy(ttl=60), cache=cache)
    assert [client.get("/").text, client.get("/").text] == ["text", "text"]
    assert_miss(client.get("/"))


def test_a_tag_given_after_the_response_began_counts() -> None:
    cache = TierCache()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"te"
        cache.current.tag("late")
        yield b"xt"

    client = client_of(Handler(lambda _: StreamingResponse(chunks())), Policy(ttl=60), cache=cache)
    client.get("/")
    assert_hit(client.get("/"))
    asyncio.run(_invalidate(cache, "late"))
    assert_miss(client.get("/"))


def test_a_background_task_may_still_speak() -> None:
    cache = TierCache()
    said: list[object] = []

    def speak() -> None:
        cache.current.tag("too:late")
        said.append(cache.current)

    handler = Handler(lambda _: PlainTextResponse("text", background=BackgroundTask(speak)))
    client = client_of(handler, Policy(ttl=60), cache=cache)
    client.get("/")
    assert len(said) == 1
    assert_hit(client.get("/"))


def test_outside_a_handler_it_is_an_error() -> None:
    with pytest.raises(NoFillError):
        _ = TierCache().current


def test_a_wrong_ttl_is_an_error_in_the_handler() -> None:
    client = _fastapi(TierCache(), lambda cache: cache.current.set_ttl(-1), sync=False)
    with pytest.raises(ConfigError, match="set_ttl"):
        client.get("/")


def _speak(cache: TierCache) -> Callable[[Request], Response]:
    def respond(request: Request) -> PlainTextResponse:
        cache.current.tag("a:{b}", b=1)
        cache.current.set_ttl(5)
        cache.current.no_store()
        return PlainTextResponse(request.method)

    return respond


@pytest.mark.parametrize("policy", [None, Policy(ttl=60), Policy.http()])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_where_a_request_is_not_cached_it_does_nothing(policy: Policy | None, method: str) -> None:
    cache = TierCache()
    app = app_of(Handler(_speak(cache)), policy, cache=cache, methods=["GET", "POST"])
    client = TestClient(app, headers={"cookie": "a=1"})
    for _ in range(6):
        response = client.request(method, "/")
        assert response.status_code == 200
        assert "hit" not in response.headers.get("cache-status", "")


def test_what_one_passing_request_refuses_is_not_refused_for_others() -> None:
    cache = TierCache()
    handler = Handler()
    app = app_of(handler, Policy(ttl=60), cache=cache)
    other = app_of(Handler(_speak(cache)), None, cache=cache)
    TestClient(other).get("/")
    TestClient(app).get("/")
    assert_hit(TestClient(app).get("/"))


def test_a_response_with_too_many_tags_is_not_stored() -> None:
    def tag_much(cache: TierCache) -> None:
        for number in range(200):
            cache.current.tag(f"tag:{number}")

    client = _fastapi(TierCache(), tag_much, sync=False)
    client.get("/")
    assert_miss(client.get("/"))


def test_a_response_with_too_many_tags_does_not_claim_to_be_stored() -> None:
    def tag_much(cache: TierCache) -> None:
        for number in range(200):
            cache.current.tag(f"tag:{number}")

    client = _fastapi(TierCache(), tag_much, sync=False)
    assert_miss(client.get("/"), stored=False)


def test_on_a_route_that_nobody_named_a_ttl_set_by_the_handler_counts() -> None:
    cache = TierCache()
    client = _fastapi(cache, lambda cache: cache.current.set_ttl(5), sync=False, policy=Policy.http())
    client.get("/")
    assert_hit(client.get("/"))


def test_a_ttl_set_by_the_handler_counts_after_answers_that_had_none() -> None:
    """As for unknown items, whose 404 is not stored."""
    cache = TierCache()

    def respond(request: Request) -> PlainTextResponse:
        if "known" not in request.path_params["item"]:
            return PlainTextResponse("unknown", status_code=404)
        cache.current.set_ttl(5)
        return PlainTextResponse("known")

    client = client_of(Handler(respond), Policy.http(), cache=cache, path="/{item}")
    for number in range(10):
        client.get(f"/{number}")
    for _ in range(3):
        last = client.get("/known")
    assert_hit(last)


def test_a_ttl_given_by_an_http_policy_counts_after_answers_that_were_not_stored() -> None:
    handler = Handler(lambda request: PlainTextResponse("", status_code=int(request.path_params["status"])))
    client = client_of(handler, Policy.http(ttl=60), path="/{status}")
    for _ in range(10):
        client.get("/404")
    for _ in range(3):
        last = client.get("/200")
    assert_hit(last)


def test_values_read_through_the_cache_hand_their_tags_on() -> None:
    cache = TierCache()

    @cache.cached("profile:{name}", ttl=60, tags=("user:{name}",))
    async def profile(name: str) -> str:
        return name

    async def respond(_: Request) -> PlainTextResponse:
        return PlainTextResponse(await profile("ann"))

    client = client_of(Handler(respond), Policy(ttl=60), cache=cache)
    client.get("/")
    assert_hit(client.get("/"))
    asyncio.run(_invalidate(cache, "user:ann"))
    assert_miss(client.get("/"))


@pytest.mark.parametrize("tag", ["item:7", "page:2"])
def test_tags_of_the_policy_come_from_path_and_query(tag: str) -> None:
    cache = TierCache()
    policy = Policy(ttl=60, tags=("item:{item}", "page:{page}"))
    client = client_of(Handler(), policy, cache=cache, path="/items/{item}")
    client.get("/items/7?page=2")
    asyncio.run(_invalidate(cache, "item:8"))
    assert_hit(client.get("/items/7?page=2"))
    asyncio.run(_invalidate(cache, tag))
    assert_miss(client.get("/items/7?page=2"))


def test_a_head_that_freshens_leaves_the_tags_of_what_is_stored() -> None:
    async def test() -> None:
        cache = TierCache(clock=TickingClock())

        def handler(request: Request) -> PlainTextResponse:
            if request.method == "GET":
                cache.current.tag("t")
            return PlainTextResponse("content", headers={"cache-control": "max-age=60"})

        app = app_of(Handler(handler), Policy.rfc9111(), cache=cache, methods=["GET", "HEAD"])
        await ask(app)
        await ask(app, method="HEAD", headers=[(b"cache-control", b"no-cache")])
        assert (await ask(app)).hit
        await cache.invalidate("t")
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize(("status", "breaks"), [(404, False), (200, True)])
def test_a_head_that_fails_or_breaks_off_leaves_what_is_stored(status: int, breaks: bool) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"con"
        if breaks:
            raise KeyError("broken")
        yield b"tent"

    async def test() -> None:
        def handler(request: Request) -> PlainTextResponse | StreamingResponse:
            fresh = {"cache-control": "max-age=60"}
            if request.method == "GET":
                return PlainTextResponse("content", headers={**fresh, "etag": '"a"'})
            return StreamingResponse(content(), status, headers={**fresh, "etag": '"b"'})

        app = app_of(Handler(handler), Policy.rfc9111(), cache=TierCache(), methods=["GET", "HEAD"])
        await ask(app)
        with pytest.raises(KeyError) if breaks else nullcontext():
            reply = await ask(app, method="HEAD", headers=[(b"cache-control", b"no-cache")])
            assert reply.status == status
        assert (await ask(app)).hit

    run(test())
