"""Requests that may have changed something invalidate what is stored of their target (RFC 9111, section 4.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.events.recording import purges_of
from tests.middleware.asgi import Exchange, ask, http_scope, run
from tests.servers import RedisServer

EXPLICIT = Policy(ttl=60)
MODES = [EXPLICIT, Policy.http(), Policy.rfc9111(), Policy.http(ttl=60), Policy(ttl=60, hash_path=True)]
FRESH = {"cache-control": "max-age=60"}


class Resources:
    """Texts by path, for any method: all but GET and HEAD answer as `respond` says, and change the text."""

    def __init__(self, respond: Callable[[Request], Response] | None = None) -> None:
        self.version = 1
        self._respond = respond or (lambda _: Response(status_code=204))

    async def answer(self, request: Request) -> Response:
        """The endpoint."""
        if request.method in ("GET", "HEAD"):
            return PlainTextResponse(f"version {self.version}", headers=FRESH)
        self.version += 1
        return self._respond(request)

    def app(
        self, policy: Policy | None = EXPLICIT, *, cache: TierCache | None = None, routes: list[BaseRoute] | None = None
    ) -> Starlette:
        """The app, with `policy` for every route."""
        ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), default=policy)
        return Starlette(routes=routes or [Route("/{rest:path}", Anything(self).run)], middleware=[ours])

    def client(self, policy: Policy | None = EXPLICIT, **options: Any) -> TestClient:
        """A client of the app."""
        return TestClient(self.app(policy, **options), raise_server_exceptions=False)


class Anything:
    """An endpoint that Starlette takes for an app, and so lets answer every method."""

    def __init__(self, resources: Resources) -> None:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            await (await resources.answer(request))(scope, receive, send)

        class App:
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await run(scope, receive, send)

        self.run = App()


def answering(status: int = 204, **headers: str) -> Callable[[Request], Response]:
    return lambda _: Response(status_code=status, headers={name.replace("_", "-"): headers[name] for name in headers})


def was_kept(client: TestClient, path: str, method: str, to: str = "") -> bool:
    """Whether what is stored under `path` outlives a request with `method` to `to`, or to the same path."""
    assert_miss(client.get(path), stored=True)
    assert_hit(client.get(path))
    client.request(method, to or path)
    return "hit" in client.get(path).headers["cache-status"]


# ---- what invalidates ----


@pytest.mark.parametrize("policy", MODES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
def test_a_successful_unsafe_request_invalidates_its_target(method: str, policy: Policy) -> None:
    client = Resources().client(policy)
    assert not was_kept(client, "/videos/42", method)
    assert client.get("/videos/42").text == "version 2"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "QUERY", "HEAD"])
def test_a_safe_method_invalidates_nothing(method: str) -> None:
    respond = answering(200, location="/a", cache_group_invalidation='"a"')
    assert was_kept(Resources(respond).client(), "/a", method)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 301, 303, 307, 308])
def test_every_status_of_success_counts(status: int) -> None:
    assert not was_kept(Resources(answering(status)).client(), "/a", "POST")


@pytest.mark.parametrize("status", [400, 401, 404, 405, 409, 412, 422, 500, 502, 503])
def test_an_error_invalidates_nothing(status: int) -> None:
    respond = answering(status, location="/b", content_location="/b", cache_group_invalidation='"a"')
    client = Resources(respond).client()
    assert was_kept(client, "/a", "POST")
    assert was_kept(client, "/b", "POST", "/a")


def test_all_queries_of_the_path_go_and_no_other_path() -> None:
    client = Resources().client()
    paths = ["/a?x=1", "/a?x=2", "/a", "/a/b", "/A", "/b"]
    for path in paths:
        client.get(path)
    client.delete("/a?x=1")
    kept = [path for path in paths if "hit" in client.get(path).headers["cache-status"]]
    assert kept == ["/a/b", "/A", "/b"]


@pytest.mark.parametrize("path", ["/a%20b", "/a%2Fb", "/%C3%BC", "/ü", "/a:b*c", "/" + "long" * 100, "/%FF", "/a%25"])
@pytest.mark.parametrize("policy", [EXPLICIT, Policy(ttl=60, hash_path=True)])
def test_the_path_is_that_of_keys_however_it_is_written(path: str, policy: Policy) -> None:
    assert not was_kept(Resources().client(policy), path, "PUT")


def test_an_exception_before_the_response_began_invalidates_nothing() -> None:
    def fail(_: Request) -> Response:
        raise ValueError

    assert was_kept(Resources(fail).client(), "/a", "POST")


def test_an_exception_after_a_successful_response_began_invalidates() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError

    assert not was_kept(Resources(lambda _: StreamingResponse(parts())).client(), "/a", "POST")


def test_an_exception_after_an_error_began_invalidates_nothing() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError

    assert was_kept(Resources(lambda _: StreamingResponse(parts(), status_code=500)).client(), "/a", "POST")


# ---- when ----


def test_it_has_happened_when_the_first_message_leaves() -> None:
    async def test() -> None:
        cache = TierCache()
        app = Resources(answering(200)).app(cache=cache)
        await ask(app, "/a")
        hits: list[bool] = []

        async def send(_: Message) -> None:
            hits.append((await ask(app, "/a")).hit)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await app(http_scope("/a", method="PUT"), receive, send)
        assert hits == [False, True], "gone before the start; then stored again by the question itself"
        assert not (await ask(app, "/a")).hit, "and gone again with the end of the app"

    run(test())


def test_what_is_read_before_a_dependency_commits_does_not_stay() -> None:
    async def test() -> None:
        texts, committing, may_commit = {"a": "old"}, asyncio.Event(), asyncio.Event()

        async def session() -> AsyncIterator[dict[str, str]]:
            changes: dict[str, str] = {}
            yield changes
            committing.set()
            await may_commit.wait()
            texts.update(changes)

        app = FastAPI()
        app.add_middleware(TierCacheMiddleware, cache=TierCache(), default=EXPLICIT)
        depends = Depends(session)

        @app.get("/a")
        async def read() -> str:
            return texts["a"]

        @app.put("/a")
        async def write(changes: dict[str, str] = depends) -> None:
            changes["a"] = "new"

        assert (await ask(app, "/a")).body == b'"old"'
        edit = Exchange(app, http_scope("/a", method="PUT"))
        await committing.wait()
        await edit.until(2)
        between = await ask(app, "/a")
        assert (between.hit, between.body) == (False, b'"old"')
        assert (await ask(app, "/a")).hit
        may_commit.set()
        await edit.reply()
        assert (await ask(app, "/a")).body == b'"new"'

    run(test())


# ---- Location and Content-Location ----


@pytest.mark.parametrize("field", ["location", "content_location"])
@pytest.mark.parametrize(
    "reference",
    [
        "/videos/42",
        "42",
        "../videos/42?x=1#y",
        "http://testserver/videos/42",
        "//TestServer:80/videos/42",
        "/videos/4%32",
    ],
)
def test_what_the_answer_refers_to_on_its_origin_goes_too(field: str, reference: str) -> None:
    client = Resources(answering(201, **{field: reference})).client()
    assert not was_kept(client, "/videos/42", "POST", "/videos/")
    assert not was_kept(client, "/videos/42?page=2", "POST", "/videos/")


@pytest.mark.parametrize("field", ["location", "content_location"])
@pytest.mark.parametrize(
    "reference",
    ["https://testserver/a", "http://testserver:8080/a", "http://example.com/a", "//example.com/a", "http://[", "/a b"],
)
def test_another_origin_and_what_is_malformed_are_left_alone(field: str, reference: str) -> None:
    assert was_kept(Resources(answering(201, **{field: reference})).client(), "/a", "POST", "/b")


@pytest.mark.parametrize("reference", ["/%C3%BC", "/ü"])
def test_a_reference_is_decoded_like_a_path(reference: str) -> None:
    assert not was_kept(Resources(answering(201, location=reference)).client(), "/ü", "POST", "/b")


@pytest.mark.parametrize("path", ["/api/a", "/a"])
@pytest.mark.parametrize("reference", ["/api/a", "a", "http://example.org/api/a", "/a"])
def test_references_count_with_the_root_path_and_without(path: str, reference: str) -> None:
    async def test() -> None:
        app = Resources(answering(201, location=reference)).app()
        prefix = path.removesuffix("/a")
        assert not (await ask(app, path, root_path="/api")).hit
        assert (await ask(app, path, root_path="/api")).hit
        await ask(app, prefix + "/b", root_path="/api", method="POST")
        assert not (await ask(app, path, root_path="/api")).hit

    run(test())


def test_the_scheme_is_part_of_the_origin() -> None:
    app = Resources(answering(201, location="https://testserver/a")).app()
    assert not was_kept(TestClient(app, base_url="https://testserver"), "/a", "POST", "/b")
    assert was_kept(TestClient(app, base_url="http://testserver"), "/a", "POST", "/b")


def test_the_client_cannot_choose_what_counts_as_the_origin() -> None:
    async def test() -> None:
        app = Resources(answering(201, location="http://example.com/a")).app()
        headers = [(b"host", b"example.com")]  # a second line
        assert not (await ask(app, "/a")).hit
        await ask(app, "/b", method="POST", headers=headers)
        assert (await ask(app, "/a")).hit

    run(test())


# ---- groups (RFC 9875) ----


def grouped(field: str) -> Response:
    return PlainTextResponse("x", headers={**FRESH, "cache-groups": field})


class Grouped(Resources):
    """Answers GET with the groups that the query names."""

    async def answer(self, request: Request) -> Response:
        if request.method == "GET":
            return grouped(request.query_params["groups"])
        return await super().answer(request)


@pytest.mark.parametrize("policy", MODES)
def test_an_unsafe_answer_invalidates_the_groups_that_it_names(policy: Policy) -> None:
    client = Grouped(answering(200, cache_group_invalidation='"x", "styles";why=1')).client(policy)
    assert not was_kept(client, '/a?groups="styles", "scripts"', "POST", "/b")
    assert was_kept(client, '/a?groups="scripts"', "POST", "/b")
    assert was_kept(client, '/a?groups="Styles"', "POST", "/b")
    assert was_kept(client, "/a?groups=styles", "POST", "/b"), "which is malformed"


@pytest.mark.parametrize("field", ["styles", '"styles', '"styles", 1', '("styles")'])
def test_malformed_groups_are_not_invalidated(field: str) -> None:
    client = Grouped(answering(200, cache_group_invalidation=field)).client()
    assert was_kept(client, '/a?groups="styles"', "POST", "/b")


@pytest.mark.parametrize("group", ["", "a b", "*", "a*", "*path:/a", "{x}", 'say \\"a\\"', "x" * 300, "user:7:%"])
def test_a_group_is_named_by_any_string(group: str) -> None:
    client = Grouped(answering(200, cache_group_invalidation=f'"{group}"')).client()
    other = client.get('/other?groups="y"')
    assert not was_kept(client, f'/a?groups="{group}"'.replace("%", "%25"), "POST", "/b")
    assert_miss(other)
    assert_hit(client.get('/other?groups="y"'))


def test_groups_are_the_tags_of_users() -> None:
    async def test() -> None:
        cache = TierCache()
        app = Grouped().app(cache=cache)
        asked = {"query": b"groups=%22video:42%22"}
        assert not (await ask(app, "/a", **asked)).hit
        reply = await ask(app, "/a", **asked)
        assert reply.hit
        assert (b"cache-groups", b'"video:42"') in reply.messages[0]["headers"]
        await cache.invalidate("video:42")
        assert not (await ask(app, "/a", **asked)).hit

    run(test())


def test_a_cached_answer_that_a_handler_reads_hands_on_its_groups() -> None:
    async def test() -> None:
        cache = TierCache()
        inner = Grouped().app(cache=cache)

        async def outer(_: Request) -> Response:
            await ask(inner, "/a", query=b"groups=%22g%22")
            return PlainTextResponse("outer")

        app = Starlette(
            routes=[Route("/", outer)], middleware=[Middleware(TierCacheMiddleware, cache=cache, default=EXPLICIT)]
        )
        assert not (await ask(app)).hit
        assert (await ask(app)).hit
        await cache.invalidate("g")
        assert not (await ask(app)).hit

    run(test())


def test_as_many_groups_are_stored_as_tags_and_no_more() -> None:
    client = Grouped().client(Policy(ttl=60, max_body=10_000))
    for number, detail in ((32, "stored"), (128, "stored"), (129, "too-many-tags")):
        names = ", ".join(f'"{index:032}"' for index in range(number))
        assert detail in client.get(f"/{number}?groups={names}").headers["cache-status"]


# ---- what it costs, and where it does not apply ----


def written(cache: TierCache) -> int:
    return len(cache.engine.invalidation.log.records)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("routes", "default", "purges"),
    [
        ({}, None, 0),
        ({"/a": None}, Policy.http(), 0),
        ({"/{name}": None}, EXPLICIT, 0),
        ({"/*": None}, EXPLICIT, 0),
        ({"/b": EXPLICIT}, None, 0),
        ({}, Policy.http(), 2),
        ({"/a": EXPLICIT}, None, 2),
        ({"/*": EXPLICIT}, None, 2),
        ({"/a": Policy(ttl=1, methods=["QUERY"], body=True)}, None, 2),
    ],
)
def test_nothing_is_sent_for_a_path_that_is_never_cached(
    routes: dict[str, Policy | None], default: Policy | None, purges: int
) -> None:
    cache, resources = TierCache(), Resources()
    methods = ["GET", "POST", "QUERY"]
    app = Starlette(
        routes=[Route("/{name}", resources.answer, methods=methods)],
        middleware=[Middleware(TierCacheMiddleware, cache=cache, routes=routes, default=default)],
    )
    assert TestClient(app).post("/a").status_code == 204
    assert written(cache) == purges


def test_a_route_that_only_writes_may_stand_where_an_error_is_cached() -> None:
    cache = TierCache()

    async def write(_: Request) -> Response:
        return Response(status_code=204)

    async def not_allowed(_: Request, __: Exception) -> Response:
        return PlainTextResponse("no such thing", 404, headers=FRESH)

    app = Starlette(
        routes=[Route("/a", write, methods=["POST"])],
        exception_handlers={405: not_allowed},
        middleware=[Middleware(TierCacheMiddleware, cache=cache)],
    )
    assert not was_kept(TestClient(app), "/a", "POST")


def test_a_mounted_app_that_shows_no_routes_is_taken_to_be_cached() -> None:
    resources = Resources()
    app = resources.app(routes=[Mount("/sub", app=Anything(resources).run)])
    assert not was_kept(TestClient(app), "/sub/a", "PUT")


def test_an_app_of_any_make_is_served() -> None:
    resources = Resources()
    app = TierCacheMiddleware(Anything(resources).run, cache=TierCache(), default=EXPLICIT)
    assert not was_kept(TestClient(app), "/a", "PUT")


def test_the_first_request_of_all_may_be_unsafe() -> None:
    client = Resources().client()
    assert client.put("/a").status_code == 204
    assert_miss(client.get("/a"))
    assert_hit(client.get("/a"))


def test_a_switched_off_cache_invalidates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")
    cache = TierCache()
    client = Resources(answering(201, location="/b", cache_group_invalidation='"g"')).client(cache=cache)
    assert client.post("/a").status_code == 201
    assert written(cache) == 0


def test_the_answer_is_passed_on_as_it_is() -> None:
    client = Resources(answering(201, location="/b", cache_group_invalidation='"g"', x_own="1")).client()
    response = client.post("/a", content=b"body")
    assert dict(response.headers) == {
        "location": "/b",
        "cache-group-invalidation": '"g"',
        "x-own": "1",
        "content-length": "0",
    }


def test_events_are_purged_besides() -> None:
    cache = TierCache()
    cache.on("edit", tags=["t"])

    @cache.emits("edit")
    async def write(request: Request) -> Response:
        return Response(status_code=204)

    app = Starlette(
        routes=[Route("/a", write, methods=["POST"])], middleware=[Middleware(TierCacheMiddleware, cache=cache)]
    )
    TestClient(app).post("/a")
    assert purges_of(cache) == 2
    assert cache.stats()["invalidations"]["durable"] == {"event": 2, "unsafe": 4}
    cache.close()


# ---- with Redis ----


@pytest.fixture
def workers(redis_server: RedisServer) -> Callable[[], TierCache]:
    namespace = uuid4().hex
    return lambda: TierCache.from_url(redis_server.url, namespace=namespace)


async def followed(cache: TierCache, other: TierCache) -> None:
    """Wait until `cache` knows what `other` knows."""
    async with asyncio.timeout(5):
        while cache.stamp() < other.stamp():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.005)


def test_other_workers_hear_of_it(workers: Callable[[], TierCache]) -> None:
    async def test() -> None:
        resources = Grouped(answering(200, cache_group_invalidation='"g", ""'))
        first, second = workers(), workers()
        one, two = resources.app(cache=first), resources.app(cache=second)
        async with first, second:
            for query in (b"groups=%22g%22", b"groups=%22%22", b"groups=%22h%22"):
                assert not (await ask(one, "/a", query=query)).hit
                assert not (await ask(one, "/b", query=query)).hit
            await ask(two, "/b", method="POST")
            await followed(first, second)
            assert not (await ask(one, "/a", query=b"groups=%22g%22")).hit
            assert not (await ask(one, "/a", query=b"groups=%22%22")).hit
            assert (await ask(one, "/a", query=b"groups=%22h%22")).hit
            assert not (await ask(one, "/b", query=b"groups=%22h%22")).hit

    run(test())


def test_a_redis_that_is_gone_fails_no_request_and_what_it_missed_holds_here(own_redis: RedisServer) -> None:
    async def test() -> None:
        cache = TierCache.from_url(own_redis.url)
        app = Resources().app(cache=cache)
        async with cache:
            await ask(app, "/a")
            assert (await ask(app, "/a")).hit
            own_redis.stop()
            async with asyncio.timeout(3):
                assert (await ask(app, "/a", method="PUT")).status == 204
            reply = await ask(app, "/a")
            assert (reply.hit, reply.body) == (False, b"version 2")

    run(test())
