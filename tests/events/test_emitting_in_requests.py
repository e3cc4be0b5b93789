"""`@cache.emits` within requests: before the response leaves, and again after what follows a dependency's `yield`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.events.recording import purges_of
from tests.middleware.asgi import Exchange, ask, http_scope, run

Decorator = Callable[[Any], Any]


class Store:
    """Names by user; changes of a session show once it is committed, which waits to be let."""

    def __init__(self) -> None:
        self.names = {"ann": "old"}
        self.may_commit = asyncio.Event()
        self.committing = asyncio.Event()

    async def session(self) -> AsyncIterator[dict[str, str]]:
        """A dependency that commits after its `yield`, hence after the response was sent."""
        changes: dict[str, str] = {}
        yield changes
        self.committing.set()
        await self.may_commit.wait()
        self.names.update(changes)


class Name(BaseModel):
    name: str


def greeting() -> str:
    return "hello"


def service(cache: TierCache, store: Store, *, by_hand: bool = False) -> FastAPI:
    """Reads names, and renames in a session; `by_hand`: emits in the endpoint's body and only there."""
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.get("/users/{user_id}")
    @cache.response(ttl=60, tags=["user:{user_id}"])
    async def read(user_id: str) -> str:
        return store.names[user_id]

    session = Depends(store.session)

    async def rename(user_id: str, to: str, changes: dict[str, str] = session) -> None:
        changes[user_id] = to
        if by_hand:
            await cache.emit("user_update", user_id=user_id)

    app.put("/names/{user_id}")(rename if by_hand else cache.emits("user_update")(rename))
    return app


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_is_read_between_the_response_and_the_commit_is_purged_again(by_hand: bool) -> None:
    async def test() -> None:
        cache, store = TierCache(), Store()
        app = service(cache, store, by_hand=by_hand)
        assert (await ask(app, "/users/ann")).body == b'"old"'

        edit = Exchange(app, http_scope("/names/ann", method="PUT", query=b"to=new"))
        await store.committing.wait()
        assert edit.messages[-1].get("more_body", False) is False, "the client has its response"

        between = await ask(app, "/users/ann")
        assert not between.hit, "it was purged before the response left"
        assert between.body == b'"old"'
        assert (await ask(app, "/users/ann")).hit, "what was read in between is stored"

        store.may_commit.set()
        assert (await edit.reply()).status == 200
        after = await ask(app, "/users/ann")
        if by_hand:
            assert (after.hit, after.body) == (True, b'"old"'), "why the second purge is there"
        else:
            assert (after.hit, after.body) == (False, b'"new"')
        cache.close()

    run(test())


def test_the_purge_has_happened_when_the_first_message_leaves() -> None:
    async def test() -> None:
        cache, store = TierCache(), Store()
        app = service(cache, store)
        before, positions = purges_of(cache), list[int]()

        async def send(message: object) -> None:
            positions.append(purges_of(cache))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        store.may_commit.set()
        await app(http_scope("/names/ann", method="PUT", query=b"to=new"), receive, send)
        assert positions == [before + 1, before + 1]
        assert purges_of(cache) == before + 2

    run(test())


# ---- what has succeeded ----


def _failing(cache: TierCache, fail: Callable[[Response], Any], emits: Decorator) -> FastAPI:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.post("/users/{user_id}", response_model=None)
    @emits
    async def change(user_id: str, response: Response) -> Any:
        return fail(response)

    return app


def _raise(error: Exception) -> Any:
    raise error


def _conflict(response: Response) -> str:
    response.status_code = 409
    return "conflict"


FAILURES: dict[str, Callable[[Response], Any]] = {
    "HTTPException": lambda _: _raise(HTTPException(409)),
    "another exception": lambda _: _raise(ValueError("broken")),
    "a response of 409": lambda _: JSONResponse({}, 409),
    "409 by the injected response": _conflict,
    "what cannot be serialised": lambda _: object(),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_endpoint_that_failed_purges_nothing(failure: str) -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])
    before = cache.stamp()
    app = _failing(cache, FAILURES[failure], cache.emits("user_update"))

    answer = TestClient(app, raise_server_exceptions=False).post("/users/ann")

    assert answer.status_code in (409, 500)
    assert cache.stamp() == before


def test_a_function_that_committed_is_purged_though_its_request_failed() -> None:
    cache, names = TierCache(), {"ann": "old"}
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @cache.emits("user_update")
    async def rename(user_id: str, to: str) -> None:
        names[user_id] = to

    @app.get("/users/{user_id}")
    @cache.response(ttl=60, tags=["user:{user_id}"])
    async def read(user_id: str) -> str:
        return names[user_id]

    @app.put("/names/{user_id}")
    async def edit(user_id: str, to: str) -> None:
        await rename(user_id, to)
        raise HTTPException(502, "the mail about it could not be sent")

    client = TestClient(app)
    assert client.get("/users/ann").json() == "old"
    assert client.put("/names/ann?to=new").status_code == 502
    assert client.get("/users/ann").json() == "new"


# ---- kinds of endpoints ----


def test_a_plain_endpoint_leaves_its_purge_to_the_request() -> None:
    cache, names, threads = TierCache(), {"ann": "old"}, list[int]()
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    def committed() -> Iterator[None]:
        yield
        names["ann"] = "new"

    @app.get("/users/{user_id}")
    @cache.response(ttl=60, tags=["user:{user_id}"])
    def read(user_id: str) -> str:
        return names[user_id]

    @app.put("/names/{user_id}", dependencies=[Depends(committed)])
    @cache.emits("user_update")
    def edit(user_id: str) -> dict[str, str]:
        threads.append(threading.get_ident())
        return {"id": user_id}

    with TestClient(app) as client:
        assert client.get("/users/ann").json() == "old"
        assert client.put("/names/ann").json() == {"id": "ann"}
        assert client.get("/users/ann").json() == "new"
    assert threads != [threading.get_ident()]
    cache.close()


def test_below_base_http_middleware_the_purge_still_precedes_the_response() -> None:
    async def test() -> None:
        cache, store = TierCache(), Store()
        app = service(cache, store)

        async def dispatch(request: Request, call_next: Any) -> StarletteResponse:
            response: StarletteResponse = await call_next(request)
            return response

        below = FastAPI()
        below.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        below.add_middleware(TierCacheMiddleware, cache=cache)

        session = Depends(store.session)

        @below.put("/names/{user_id}")
        @cache.emits("user_update")
        async def edit(user_id: str, changes: dict[str, str] = session) -> None:
            changes[user_id] = "new"

        await ask(app, "/users/ann")
        edit_request = Exchange(below, http_scope("/names/ann", method="PUT"))
        await store.committing.wait()
        await edit_request.until(2)
        assert not (await ask(app, "/users/ann")).hit
        store.may_commit.set()
        await edit_request.reply()
        assert (await ask(app, "/users/ann")).body == b'"new"'

    run(test())


def test_a_streamed_response_is_preceded_and_followed_by_a_purge_and_so_is_its_last_part() -> None:
    async def test() -> None:
        cache, positions = TierCache(), list[int]()
        cache.on("e", tags="a")
        app = FastAPI()
        app.add_middleware(TierCacheMiddleware, cache=cache)

        @app.post("/")
        @cache.emits("e")
        async def change() -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                yield "a"
                yield "b"

            return StreamingResponse(parts())

        async def send(message: object) -> None:
            positions.append(purges_of(cache))

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        await app({**http_scope(method="POST"), "asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)
        assert positions == [1, 1, 1, 2]
        assert purges_of(cache) == 3

    run(test())


def test_a_background_task_is_purged_once_it_has_ended() -> None:
    cache, names = TierCache(), {"ann": "old"}
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @cache.emits("user_update")
    def rename(user_id: str) -> None:
        names[user_id] = "new"

    @app.get("/users/{user_id}")
    @cache.response(ttl=60, tags=["user:{user_id}"])
    async def read(user_id: str) -> str:
        return names[user_id]

    @app.post("/users/{user_id}")
    async def edit(user_id: str, later: BackgroundTasks) -> None:
        later.add_task(rename, user_id)

    client = TestClient(app)
    client.get("/users/ann")
    client.post("/users/ann")
    assert client.get("/users/ann").json() == "new"
    cache.close()


def test_what_a_request_has_set_off_and_left_behind_purges_by_itself() -> None:
    async def test() -> None:
        cache, go, tasks = TierCache(), asyncio.Event(), list[asyncio.Task[None]]()
        cache.on("e", tags="a")
        app = FastAPI()
        app.add_middleware(TierCacheMiddleware, cache=cache)

        @cache.emits("e")
        async def work() -> None:
            await go.wait()

        @app.post("/")
        async def begin() -> None:
            tasks.append(asyncio.create_task(work()))

        await ask(app, method="POST")
        assert purges_of(cache) == 0
        go.set()
        await tasks[0]
        assert purges_of(cache) == 1

    run(test())


def test_a_get_that_changes_something_is_treated_alike() -> None:
    for policy in (None, Policy(ttl=60), Policy.http()):
        cache = TierCache()
        cache.on("e", tags="a")
        app = FastAPI()
        app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/": policy})

        @app.get("/")
        @cache.emits("e")
        async def change() -> str:
            return "done"

        assert TestClient(app).get("/").json() == "done"
        assert purges_of(cache) == 2
        assert_hit(TestClient(app).get("/")) if policy == Policy(ttl=60) else None


def test_starlette_endpoints_give_what_is_in_their_path() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])

    @cache.emits("user_update")
    async def function(request: Request) -> PlainTextResponse:
        return PlainTextResponse("done")

    class Endpoint(HTTPEndpoint):
        @cache.emits("user_update")
        async def put(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("done")

        @cache.emits("user_update")
        def delete(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("conflict", 409)

    routes = [Route("/f/{user_id}", function, methods=["PUT"]), Route("/c/{user_id:int}", Endpoint)]
    app = Starlette(routes=[Mount("/in", routes=routes)])
    app.add_middleware(TierCacheMiddleware, cache=cache)

    client = TestClient(app)
    for path, tag in (("/in/f/ann", "user:ann"), ("/in/c/7", "user:7")):
        asyncio.run(cache.set("k", 1, ttl=60, tags=[tag]))
        assert client.put(path).text == "done"
        assert asyncio.run(cache.get("k")) is None
    before = cache.stamp()
    assert client.delete("/in/c/7").status_code == 409
    assert cache.stamp() == before


def test_a_websocket_purges_right_after_the_function() -> None:
    cache = TierCache()
    cache.on("e", tags="a")

    @cache.emits("e")
    async def work() -> None: ...

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await work()
        await websocket.send_json(purges_of(cache))
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    app.add_middleware(TierCacheMiddleware, cache=cache)
    with TestClient(app).websocket_connect("/") as websocket:
        assert websocket.receive_json() == 1


def test_without_the_middleware_an_endpoint_purges_before_it_answers() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()

    @app.put("/a/{user_id}")
    @cache.emits("user_update")
    async def awaited(user_id: str) -> None: ...

    @app.put("/p/{user_id}")
    @cache.emits("user_update")
    def plain(user_id: str) -> None: ...

    client = TestClient(app)
    client.put("/a/ann")
    client.put("/p/ann")
    assert purges_of(cache) == 2
    cache.close()


# ---- beside FastAPI's own ----


def test_fastapi_sees_the_endpoint_as_it_was_written() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.put("/names/{user_id}", response_model=Name)
    @cache.emits("user_update")
    async def edit(user_id: int, body: Name, said: Annotated[str, Depends(greeting)], q: str = "") -> dict[str, Any]:
        return {"name": f"{said} {body.name} {user_id + 1}{q}", "secret": 1}

    client = TestClient(app)
    answer = client.put("/names/7?q=!", json={"name": "ann"})
    assert answer.json() == {"name": "hello ann 8!"}
    assert client.put("/names/x", json={"name": "ann"}).status_code == 422
    operation = client.get("/openapi.json").json()["paths"]["/names/{user_id}"]["put"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {"user_id", "q"}
    assert purges_of(cache) == 2


@pytest.mark.parametrize("emits_first", [True, False])
def test_a_policy_and_an_event_on_one_endpoint_go_in_either_order(emits_first: bool) -> None:
    cache = TierCache()
    cache.on("seen", tags=["last-seen:{user_id}"])
    decorators: list[Decorator] = [cache.response(ttl=60), cache.emits("seen")]
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    async def profile(user_id: str) -> str:
        return user_id

    endpoint: Any = profile
    for decorate in decorators if emits_first else reversed(decorators):
        endpoint = decorate(endpoint)
    app.get("/users/{user_id}")(endpoint)

    client = TestClient(app)
    assert_miss(client.get("/users/ann"), stored=True)
    assert_hit(client.get("/users/ann"))
    assert purges_of(cache) == 2


def test_an_event_that_nobody_declared_keeps_the_app_from_starting() -> None:
    cache = TierCache()
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)
    cache.emits("user_update")(lambda user_id: None)

    with pytest.raises(ConfigError, match=r"^event: 'user_update' was never declared"), TestClient(app):
        pass


def test_one_endpoint_may_emit_two_events() -> None:
    cache = TierCache()
    cache.on("one", tags="a:{x}")
    cache.on("two", tags="b:{y}")
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.post("/{x}/{y}")
    @cache.emits("one")
    @cache.emits("two")
    async def change(x: int, y: int, response: Response, fail: bool = False) -> None:
        response.status_code = 409 if fail else 200

    client = TestClient(app)
    client.post("/1/2?fail=true")
    assert purges_of(cache) == 0
    client.post("/1/2")
    assert purges_of(cache) == 2, "both at once, before the response and after it"
    assert cache.stats()["invalidations"]["durable"]["event"] == 4


def test_two_caches_keep_their_events_apart() -> None:
    one, other = TierCache(), TierCache()
    one.on("e", tags="a")

    @one.emits("e")
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("done")

    app: ASGIApp = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app = TierCacheMiddleware(TierCacheMiddleware(app, cache=one), cache=other)
    TestClient(app).post("/")
    assert (purges_of(one), purges_of(other)) == (2, 0)


def test_an_app_of_any_make_is_served() -> None:
    cache = TierCache()
    cache.on("e", tags="a")

    @cache.emits("e")
    async def work() -> None: ...

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await work()
        await PlainTextResponse("done", 204)(scope, receive, send)

    async def test() -> None:
        assert (await ask(TierCacheMiddleware(app, cache=cache), method="POST")).status == 204
        assert purges_of(cache) == 2

    run(test())
