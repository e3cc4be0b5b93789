"""Middleware above the cache and below it, where what is stored is validated, used stale or asked for in part."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.frameworks.apps import ALL_MODES, HTTP_MODES, Clocked, app_with, name_of
from tests.middleware.asgi import Reply, ask, run, turns

SITE, OTHER = "https://site.example", "https://other.example"
KEPT = Policy(ttl=60, retention=3600)

all_modes = pytest.mark.parametrize("policy", ALL_MODES, ids=name_of)
validating = pytest.mark.parametrize("policy", [*HTTP_MODES, KEPT], ids=name_of)
http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)
places = pytest.mark.parametrize("place", ["above", "below"])


class Text:
    """A handler that judges conditions itself."""

    def __init__(self, cache_control: str = "max-age=60") -> None:
        self.asked: list[str | None] = []
        self.made = 0
        self.text = "one"
        self.status = 200
        self._cache_control = cache_control

    def serve(self, app: FastAPI) -> None:
        """Put it at `/`."""

        @app.get("/")
        async def handler(request: Request) -> Response:
            self.asked.append(request.headers.get("if-none-match"))
            headers = {"ETag": f'"{self.text}"', "Cache-Control": self._cache_control}
            if self.status != 200:
                return Response("error", status_code=self.status)
            if self.asked[-1] == headers["ETag"]:
                return Response(status_code=304, headers=headers)
            self.made += 1
            return Response(self.text, media_type="text/plain", headers=headers)


class Named(BaseHTTPMiddleware):
    """Adds a field, and reads what it is given."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-named"] = request.url.path
        return response


def _served(text: Text, policy: Policy, clocked: Clocked, **around: Any) -> FastAPI:
    app = app_with(clocked.cache, default=policy, **around)
    text.serve(app)
    return app


# ---- of the old kind ----


@validating
@places
def test_the_old_kind_sees_full_responses_and_conditions_go_through_it(policy: Policy, place: str) -> None:
    clocked, text = Clocked(), Text()
    client = TestClient(_served(text, policy, clocked, **{place: [Middleware(Named)]}))
    for _ in range(3):
        response = client.get("/")
        assert (response.status_code, response.text, response.headers["x-named"]) == (200, "one", "/")
        assert_hit(client.get("/"))
        spared = client.get("/", headers={"if-none-match": '"one"'})
        assert (spared.status_code, spared.content) == (304, b"")
        part = client.get("/", headers={"range": "bytes=1-1"})
        assert (part.status_code, part.text, part.headers["content-range"]) == (206, "n", "bytes 1-1/3")
        clocked.tick(61)
    assert (text.made, text.asked) == (1, [None, '"one"', '"one"'])


@http_modes
@places
@pytest.mark.parametrize("failing", ["503", "exception"])
def test_the_old_kind_lets_a_stale_response_stand_in_for_an_error(policy: Policy, place: str, failing: str) -> None:
    clocked, text, broken = Clocked(), Text("max-age=60, stale-if-error=600"), [False]
    app = app_with(clocked.cache, default=policy, **{place: [Middleware(Named)]})  # type: ignore[arg-type]

    @app.get("/")
    async def handler() -> Response:
        if broken[0] and failing == "exception":
            raise RuntimeError("broken")
        if broken[0]:
            return Response(status_code=503)
        return Response("one", headers={"ETag": '"one"', "Cache-Control": "max-age=60, stale-if-error=600"})

    client = TestClient(app, raise_server_exceptions=False)
    client.get("/")
    clocked.tick(61)
    broken[0] = True
    response = client.get("/")
    assert (response.status_code, response.text) == (200, "one")
    assert "stale-if-error" in response.headers["cache-status"]
    clocked.tick(601)
    assert client.get("/").status_code in (500, 503)
    assert text.made == 0


# ---- origins ----


@validating
@places
@pytest.mark.parametrize("origins", [[SITE, OTHER], ["*"]])
def test_each_origin_is_told_its_own_after_a_validation_too(policy: Policy, place: str, origins: list[str]) -> None:
    clocked, text = Clocked(), Text()
    cors = Middleware(CORSMiddleware, allow_origins=origins, expose_headers=["ETag"])
    client = TestClient(_served(text, policy, clocked, **{place: [cors]}))
    bare = FastAPI(middleware=[cors])
    Text().serve(bare)
    for _ in range(3):
        for origin in (SITE, None, OTHER, "https://evil.example", SITE):
            for condition in ({}, {"if-none-match": '"one"'}):
                headers = ({"origin": origin} if origin else {}) | condition
                told, expected = client.get("/", headers=headers), TestClient(bare).get("/", headers=headers)
                assert (told.status_code, told.text) == (expected.status_code, expected.text)
                for name in ("access-control-allow-origin", "access-control-expose-headers"):
                    assert told.headers.get(name) == expected.headers.get(name), (origin, condition)
        clocked.tick(61)


# ---- sessions ----


SESSIONS = Middleware(SessionMiddleware, secret_key="s")


@pytest.mark.parametrize("policy", [Policy.http(), Policy.rfc9111()], ids=name_of)
@places
def test_what_is_public_is_shared_in_spite_of_sessions_and_nobody_gets_anothers(policy: Policy, place: str) -> None:
    clocked, calls = Clocked(), list[str]()
    app = app_with(clocked.cache, default=policy, **{place: [SESSIONS]})  # type: ignore[arg-type]

    @app.get("/login/{name}")
    async def login(name: str, request: Request) -> str:
        request.session["name"] = name
        return name

    @app.get("/public")
    async def public(request: Request) -> Response:
        calls.append("public")
        headers = {"Cache-Control": "public, max-age=60, stale-while-revalidate=600", "ETag": '"p"'}
        if request.headers.get("if-none-match") == '"p"':
            return Response(status_code=304, headers=headers)
        return Response("public", headers=headers)

    @app.get("/mine")
    async def mine(request: Request, response: Response) -> str:
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers["ETag"] = f'"{request.session.get("name")}"'
        return str(request.session.get("name"))

    ann, bob, visitor = (TestClient(app) for _ in range(3))
    assert [ann.get("/login/ann").json(), bob.get("/login/bob").json()] == ["ann", "bob"]
    for _ in range(3):
        for client, name in ((ann, "ann"), (bob, "bob"), (visitor, "None")):
            assert client.get("/public").text == "public"
            assert client.get("/mine").json() == name
            for tag in ("ann", "bob", "None"):
                told = client.get("/mine", headers={"if-none-match": f'"{tag}"'})
                assert told.json() == name if told.status_code == 200 else tag == name
        clocked.tick(61)
    assert len(calls) <= 5


def test_under_a_session_a_stale_response_is_made_anew_behind_the_back_of_who_has_none() -> None:
    """By the exact shared cache, to which a session is no obstacle; but nothing runs in the background as somebody."""
    clocked, calls = Clocked(), list[str]()

    async def test() -> None:
        app = app_with(clocked.cache, default=Policy.rfc9111(), above=[SESSIONS])

        @app.get("/login")
        async def login(request: Request) -> Response:
            request.session["name"] = "ann"
            return Response("in")

        @app.get("/public")
        async def public() -> Response:
            calls.append("public")
            headers = {"Cache-Control": "public, max-age=60, stale-while-revalidate=600"}
            return Response(f"public {len(calls)}", headers=headers)

        cookie = [(b"cookie", _cookie(await ask(app, "/login")))]
        assert (await ask(app, "/public")).body == b"public 1"
        clocked.tick(61)
        stale = await ask(app, "/public")
        assert (stale.body, stale.hit) == (b"public 1", True)
        await turns(100)
        for headers in ([], cookie):
            reply = await ask(app, "/public", headers=headers)
            assert (reply.body, reply.hit) == (b"public 2", True)
        clocked.tick(61)
        waited = await ask(app, "/public", headers=cookie)
        assert (waited.body, waited.hit) == (b"public 3", False)
        for headers in ([], cookie):
            reply = await ask(app, "/public", headers=headers)
            assert not any(name == b"set-cookie" for name, _ in reply.messages[0]["headers"])

    run(test())


def _cookie(reply: Reply) -> bytes:
    headers = reply.messages[0]["headers"]
    line: bytes = next(value for name, value in headers if name == b"set-cookie")
    return line.split(b";")[0]


# ---- more than one cache ----


def _members(response: Any) -> list[str]:
    return [member.strip() for member in ", ".join(response.headers.get_list("cache-status")).split(",")]


@http_modes
def test_two_caches_each_say_what_they_did_the_origins_first(policy: Policy) -> None:
    """RFC 9211, section 2: the first member is that of the cache closest to the origin."""
    lower, upper, text = Clocked(), Clocked(), Text()
    below = Middleware(TierCacheMiddleware, cache=lower.cache, default=policy)
    client = TestClient(_served(text, policy, upper, below=[below]))

    first = client.get("/")
    assert [member.split(";")[1].strip() for member in _members(first)] == ["fwd=uri-miss", "fwd=uri-miss"]
    assert_hit(client.get("/"))

    upper.cache.engine.memory.clear()
    below_hit = client.get("/")
    assert [member.split(";")[1].strip() for member in _members(below_hit)] == ["hit", "fwd=uri-miss"]
    assert (below_hit.text, text.made) == ("one", 1)


@http_modes
def test_the_age_of_the_lower_cache_counts_in_the_upper(policy: Policy) -> None:
    lower, text = Clocked(), Text()
    upper = TierCache(clock=lower.clock)
    app = FastAPI(
        middleware=[
            Middleware(TierCacheMiddleware, cache=upper, default=policy),
            Middleware(TierCacheMiddleware, cache=lower.cache, default=policy),
        ]
    )
    text.serve(app)
    below = TestClient(app)
    below.get("/")
    lower.tick(50)
    upper.engine.memory.clear()
    response = below.get("/")
    assert response.headers.get_list("age") == ["50"]
    lower.tick(5)
    assert below.get("/").headers.get_list("age") == ["55"]
    lower.tick(10)
    validated = below.get("/")
    assert (validated.text, validated.headers.get("age", "0")) == ("one", "0")
    assert (text.made, text.asked) == (1, [None, '"one"'])


@http_modes
def test_one_cache_may_serve_an_app_and_what_is_mounted_in_it(policy: Policy) -> None:
    """The inner one finds nothing else than the outer one has looked for; neither waits for the other."""
    clocked, text, calls = Clocked(), Text(), list[str]()
    ours = Middleware(TierCacheMiddleware, cache=clocked.cache, default=policy)
    app, mounted = FastAPI(middleware=[ours]), FastAPI(middleware=[ours])
    text.serve(mounted)

    @mounted.put("/", status_code=204)
    def write(value: str) -> None:
        text.text = value

    @mounted.get("/other")
    def other() -> str:
        calls.append("other")
        return "other"

    app.mount("/inner", mounted)
    client = TestClient(app)
    for value in ("one", "two"):
        client.put(f"/inner/?value={value}")
        for _ in range(2):
            assert client.get("/inner/").text == value
            assert_hit(client.get("/inner/"))
            clocked.tick(61)
    assert text.made == 2
    assert [client.get("/inner/other").json() for _ in range(8)] == ["other"] * 8
    assert len(calls) == 8


# ---- hosts, and what names the path anew ----


class Prefixed:
    """Takes a prefix off the path, as proxies' helpers do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            scope = {**scope, "path": scope["path"][4:], "raw_path": scope["raw_path"][4:]}
        await self.app(scope, receive, send)


@validating
@places
def test_a_path_that_is_rewritten_is_validated_as_well(policy: Policy, place: str) -> None:
    clocked, text = Clocked(), Text()
    client = TestClient(_served(text, policy, clocked, **{place: [Middleware(Prefixed)]}))
    for _ in range(3):
        assert client.get("/api/").text == "one"
        clocked.tick(61)
    assert text.asked[0] is None


@all_modes
def test_hosts_are_told_apart_below_a_check_of_theirs(policy: Policy) -> None:
    text = Text()
    allowed = Middleware(TrustedHostMiddleware, allowed_hosts=["testserver", "other.example"])
    client = TestClient(_served(text, policy, Clocked(), below=[allowed]))
    assert client.get("/").text == "one"
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert_miss(client.get("/", headers={"host": "other.example"}))
    assert_hit(client.get("/"))


class Late:
    """Sends a message that is no part of the response, as debugging middleware does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            await send(message)
            await asyncio.sleep(0)

        await self.app(scope, receive, counting)


@validating
def test_a_slow_way_up_changes_nothing(policy: Policy) -> None:
    clocked, text = Clocked(), Text()
    client = TestClient(_served(text, policy, clocked, above=[Middleware(Late)], below=[Middleware(Late)]))
    for _ in range(3):
        assert client.get("/").text == "one"
        clocked.tick(61)
    assert text.made == 1
