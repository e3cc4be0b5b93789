"""`dependencies="always"`: a route's dependencies run on every request, the handler only on a miss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.asgi import Exchange, http_scope, run, turns, until

ALWAYS = Policy(ttl=60, dependencies="always")
TOKEN = [(b"authorization", b"Bearer good")]


class Guard:
    """A dependency that lets one token in, and counts."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def __call__(self, request: Request) -> None:
        token = request.headers.get("authorization")
        self.asked.append(token)
        if token != "Bearer good":
            raise HTTPException(401)


def _app(policy: Policy = ALWAYS) -> tuple[FastAPI, Guard, list[str]]:
    app, guard, calls = FastAPI(), Guard(), list[str]()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/items/{item}": policy})

    @app.get("/items/{item}", dependencies=[Depends(guard)])
    async def read(item: str) -> str:
        calls.append(item)
        return item

    return app, guard, calls


def test_dependencies_run_on_hits_and_the_handler_does_not() -> None:
    app, guard, calls = _app()
    client = TestClient(app, headers={"authorization": "Bearer good"})
    assert_miss(client.get("/items/a"), stored=True)
    for _ in range(3):
        response = client.get("/items/a")
        assert response.json() == "a"
        assert_hit(response)
    assert (len(guard.asked), calls) == (4, ["a"])


def test_a_dependency_refuses_what_would_have_been_a_hit() -> None:
    app, guard, calls = _app()
    client = TestClient(app)
    client.get("/items/a", headers={"authorization": "Bearer good"})
    response = client.get("/items/a", headers={"authorization": "Bearer bad"})
    assert response.status_code == 401
    assert "a" not in response.text.split('"')
    assert (guard.asked, calls) == (["Bearer good", "Bearer bad"], ["a"])


def test_a_dependency_that_refuses_leaves_the_entry_alone() -> None:
    app, _, calls = _app()
    client = TestClient(app)
    for token in ("good", "bad"):
        client.get("/items/a", headers={"authorization": f"Bearer {token}"})
    assert_hit(client.get("/items/a", headers={"authorization": "Bearer good"}))
    assert calls == ["a"]


def test_the_refusal_of_a_first_request_is_not_what_others_get() -> None:
    app, _, calls = _app()
    client = TestClient(app)
    assert client.get("/items/a").status_code == 401
    assert client.get("/items/a", headers={"authorization": "Bearer good"}).json() == "a"
    assert calls == ["a"]


def test_without_always_dependencies_do_not_run_on_hits() -> None:
    app, guard, _ = _app(Policy(ttl=60, vary_on=("authorization",)))
    client = TestClient(app, headers={"authorization": "Bearer good"})
    for _ in range(3):
        client.get("/items/a")
    assert len(guard.asked) == 1


def test_a_plain_def_handler_is_skipped_too() -> None:
    app, calls = FastAPI(), list[str]()
    cache = TierCache()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.get("/")
    @cache.response(ALWAYS)
    def read() -> str:
        calls.append("read")
        return "text"

    client = TestClient(app)
    assert [client.get("/").json(), client.get("/").json()] == ["text", "text"]
    assert calls == ["read"]


def test_a_route_of_an_included_router_is_found() -> None:
    app, router, guard, calls = FastAPI(), APIRouter(prefix="/api"), Guard(), list[str]()
    cache = TierCache()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @router.get("/x")
    @cache.response(ALWAYS)
    async def read() -> str:
        calls.append("read")
        return "text"

    app.include_router(router, prefix="/v1", dependencies=[Depends(guard)])
    client = TestClient(app, headers={"authorization": "Bearer good"})
    for _ in range(2):
        response = client.get("/v1/api/x")
    assert_hit(response)
    assert (len(guard.asked), calls) == (2, ["read"])


class _Callable:
    async def __call__(self) -> str:
        return "text"


async def _lines() -> AsyncIterator[bytes]:
    yield b"te"
    yield b"xt"


@pytest.mark.parametrize(
    "endpoint",
    [_Callable(), lambda: PlainTextResponse("text"), lambda: StreamingResponse(_lines())],
    ids=["an object with an async __call__", "a Response", "a StreamingResponse"],
)
def test_every_kind_of_endpoint_can_be_skipped(endpoint: Any) -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})
    app.add_api_route("/", endpoint, response_model=None)
    client = TestClient(app)
    miss, hit = client.get("/"), client.get("/")
    assert_hit(hit)
    assert (hit.status_code, hit.text) == (200, miss.text)


def test_a_handler_that_yields_is_refused_at_start() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    @app.get("/")
    async def read() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    with pytest.raises(ConfigError, match="generator"), TestClient(app):
        pass


def test_followers_run_their_own_dependencies() -> None:
    app, guard, calls = FastAPI(), Guard(), list[str]()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})
    go_on = asyncio.Event()

    @app.get("/", dependencies=[Depends(guard)])
    async def read() -> str:
        calls.append("read")
        await go_on.wait()
        return "text"

    async def test() -> None:
        leader = Exchange(app, http_scope(headers=TOKEN))
        await until(lambda: bool(calls))
        good, bad = Exchange(app, http_scope(headers=TOKEN)), Exchange(app)
        await turns()
        go_on.set()
        statuses = [(await each.reply()).status for each in (leader, good, bad)]
        assert statuses == [200, 200, 401]
        assert (len(guard.asked), calls) == (3, ["read"])

    run(test())


def test_a_crash_over_the_leaders_credential_is_the_leaders_alone() -> None:
    """The dependency looked at something that is not in the key."""
    app, entered, go_on = FastAPI(), asyncio.Event(), asyncio.Event()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    async def guard(request: Request) -> None:
        if "authorization" not in request.headers:
            entered.set()
            await go_on.wait()
            raise KeyError("authorization")

    @app.get("/", dependencies=[Depends(guard)])
    async def read() -> str:
        return "text"

    async def test() -> None:
        leader = Exchange(app)
        await entered.wait()
        follower = Exchange(app, http_scope(headers=TOKEN))
        await turns()
        go_on.set()
        with pytest.raises(KeyError):
            await leader.reply()
        assert (await follower.reply()).status == 200

    run(test())


def test_a_request_made_by_a_dependency_is_answered_for_itself() -> None:
    """What is prepared for one route must not take the place of another route's handler."""
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/a": ALWAYS, "/b": ALWAYS})
    asked: list[str] = []

    async def ask_other() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://inside") as inside:
            asked.append((await inside.get("/b", headers={"cookie": "a=1"})).text)
            asked.append((await inside.get("/b", params={"n": len(asked)})).text)

    @app.get("/a", dependencies=[Depends(ask_other)])
    async def read_a() -> str:
        return "a"

    @app.get("/b")
    async def read_b(n: int = 0) -> str:
        return "b"

    client = TestClient(app)
    for _ in range(2):
        assert client.get("/a").text == '"a"'
    assert set(asked) == {'"b"'}


class _Stamp:
    """A middleware that adds a header line to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("x-stamp", "one")
            await send(message)

        await self._app(scope, receive, stamped)


def test_what_middleware_below_adds_is_not_added_twice() -> None:
    app = FastAPI()
    app.add_middleware(_Stamp)
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    @app.get("/")
    async def read() -> str:
        return "text"

    client = TestClient(app)
    miss, hit = client.get("/"), client.get("/")
    assert_hit(hit)
    assert [response.headers.get_list("x-stamp") for response in (miss, hit)] == [["one"], ["one"]]
    assert hit.headers.get_list("content-length") == ["6"]
    assert hit.headers.get_list("content-type") == ["application/json"]


def test_the_length_of_the_empty_response_is_not_that_of_a_stored_one_without() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    @app.get("/")
    async def read() -> StreamingResponse:
        return StreamingResponse(iter((b"te", b"xt")), media_type="text/plain")

    client = TestClient(app)
    client.get("/")
    hit = client.get("/")
    assert_hit(hit)
    assert ("content-length" in hit.headers, hit.text) == (False, "text")


def test_headers_that_a_dependency_sets_are_there_on_a_hit_as_on_a_miss() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    def stamp(response: Response) -> None:
        response.headers["x-stamp"] = "one"

    @app.get("/", dependencies=[Depends(stamp)])
    async def read() -> str:
        return "text"

    client = TestClient(app)
    assert [client.get("/").headers.get_list("x-stamp") for _ in range(2)] == [["one"], ["one"]]


def test_what_a_dependency_says_of_one_user_never_reaches_another() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    def who(request: Request, response: Response) -> None:
        response.headers["x-user"] = request.headers.get("authorization", "nobody")
        if "authorization" in request.headers:
            response.headers["x-known"] = "yes"

    @app.get("/", dependencies=[Depends(who)])
    async def read() -> str:
        return "the same for all"

    client = TestClient(app)
    answers = [client.get("/", headers={"authorization": name} if name else {}) for name in ("ada", "grace", "")]
    assert [answer.headers["x-user"] for answer in answers] == ["ada", "grace", "nobody"]
    assert ["x-known" in answer.headers for answer in answers] == [True, True, False]
    assert_hit(answers[1])
    assert_hit(answers[2])
