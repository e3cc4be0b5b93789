"""FastAPI's own ways: dependencies, mounts, routers, questions in a body, beside conditions and ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.frameworks.apps import HTTP_MODES, Clocked, app_with, name_of

http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)
TEXT = "0123456789"


# ---- dependencies on every request ----


class Guarded:
    """A route that lets one key in, dependencies="always"; counts both parts."""

    def __init__(self, policy: Policy, *, judges: bool = False) -> None:
        self.clocked = Clocked()
        self.asked: list[str | None] = []
        self.calls = 0
        self.app = app_with(self.clocked.cache, routes={"/": policy})
        self._add(judges)
        self.client = TestClient(self.app)

    def _add(self, judges: bool) -> None:
        def guard(request: Request) -> None:
            self.asked.append(request.headers.get("x-key"))
            if self.asked[-1] != "good":
                raise HTTPException(401)

        @self.app.api_route("/", methods=["GET", "HEAD"], dependencies=[Depends(guard)])
        def handler() -> Response:
            self.calls += 1
            headers = {"Cache-Control": "public, max-age=60"} | ({"ETag": '"one"'} if judges else {})
            return Response(TEXT, media_type="text/plain", headers=headers)

    def get(self, key: str = "good", method: str = "GET", **headers: str) -> Any:
        """Ask with a key."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, "/", headers={"x-key": key, **names})


ALWAYS = [
    pytest.param(Policy(ttl=60, dependencies="always", etag=True), id="explicit"),
    pytest.param(Policy.http(dependencies="always", etag=True), id="http"),
    pytest.param(Policy.rfc9111(dependencies="always", etag=True), id="rfc9111"),
]


@pytest.mark.parametrize("policy", ALWAYS)
@pytest.mark.parametrize("judges", [True, False])
def test_with_dependencies_on_every_request_hits_answer_conditions_and_ranges(policy: Policy, judges: bool) -> None:
    guarded = Guarded(policy, judges=judges)
    assert_miss(guarded.get())
    whole = guarded.get()
    assert_hit(whole)
    tag = whole.headers["etag"]

    spared = guarded.get(if_none_match=tag)
    assert (spared.status_code, spared.content, spared.headers["etag"]) == (304, b"", tag)
    part = guarded.get(range="bytes=2-4")
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "234", "bytes 2-4/10")
    assert part.headers["content-length"] == "3"
    assert guarded.get(range="bytes=99-").status_code == 416
    resumed = guarded.get(range="bytes=2-4", if_range=tag)
    assert (resumed.status_code, resumed.text) == (206, "234")
    assert guarded.get(range="bytes=2-4", if_range='"other"').text == TEXT
    head = guarded.get(method="HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    assert (len(guarded.asked), guarded.calls) == (8, 1)


@pytest.mark.parametrize("policy", ALWAYS)
def test_whom_a_dependency_refuses_learns_nothing_by_conditions_and_ranges(policy: Policy) -> None:
    guarded = Guarded(policy)
    guarded.get()
    tag = guarded.get().headers["etag"]
    for headers in ({"if_none_match": tag}, {"if_none_match": "*"}, {"range": "bytes=0-1"}, {"range": "bytes=99-"}):
        for method in ("GET", "HEAD"):
            refused = guarded.get("bad", method, **headers)
            assert refused.status_code == 401
            assert tag not in refused.headers.values()
    assert guarded.calls == 1


@pytest.mark.parametrize("policy", ALWAYS)
@pytest.mark.parametrize("headers", [{"if_none_match": '"one"'}, {"range": "bytes=0-1"}, {"if_none_match": "*"}])
def test_a_first_request_with_a_condition_or_a_range_leaves_the_whole_for_the_others(
    policy: Policy, headers: dict[str, str]
) -> None:
    guarded = Guarded(policy, judges=True)
    first = guarded.get(**headers)
    assert first.status_code in ((304,) if "if_none_match" in headers else (200, 206))
    for _ in range(2):
        response = guarded.get()
        assert (response.status_code, response.text) == (200, TEXT)


@pytest.mark.parametrize("policy", ALWAYS)
def test_after_expiry_dependencies_and_handler_run_on_the_real_request(policy: Policy) -> None:
    guarded = Guarded(policy, judges=True)
    guarded.get()
    guarded.clocked.tick(61)
    assert guarded.get("bad").status_code == 401
    spared = guarded.get(if_none_match='"one"')
    assert (spared.status_code, spared.content) == (304, b"")
    assert guarded.get().text == TEXT


# ---- mounts and routers ----


@http_modes
@pytest.mark.parametrize("root_path", ["", "/proxied"])
@pytest.mark.parametrize("inner", ["above the mount", "in the mounted app"])
def test_a_write_below_a_mount_invalidates_what_was_read_there(policy: Policy, root_path: str, inner: str) -> None:
    cache, stored = TierCache(), {"1": "one", "2": "two"}
    layer: dict[str, Any] = {"cache": cache, "default": policy}
    app, mounted = FastAPI(), FastAPI()
    (app if inner == "above the mount" else mounted).add_middleware(TierCacheMiddleware, **layer)
    router = APIRouter(prefix="/items")

    @router.get("/{item}")
    def read(item: str, response: Response) -> str:
        response.headers["Cache-Control"] = "max-age=60"
        return stored[item]

    @router.put("/{item}", status_code=204)
    def write(item: str, text: str) -> None:
        stored[item] = text

    @router.post("", status_code=201)
    def create(text: str, response: Response) -> None:
        stored["3"] = text
        response.headers["Location"] = f"{root_path}/shop/v1/items/3"

    mounted.include_router(router, prefix="/v1")
    app.mount("/shop", mounted)
    with TestClient(app, root_path=root_path) as client:
        items = f"{root_path}/shop/v1/items"
        for item in "12":
            client.get(f"{items}/{item}")
            assert_hit(client.get(f"{items}/{item}"))
        client.put(f"{items}/1?text=new")
        changed = client.get(f"{items}/1")
        assert_miss(changed)
        assert changed.json() == "new"
        assert_hit(client.get(f"{items}/2"))

        stored["3"] = "old"
        assert client.get(f"{items}/3").json() == "old"
        client.post(f"{items}?text=created")
        assert client.get(f"{items}/3").json() == "created"


@http_modes
def test_a_validation_goes_through_mounts_and_routers(policy: Policy) -> None:
    clocked, asked = Clocked(), list[str | None]()
    app, mounted, router = app_with(clocked.cache, default=policy), FastAPI(), APIRouter(prefix="/items")

    @router.get("/{item}")
    def read(item: str, request: Request) -> Response:
        asked.append(request.headers.get("if-none-match"))
        headers = {"ETag": f'"{item}"', "Cache-Control": "max-age=60"}
        if asked[-1] == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(f"{request.url.path} {item}", headers=headers)

    mounted.include_router(router)
    app.mount("/shop", mounted)
    client = TestClient(app)
    for _ in range(3):
        assert client.get("/shop/items/1").text == "/shop/items/1 1"
        clocked.tick(61)
    assert asked == [None, '"1"', '"1"']


@http_modes
def test_a_304_about_something_else_is_followed_by_a_second_run_of_the_whole_route(policy: Policy) -> None:
    """Dependencies with `yield` are entered and left for each run."""
    clocked, steps, app = Clocked(), list[str](), FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=clocked.cache, default=policy)
    mounted = FastAPI()

    def session() -> Iterator[None]:
        steps.append("enter")
        yield
        steps.append("leave")

    @mounted.get("/{item}", dependencies=[Depends(session)])
    def read(item: str, request: Request) -> Response:
        if "if-none-match" in request.headers:
            return Response(status_code=304, headers={"ETag": '"other"'})
        return Response(item, headers={"ETag": '"one"', "Cache-Control": "max-age=60"})

    app.mount("/shop", mounted)
    client = TestClient(app)
    client.get("/shop/x")
    clocked.tick(61)
    response = client.get("/shop/x")
    assert (response.status_code, response.text) == (200, "x")
    assert steps == ["enter", "leave"] * 3


# ---- HEAD ----


@pytest.mark.parametrize(("policy", "last"), [(Policy.http(), "two"), (Policy.rfc9111(), "one")])
@pytest.mark.parametrize("tagged", [True, False])
def test_without_a_validator_only_the_exact_mode_takes_a_head_for_an_update(
    policy: Policy, last: str, tagged: bool
) -> None:
    """Monitoring that asks HEAD every minute would otherwise keep what has expired for ever."""
    clocked, text = Clocked(), ["one"]
    app = app_with(clocked.cache, default=policy)

    @app.api_route("/", methods=["GET", "HEAD"])
    def read() -> Response:
        headers = {"Cache-Control": "max-age=60"} | ({"ETag": f'"{text[0]}"'} if tagged else {})
        return Response(text[0], headers=headers)

    client = TestClient(app)
    client.get("/")
    clocked.tick(61)
    text[0] = "two"
    client.head("/")
    assert client.get("/").text == ("two" if tagged else last)


# ---- what commits late ----


@http_modes
@pytest.mark.parametrize("validated", [False, True])
def test_a_commit_after_the_response_is_seen_by_whoever_asks_next(policy: Policy, validated: bool) -> None:
    """FastAPI leaves a dependency with `yield` once the response is sent; what was read in between is purged, too."""
    clocked, database = Clocked(), {"text": "old"}
    app = app_with(clocked.cache, default=policy)
    between, pending = list[str](), dict[str, str]()

    def transaction() -> Iterator[None]:
        yield
        # Somebody reads before the commit, and has that cached.
        between.append(TestClient(app).get("/article").text)
        database.update(pending)

    @app.get("/article")
    def read(request: Request) -> Response:
        headers = {"ETag": f'"{database["text"]}"', "Cache-Control": "max-age=60"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(database["text"], headers=headers)

    @app.put("/article", status_code=204, dependencies=[Depends(transaction)])
    def write(text: str) -> None:
        pending["text"] = text

    client = TestClient(app)
    assert client.get("/article").text == "old"
    if validated:
        clocked.tick(61)
    client.put("/article?text=new")
    assert between == ["old"]
    assert client.get("/article").text == "new"


# ---- marked endpoints ----


def test_a_marked_endpoint_has_its_answers_tagged_for_it() -> None:
    clocked, calls = Clocked(), list[int]()
    app = app_with(clocked.cache)

    @app.get("/items/{item}")
    @clocked.cache.response(ttl=60, etag=True, retention=600)
    def read(item: int) -> dict[str, int]:
        calls.append(item)
        return {"item": item}

    client = TestClient(app)
    first, again = client.get("/items/1"), client.get("/items/1")
    assert_hit(again)
    tag = again.headers["etag"]
    assert tag.startswith('"')
    assert client.get("/items/1", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/items/2", headers={"if-none-match": tag}).json() == {"item": 2}
    part = client.get("/items/1", headers={"range": "bytes=0-3", "if-range": tag})
    assert (part.status_code, part.text) == (206, first.text[:4])

    clocked.tick(61)  # our tag means nothing to the handler: it makes the answer anew, and the tag is the same
    anew = client.get("/items/1", headers={"if-none-match": tag})
    assert (anew.status_code, calls) in ((304, [1, 2, 1]), (200, [1, 2, 1]))
    assert client.get("/items/1").headers["etag"] == tag


def test_a_marked_endpoint_with_retention_is_validated_instead_of_made() -> None:
    clocked, made = Clocked(), list[int]()
    app = app_with(clocked.cache)

    @app.get("/items/{item}")
    @clocked.cache.response(ttl=60, retention=600)
    async def read(item: int, request: Request) -> Response:
        if request.headers.get("if-none-match") == f'"{item}"':
            return Response(status_code=304, headers={"ETag": f'"{item}"'})
        made.append(item)
        return Response(str(item), headers={"ETag": f'"{item}"'})

    client = TestClient(app)
    for _ in range(3):
        assert client.get("/items/1").text == "1"
        assert_hit(client.get("/items/1"))
        clocked.tick(61)
    clocked.tick(600)
    assert client.get("/items/1").text == "1"
    assert made == [1, 1]


class Search(BaseModel):
    """What is searched."""

    text: str
    page: int = 1


@pytest.mark.parametrize("method", ["POST", "QUERY"])
def test_a_search_with_a_model_for_its_body_is_a_question(method: str) -> None:
    cache, calls = TierCache(), list[str]()
    app = app_with(cache)

    @app.api_route("/search", methods=[method])
    @cache.response(ttl=60, methods=[method], body=True, etag=True, tags=["search"])
    def search(asked: Search) -> dict[str, object]:
        calls.append(asked.text)
        return {"found": asked.text, "page": asked.page}

    @app.get("/purge")
    async def purge() -> None:
        await cache.invalidate("search")

    with TestClient(app) as client:
        for _ in range(2):
            one = client.request(method, "/search", json={"text": "one"})
            two = client.request(method, "/search", json={"text": "one", "page": 2})
            assert (one.json(), two.json()) == ({"found": "one", "page": 1}, {"found": "one", "page": 2})
        assert_hit(one)
        assert_hit(two)
        wrong = client.request(method, "/search", json={"page": 3})
        assert wrong.status_code == 422
        assert client.request(method, "/search", json={"page": 3}).status_code == 422
        assert calls == ["one", "one"]
        client.get("/purge")
        assert_miss(client.request(method, "/search", json={"text": "one"}))
        tagged = client.request(method, "/search", json={"text": "one"})
        assert_hit(tagged)
        assert tagged.headers["etag"]


def test_get_and_post_of_one_endpoint_are_looked_up_each_for_itself() -> None:
    cache, calls = TierCache(), list[str]()
    app = app_with(cache)

    @app.api_route("/search", methods=["GET", "POST"])
    @cache.response(ttl=60, methods=["GET", "POST"], body=True)
    async def search(request: Request) -> str:
        calls.append(request.method)
        return request.method + (await request.body()).decode()

    client = TestClient(app)
    for _ in range(2):
        assert client.get("/search").json() == "GET"
        assert client.post("/search", content="a").json() == "POSTa"
        assert client.post("/search", content="b").json() == "POSTb"
    assert calls == ["GET", "POST", "POST"]
