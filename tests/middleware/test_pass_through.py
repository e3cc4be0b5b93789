"""What is not ours to cache goes through untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier, TickingClock, assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, until

POLICY = Policy(ttl=60)
PUBLIC = {"cache-control": "public, max-age=60"}
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"text", "more_body": False}
TRAILERS: Message = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False}


@pytest.mark.parametrize("policy", [POLICY, Policy.http(), Policy.http(ttl=60)])
@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.debug", "info": {"template": "page", "context": {}}}, START, BODY],
        [{"type": "http.response.push", "path": "/style.css", "headers": []}, START, BODY],
        [{"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}, START, BODY],
        [{**START, "trailers": True}, BODY, TRAILERS],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [START, {"type": "http.response.pathsend", "path": "/nowhere/to/be/found"}],
        [{"type": "http.response.unheard-of", "x": object()}, START, BODY],
    ],
    ids=["debug", "push", "early hint", "trailers", "zero copy", "pathsend", "unknown"],
)
def test_other_messages_pass_and_make_a_response_unstorable(messages: list[Message], policy: Policy) -> None:
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        for message in messages:
            await send(dict(message))

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})

    async def test() -> None:
        for number in (1, 2):
            reply = await ask(ours)
            assert [_without_headers(message) for message in reply.messages] == list(map(_without_headers, messages))
            assert len(calls) == number
            assert "stored" not in reply.cache_status or "trailers" not in str(messages)

    run(test())


def _without_headers(message: Message) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "headers" or "start" not in message["type"]}


def test_a_test_sees_the_template_that_a_handler_rendered() -> None:
    """As Starlette's `TemplateResponse` tells its test client."""

    class Rendered(PlainTextResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            info = {"template": "page.html", "context": {"a": 1}}
            await send({"type": "http.response.debug", "info": info})
            await super().__call__(scope, receive, send)

    client = client_of(Handler(lambda _: Rendered("page")), POLICY)
    for _ in range(2):
        response = client.get("/")
        assert response.template == "page.html"  # type: ignore[attr-defined]
        assert response.context == {"a": 1}  # type: ignore[attr-defined]


def test_a_push_promise_reaches_the_server() -> None:
    async def respond(request: Request) -> PlainTextResponse:
        await request.send_push_promise("/style.css")
        return PlainTextResponse("page")

    app = app_of(Handler(respond), POLICY)

    async def test() -> None:
        for _ in range(2):
            reply = await ask(app, extensions={"http.response.push": {}})
            assert [message["type"].split(".")[-1] for message in reply.messages] == ["push", "start", "body"]

    run(test())


@pytest.mark.parametrize("policy", [POLICY, Policy.http(), None])
@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_headers_may_be_any_iterable_of_pairs(kind: Callable[[list[Any]], Any], policy: Policy | None) -> None:
    """ASGI promises no more; and a route that stores nothing sees them, too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = kind([[b"x-a", b"1"], (b"set-cookie", b"a=1")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"text"})

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})

    async def test() -> None:
        for _ in range(8):
            (start, _) = (await Exchange(ours).reply()).messages
            assert [name for name, _ in start["headers"] if name != b"cache-status"] == [b"x-a", b"set-cookie"]

    run(test())


@pytest.mark.parametrize("kind", ["websocket", "lifespan.of.the.future", "telnet"])
def test_other_scopes_are_handed_on_as_they_are(kind: str) -> None:
    handed: list[tuple[object, ...]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handed.append((scope, receive, send))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    scope: Scope = {"type": kind, "path": "/"}

    async def test() -> None:
        await TierCacheMiddleware(app, cache=TierCache(), routes={"/": POLICY})(scope, receive, send)
        assert handed == [(scope, receive, send)]
        assert handed[0][0] is scope

    run(test())


def test_websockets_work() -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    ours = Middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": POLICY})
    client = TestClient(Starlette(routes=[WebSocketRoute("/", endpoint)], middleware=[ours]))
    for _ in range(2):
        with client.websocket_connect("/") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
def test_other_methods_pass_untouched(method: str) -> None:
    handler = Handler(lambda _: PlainTextResponse("text", headers=PUBLIC))
    app = app_of(handler, POLICY, methods=[method])

    async def test() -> None:
        for _ in range(2):
            reply = await ask(app, method=method)
            assert (reply.status, reply.cache_status) == (200, "")
        assert handler.calls == 2

    run(test())


def test_head_is_answered_from_a_stored_get() -> None:
    handler = Handler()
    client = client_of(handler, POLICY)
    client.get("/")
    response = client.head("/")
    assert_hit(response)
    assert (response.content, response.headers["content-length"], handler.calls) == (b"", "8", 1)


@pytest.mark.parametrize(("pause", "tier"), [(0, "L1"), (11, "L2")])
def test_the_answer_to_head_has_no_body_whatever_the_server_does(pause: int, tier: str) -> None:
    clock, l2 = TickingClock(), ScriptedTier()
    app = app_of(Handler(), Policy(ttl=60, l1_ttl=10), cache=TierCache(clock=clock, l2=l2))

    async def test() -> None:
        await ask(app)
        await until(lambda: bool(l2.data))
        clock.tick(pause)
        reply = await ask(app, method="HEAD")
        assert f"detail={tier}" in reply.cache_status
        assert reply.body == b""

    run(test())


def test_a_head_that_finds_nothing_reaches_the_handler_and_stores_nothing() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.method))
    client = client_of(handler, POLICY)
    assert_miss(client.head("/"))
    assert client.get("/").text == "GET"


@pytest.mark.parametrize("routes", [{"/": POLICY}, {"/*": POLICY}, {}], ids=["exact", "prefix", "default"])
def test_head_is_not_answered_where_the_route_takes_only_get(routes: dict[str, Policy | None]) -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes=routes)

    @app.get("/")
    async def read(response: Response) -> str:
        response.headers.update(PUBLIC)
        return "text"

    client = TestClient(app)
    client.get("/")
    assert_hit(client.get("/"))
    assert client.head("/").status_code == 405


@pytest.mark.parametrize("policy", [POLICY, Policy.http(), Policy.http(ttl=60), None])
def test_what_middleware_above_finds_in_the_scope_is_there(policy: Policy | None) -> None:
    """Access logs and traces name the route that the router chose; it says so in the scope."""
    found: list[object] = []

    class Trace:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)
            found.append(scope.get("endpoint"))

    handler = Handler()
    app = app_of(handler, policy, above=[Middleware(Trace)])
    TestClient(app).get("/")
    assert found == [handler.answer]


def test_what_the_handler_notes_in_the_state_reaches_middleware_above() -> None:
    found: list[object] = []

    class Log:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)
            found.append(scope.get("state", {}).get("note"))

    async def respond(request: Request) -> PlainTextResponse:
        request.state.note = "noted"
        return PlainTextResponse("text")

    app = app_of(Handler(respond), Policy.http(), above=[Middleware(Log)])

    async def test() -> None:
        scope = http_scope()
        del scope["state"]  # an extension of the lifespan, which not every server has
        await Exchange(app, scope).reply()
        assert found == ["noted"]

    run(test())


def test_a_redirect_to_the_slash_is_as_without_us() -> None:
    ours = Middleware(TierCacheMiddleware, cache=TierCache(), routes={"/items/": POLICY})
    app = Starlette(routes=[Route("/items/", Handler().answer)], middleware=[ours])
    response = TestClient(app).get("/items", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "http://testserver/items/")
