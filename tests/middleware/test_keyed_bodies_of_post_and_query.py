"""POST and QUERY as questions: a policy with `methods=` and `body=True` looks them up by what their bodies say."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until
from tests.servers import RedisServer

POSTS = Policy(ttl=60, methods=("POST",), body=True)
QUERIES = Policy(ttl=60, methods="query", body=True)
BOTH = Policy(ttl=60, methods=["GET", "QUERY", "POST"], body=True)


class Search:
    """Answers with its method, its body and how often it was asked."""

    def __init__(self, **headers: str) -> None:
        self.requests: list[Request] = []
        self._headers = headers

    async def answer(self, request: Request) -> Response:
        """The endpoint."""
        self.requests.append(request)
        body = (await request.body()).decode()
        return PlainTextResponse(f"{request.method} {body[:20]} {len(self.requests)}", headers=self._headers)


def app_of(
    policy: Policy | None, *, search: Search | None = None, cache: TierCache | None = None, path: str = "/search"
) -> Starlette:
    search = search or Search()

    async def endpoint(request: Request) -> Response:
        return await search.answer(request)

    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), routes={path: policy})
    methods = ["GET", "POST", "QUERY", "PUT", "DELETE"]
    return Starlette(routes=[Route("/search", endpoint, methods=methods)], middleware=[ours])


def client_of(policy: Policy | None, **options: Any) -> TestClient:
    return TestClient(app_of(policy, **options))


# ---- the option ----


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["POST"]}, "methods: POST needs body=True"),
        ({"methods": ["GET", "QUERY"]}, "methods: QUERY needs body=True"),
        ({"methods": ["HEAD"]}, "methods: must be among GET, POST, QUERY, not 'HEAD'; HEAD goes with GET"),
        ({"methods": ["PUT"], "body": True}, "methods: must be among"),
        ({"methods": [], "body": True}, "methods: must name one at least"),
        ({"methods": 7}, "methods: must hold texts"),
    ],
)
def test_a_wrong_choice_of_methods_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match="methods") as error:
        Policy(ttl=1, **options)
    assert says in str(error.value)
    assert error.value.option == "methods"


def test_methods_are_written_in_any_case_and_head_goes_with_get() -> None:
    assert Policy(ttl=1).methods == ("GET",)
    assert Policy(ttl=1, methods=["query", "GET", "Query"], body=True).methods == ("QUERY", "GET")
    assert Policy(ttl=1).caches("HEAD")
    assert not POSTS.caches("HEAD")


def test_it_says_nothing_to_functions() -> None:
    with pytest.raises(ConfigError, match="methods: is about requests"):
        TierCache().cached("f", POSTS)(lambda: 1)


# ---- looking up ----


@pytest.mark.parametrize(("method", "policy"), [("POST", POSTS), ("QUERY", QUERIES), ("POST", BOTH), ("QUERY", BOTH)])
def test_the_same_question_is_answered_from_the_cache(method: str, policy: Policy) -> None:
    client = client_of(policy)
    first = client.request(method, "/search", content=b"shoes")
    assert_miss(first, stored=True)
    again = client.request(method, "/search", content=b"shoes")
    assert_hit(again)
    assert again.text == first.text == f"{method} shoes 1"


def test_another_body_content_type_coding_query_or_method_is_another_question() -> None:
    client = client_of(BOTH)
    plain = {"content-type": "text/plain"}
    asked = [
        ("POST", "/search", b"shoes", {}),
        ("POST", "/search", b"Shoes", {}),
        ("POST", "/search", b"", {}),
        ("POST", "/search", b"shoes", plain),
        ("POST", "/search", b"shoes", {**plain, "content-encoding": "gzip"}),
        ("POST", "/search?page=2", b"shoes", {}),
        ("QUERY", "/search", b"shoes", {}),
        ("GET", "/search", b"shoes", {}),
        ("GET", "/search", b"", {}),
    ]
    for hit in (False, True):
        for number, (method, path, body, headers) in enumerate(asked, 1):
            response = client.request(method, path, content=body, headers=headers)
            assert ("hit" in response.headers["cache-status"]) is hit
            assert response.text == f"{method} {body.decode()} {number}"


def test_the_body_may_come_in_parts() -> None:
    async def test() -> None:
        search = Search()
        app = app_of(POSTS, search=search)
        messages = [
            {"type": "http.request", "body": b"sh", "more_body": True},
            {"type": "http.request", "body": b"oes", "more_body": False},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(http_scope("/search", method="POST"), receive, send)
        assert (await ask(app, "/search", method="POST", body=b"shoes")).hit

    run(test())


def test_those_who_ask_the_same_at_a_time_share_one_answer() -> None:
    async def test() -> None:
        opened, calls = asyncio.Event(), 0

        async def endpoint(_: Request) -> Response:
            nonlocal calls
            calls += 1
            await opened.wait()
            return PlainTextResponse("x")

        ours = Middleware(TierCacheMiddleware, cache=TierCache(), default=POSTS)
        app = Starlette(routes=[Route("/", endpoint, methods=["POST"])], middleware=[ours])
        asking = [Exchange(app, http_scope("/", method="POST"), body=b"shoes") for _ in range(5)]
        await until(lambda: calls > 0)
        opened.set()
        assert {(await each.reply()).body for each in asking} == {b"x"}
        assert calls == 1

    run(test())


def test_bodies_above_the_limit_pass_by_whole() -> None:
    search = Search()
    client = client_of(POSTS.but(max_body=100), search=search)
    for _ in range(2):
        response = client.post("/search", content=b"x" * 101)
        assert response.headers["cache-status"] == "tiercache; fwd=bypass; detail=body"
        assert len(asyncio.run(search.requests[-1].body())) == 101
    for _ in range(2):
        response = client.post("/search", content=b"x" * 100)
    assert_hit(response)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("if-none-match", "conditional"),
        ("if-modified-since", "conditional"),
        ("if-match", "conditional"),
        ("range", "range"),
    ],
)
def test_conditions_and_ranges_are_the_handlers_to_judge(name: str, detail: str) -> None:
    search = Search(etag='"x"')
    client = client_of(POSTS, search=search)
    client.post("/search", content=b"shoes")
    value = {"if-none-match": '"x"', "range": "bytes=0-1"}.get(name, "x")
    response = client.post("/search", content=b"shoes", headers={name: value})
    assert response.status_code == 200
    assert response.text == "POST shoes 2"
    assert response.headers["cache-status"] == f"tiercache; fwd=bypass; detail={detail}"
    assert search.requests[-1].headers[name] == value
    assert_hit(client.post("/search", content=b"shoes"))


def test_credentials_pass_by_and_what_is_not_keyed_is_withheld() -> None:
    search = Search()
    client = client_of(POSTS, search=search)
    response = client.post("/search", content=b"shoes", headers={"authorization": "Bearer x"})
    assert response.headers["cache-status"] == "tiercache; fwd=bypass; detail=authorization"
    client.post("/search", content=b"shoes", headers={"x-own": "1", "content-type": "text/plain"})
    assert "x-own" not in search.requests[-1].headers
    assert search.requests[-1].headers["content-type"] == "text/plain"


def test_in_http_mode_the_response_has_to_say_so() -> None:
    policy = Policy.http(methods=["QUERY"], body=True)
    for headers, hit in (({}, False), ({"cache-control": "max-age=60"}, True)):
        client = client_of(policy, search=Search(**headers))
        for _ in range(8):
            response = client.request("QUERY", "/search", content=b"shoes")
        assert ("hit" in response.headers["cache-status"]) is hit
        assert "QUERY shoes" in response.text


@pytest.mark.parametrize("body", [b"", b"shoes"])
def test_a_question_whose_answer_is_never_stored_still_gets_its_body(body: bytes) -> None:
    client = client_of(POSTS, search=Search(**{"cache-control": "no-store"}))
    for number in range(1, 5):
        assert client.post("/search", content=body).text == f"POST {body.decode()} {number}"


# ---- it is no unsafe request ----


def test_a_post_that_is_a_question_invalidates_nothing() -> None:
    headers = {"location": "/search", "content-location": "/search", "cache-group-invalidation": '"g"'}
    client = client_of(BOTH, search=Search(**headers, **{"cache-groups": '"g"'}))
    client.get("/search")
    for body in (b"shoes", b"socks", b"x" * 2_000_000):
        client.post("/search", content=body)
        client.post("/search", content=body, headers={"authorization": "x"})
    assert_hit(client.get("/search"))
    assert_hit(client.post("/search", content=b"shoes"))


@pytest.mark.parametrize("policy", [Policy(ttl=60), QUERIES, Policy.http(), None])
def test_without_methods_a_post_passes_untouched(policy: Policy | None) -> None:
    client = client_of(policy)
    for number in (1, 2):
        response = client.post("/search", content=b"shoes")
        assert response.text == f"POST shoes {number}"
        assert "cache-status" not in response.headers


@pytest.mark.parametrize("policy", [Policy(ttl=60), POSTS, Policy.http(), None])
def test_without_methods_a_query_passes_untouched_and_changes_nothing(policy: Policy | None) -> None:
    client = client_of(policy, search=Search(**{"cache-control": "max-age=60"}))
    client.get("/search")
    was = client.get("/search").headers.get("cache-status")
    response = client.request("QUERY", "/search", content=b"shoes")
    assert "cache-status" not in response.headers
    assert client.get("/search").headers.get("cache-status") == was


def test_a_policy_for_post_says_nothing_of_get() -> None:
    client = client_of(POSTS, search=Search(**{"cache-control": "max-age=60"}))
    assert_miss(client.get("/search"))
    assert_hit(client.get("/search"))
    without = TestClient(
        Starlette(
            routes=[Route("/search", Search().answer, methods=["GET"])],
            middleware=[Middleware(TierCacheMiddleware, cache=TierCache(), default=POSTS)],
        )
    )
    for _ in range(2):
        assert "cache-status" not in without.get("/search").headers


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_the_answers_go_with_a_change_of_their_path(method: str) -> None:
    client = client_of(POSTS)
    client.post("/search", content=b"shoes")
    assert_hit(client.post("/search", content=b"shoes"))
    client.request(method, "/search")
    assert_miss(client.post("/search", content=b"shoes"))


def test_answers_are_invalidated_by_tag_and_route_like_others(redis_server: RedisServer) -> None:
    async def test() -> None:
        for cache in (TierCache(), TierCache.from_url(redis_server.url, namespace="keyed-bodies")):
            async with cache:
                app = app_of(POSTS.but(tags=["search"]), cache=cache)
                for invalidate in (cache.invalidate("search"), cache.invalidate_route("/search")):
                    for hit in (False, True):
                        assert (await ask(app, "/search", method="POST", body=b"x")).hit is hit
                    await invalidate
                assert not (await ask(app, "/search", method="POST", body=b"x")).hit
                await cache.clear()

    run(test())


def test_a_stale_answer_is_made_anew_behind_the_back() -> None:
    async def test() -> None:
        cache, search = TierCache(), Search()
        app = app_of(POSTS.but(tags=["search"]), cache=cache, search=search)
        await ask(app, "/search", method="POST", body=b"shoes")
        await cache.invalidate("search", soft=True)
        assert (await ask(app, "/search", method="POST", body=b"shoes")).body == b"POST shoes 1"
        await until(lambda: len(search.requests) == 2)
        await turns()
        reply = await ask(app, "/search", method="POST", body=b"shoes")
        assert (reply.hit, reply.body) == (True, b"POST shoes 2")

    run(test())


# ---- which route ----


def test_the_route_of_the_requests_own_method_is_chosen() -> None:
    cache = TierCache()
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache, default=None)
    calls: list[str] = []

    @app.get("/search")
    async def form() -> str:
        calls.append("form")
        return "form"

    @app.post("/search")
    @cache.response(ttl=60, methods=["POST"], body=True, tags=["search:{scope}"])
    async def search(terms: dict[str, str], scope: str = "all") -> dict[str, str]:
        calls.append("search")
        return terms

    with TestClient(app) as client:
        for _ in range(2):
            assert client.post("/search?scope=x", json={"q": "shoes"}).json() == {"q": "shoes"}
            assert client.get("/search").json() == "form"
        assert calls == ["search", "form", "form"]
        assert_hit(client.post("/search?scope=x", json={"q": "shoes"}))
        cache_again = client.post("/search?scope=x", json={"q": "socks"})
        assert_miss(cache_again, stored=True)


def test_two_routes_of_one_path_have_policies_of_their_own() -> None:
    cache = TierCache()
    reads, asks = Search(), Search()

    @cache.response(ttl=60, methods=["POST"], body=True)
    async def post(request: Request) -> Response:
        return await asks.answer(request)

    async def get(request: Request) -> Response:
        return await reads.answer(request)

    app = Starlette(
        routes=[Route("/{name}", get), Route("/{name}", post, methods=["POST"])],
        middleware=[Middleware(TierCacheMiddleware, cache=cache, default=None, routes={"/{name}": Policy(ttl=60)})],
    )
    with TestClient(app) as client:
        for _ in range(2):
            client.get("/a")
            client.post("/a", content=b"x")
        assert (len(reads.requests), len(asks.requests)) == (1, 1)


@pytest.mark.parametrize("key", ["/search", "/{name}", "/*", ""])
def test_keys_of_every_kind_and_the_default_may_name_methods(key: str) -> None:
    search = Search()

    async def endpoint(request: Request) -> Response:
        return await search.answer(request)

    for below in (False, True):
        route = Route("/{name}", endpoint, methods=["POST"])
        routes: list[Any] = [Mount("/", routes=[route])] if below else [route]
        middleware = Middleware(
            TierCacheMiddleware,
            cache=TierCache(),
            routes={key: POSTS} if key else {},
            default=Policy(ttl=60) if key else POSTS,
        )
        client = TestClient(Starlette(routes=routes, middleware=[middleware]))
        assert_miss(client.post("/search", content=b"x"), stored=True)
        assert_hit(client.post("/search", content=b"x"))


def test_an_app_that_shows_no_routes_is_judged_by_path_and_method() -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse((await Request(scope, receive).body()).decode())(scope, receive, send)

    app = TierCacheMiddleware(plain, cache=TierCache(), routes={"/{name}": POSTS}, default=None)
    client = TestClient(app)
    client.post("/a", content=b"x")
    assert_hit(client.post("/a", content=b"x"))
    assert "cache-status" not in client.get("/a").headers


def test_a_policy_on_an_endpoint_whose_method_it_does_not_cache_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    cache = TierCache()

    @cache.response(ttl=60)
    async def search(_: Request) -> Response:
        return PlainTextResponse("x")

    def start(*methods: list[str]) -> str:
        caplog.clear()
        routes = [Route("/search", search, methods=each) for each in methods]
        app = Starlette(routes=routes, middleware=[Middleware(TierCacheMiddleware, cache=cache)])
        with caplog.at_level(logging.WARNING), TestClient(app):
            return caplog.text

    text = start(["POST"])
    assert "the policy of route /search has no effect: it caches GET, and the route answers POST" in text
    assert "add methods=['POST'] and body=True" in text
    assert start(["POST"], ["GET"]) == start(["GET", "POST"]) == ""


def test_a_key_whose_methods_no_route_answers_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(
        routes=[Route("/search", Search().answer, methods=["GET"])],
        middleware=[Middleware(TierCacheMiddleware, cache=TierCache(), routes={"/search": POSTS})],
    )
    with caplog.at_level(logging.WARNING), TestClient(app):
        assert "routes['/search'] has no effect: no route of the app answers POST there" in caplog.text


def test_what_a_route_reads_is_checked_for_post_too() -> None:
    cache, app = TierCache(), FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)
    key = Depends(APIKeyHeader(name="x-api-key"))

    @app.post("/search")
    @cache.response(ttl=60, methods=["POST"], body=True)
    async def search(terms: dict[str, str], key: str = key) -> None: ...

    with pytest.raises(ConfigError, match="x-api-key"), TestClient(app):
        pass


def test_dependencies_that_run_on_every_request_see_the_body_too() -> None:
    cache, app = TierCache(), FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)
    calls: list[str] = []

    def check(key: Annotated[str, Depends(APIKeyHeader(name="x-api-key"))]) -> None:
        if key != "secret":
            raise HTTPException(403)

    @app.post("/search", dependencies=[Depends(check)])
    @cache.response(ttl=60, methods=["POST"], body=True, dependencies="always")
    async def search(terms: dict[str, str]) -> dict[str, str]:
        calls.append(terms["q"])
        return terms

    with TestClient(app) as client:
        for _ in range(3):
            answer = client.post("/search", json={"q": "shoes"}, headers={"x-api-key": "secret"})
            assert answer.json() == {"q": "shoes"}
        assert_hit(answer)
        assert client.post("/search", json={"q": "shoes"}, headers={"x-api-key": "wrong"}).status_code == 403
        assert calls == ["shoes"]
