"""A handler that sets the fields of HTTP needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import pytest
from fastapi import FastAPI, Header, Response
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.frameworks.apps import HTTP_MODES, Clocked, app_with, at, name_of

both_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)
Condition = Annotated[str | None, Header()]
Routes = Callable[[FastAPI, list[int], str], None]


def _by_parameter(app: FastAPI, calls: list[int], cache_control: str) -> None:
    @app.get("/")
    async def handler(response: Response) -> dict[str, int]:
        response.headers["cache-control"] = cache_control
        calls.append(1)
        return {"call": len(calls)}


def _by_parameter_in_a_thread(app: FastAPI, calls: list[int], cache_control: str) -> None:
    @app.get("/")
    def handler(response: Response) -> dict[str, int]:
        response.headers["cache-control"] = cache_control
        calls.append(1)
        return {"call": len(calls)}


def _by_returned_response(app: FastAPI, calls: list[int], cache_control: str) -> None:
    @app.get("/")
    async def handler() -> Response:
        calls.append(1)
        response = Response(f'{{"call":{len(calls)}}}', media_type="application/json")
        response.headers["Cache-Control"] = cache_control
        return response


def _by_headers_of_json(app: FastAPI, calls: list[int], cache_control: str) -> None:
    @app.get("/")
    async def handler() -> JSONResponse:
        calls.append(1)
        return JSONResponse({"call": len(calls)}, headers={"Cache-Control": cache_control})


@both_modes
@pytest.mark.parametrize(
    "routes", [_by_parameter, _by_parameter_in_a_thread, _by_returned_response, _by_headers_of_json]
)
def test_cache_control_is_enough_however_it_is_set(policy: Policy, routes: Routes) -> None:
    clocked, calls = Clocked(), list[int]()
    app = app_with(clocked.cache, default=policy)
    routes(app, calls, "max-age=60")
    client = TestClient(app)

    assert_miss(client.get("/"), stored=True)
    clocked.tick(59)
    again = client.get("/")
    assert_hit(again, "L1")
    assert (again.json(), again.headers["age"], again.headers["cache-control"]) == ({"call": 1}, "59", "max-age=60")
    clocked.tick(2)
    assert_miss(client.get("/"), stored=True)
    assert len(calls) == 2


@both_modes
@pytest.mark.parametrize("routes", [_by_parameter, _by_returned_response, _by_headers_of_json])
@pytest.mark.parametrize("cache_control", ["no-store", "private, max-age=60"])
def test_what_it_forbids_is_not_stored(policy: Policy, routes: Routes, cache_control: str) -> None:
    calls = list[int]()
    app = app_with(default=policy)
    routes(app, calls, cache_control)
    client = TestClient(app)
    for call in range(1, 7):
        response = client.get("/")
        assert_miss(response, stored=False)
        assert response.json() == {"call": call}


@both_modes
@pytest.mark.parametrize(
    ("name", "value"),
    [("CDN-Cache-Control", "max-age=60"), ("Expires", at(1_700_000_060)), ("Cache-Control", "s-maxage=60")],
)
def test_other_fields_that_give_a_lifetime_are_enough(policy: Policy, name: str, value: str) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy)

    @app.get("/")
    async def handler(response: Response) -> str:
        response.headers[name] = value
        return "text"

    client = TestClient(app)
    assert_miss(client.get("/"), stored=True)
    clocked.tick(59)
    assert_hit(client.get("/"), "L1")
    clocked.tick(2)
    assert_miss(client.get("/"))


@both_modes
def test_a_targeted_field_leaves_browsers_their_own(policy: Policy) -> None:
    app = app_with(default=policy)

    @app.get("/")
    async def handler(response: Response) -> str:
        response.headers["CDN-Cache-Control"] = "max-age=60"
        response.headers["Cache-Control"] = "no-cache"
        return "text"

    client = TestClient(app)
    client.get("/")
    response = client.get("/")
    assert_hit(response)
    assert response.headers["cache-control"] == "no-cache"


@both_modes
def test_groups_are_tags_without_a_word_to_the_cache(policy: Policy) -> None:
    """The groups of what is stored anyway, named again by an unsafe method."""
    calls = list[str]()
    app = app_with(default=policy)

    @app.get("/articles/{number}")
    async def article(number: int, response: Response) -> str:
        calls.append(str(number))
        response.headers["Cache-Control"] = "max-age=60"
        response.headers["Cache-Groups"] = f'"articles", "article-{number}"'
        return f"article {number}"

    @app.post("/import", status_code=204)
    async def load(group: str, response: Response) -> None:
        response.headers["Cache-Group-Invalidation"] = f'"{group}"'

    client = TestClient(app)
    for _ in range(2):
        assert [client.get(f"/articles/{number}").status_code for number in (1, 2)] == [200, 200]
    client.post("/import?group=article-1")
    assert_miss(client.get("/articles/1"))
    assert_hit(client.get("/articles/2"))
    client.post("/import?group=articles")
    assert_miss(client.get("/articles/2"))
    assert calls == ["1", "2", "1", "2"]


@both_modes
def test_groups_are_invalidated_in_code_as_well(policy: Policy) -> None:
    cache = TierCache()
    app = app_with(cache, default=policy)

    @app.get("/")
    async def handler(response: Response) -> str:
        response.headers["Cache-Control"] = "max-age=60"
        response.headers["Cache-Groups"] = '"articles"'
        return "text"

    @app.get("/purge")
    async def purge() -> tuple[str, ...]:
        return (await cache.invalidate("articles")).names

    with TestClient(app) as client:
        client.get("/")
        assert_hit(client.get("/"))
        assert client.get("/purge").json() == ["articles"]
        assert_miss(client.get("/"))


@both_modes
def test_groups_alone_give_no_lifetime(policy: Policy) -> None:
    app = app_with(default=policy)

    @app.get("/")
    async def handler(response: Response) -> str:
        response.headers["Cache-Groups"] = '"articles"'
        return "text"

    client = TestClient(app)
    for _ in range(6):
        assert_miss(client.get("/"), stored=False)


@both_modes
def test_a_tag_with_no_cache_is_stored_and_validated_at_each_use(policy: Policy) -> None:
    """A handler that judges the condition itself saves making the body; the client notices nothing."""
    made, asked = list[str](), list[str | None]()
    version = ["one"]
    app = app_with(default=policy)

    @app.get("/")
    async def handler(if_none_match: Condition = None) -> Response:
        headers = {"ETag": f'"{version[0]}"', "Cache-Control": "no-cache"}
        asked.append(if_none_match)
        if if_none_match == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        made.append(version[0])
        return Response(version[0], headers=headers)

    client = TestClient(app)
    for _ in range(8):
        response = client.get("/")
        assert (response.status_code, response.text) == (200, "one")
    assert "fwd-status=304" in response.headers["cache-status"]
    version[0] = "two"
    assert [client.get("/").text for _ in range(3)] == ["two"] * 3
    assert made == ["one", "two"]
    assert asked == [None, *['"one"'] * 8, *['"two"'] * 2]


@both_modes
def test_a_tag_alone_leaves_every_answer_to_the_handler_by_default(policy: Policy) -> None:
    """Under `Policy.http()`. By the RFC it is stored to be validated, though it states no lifetime."""
    made = list[int]()
    app = app_with(default=policy)

    @app.get("/")
    async def handler(if_none_match: Condition = None) -> Response:
        if if_none_match == '"one"':
            return Response(status_code=304, headers={"ETag": '"one"'})
        made.append(1)
        return Response("one", headers={"ETag": '"one"'})

    client = TestClient(app)
    assert [client.get("/").text for _ in range(8)] == ["one"] * 8
    assert len(made) == (8 if policy.mode == "http" else 1)
    told = client.get("/", headers={"if-none-match": '"one"'})
    assert (told.status_code, told.content) == (304, b"")


def test_a_route_with_a_policy_of_its_own_need_not_say_anything() -> None:
    app = app_with(routes={"/": Policy(ttl=60)})

    @app.get("/")
    async def handler() -> str:
        return "text"

    client = TestClient(app)
    client.get("/")
    assert_hit(client.get("/"))
