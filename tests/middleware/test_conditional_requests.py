"""Conditional requests, which no fill is told of, are answered from what is stored or was just made."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run, turns, until

TAGGED = {"etag": '"one"', "cache-control": "max-age=60"}
ASKED = {"if-none-match": '"one"'}


def tagged(_: Request) -> PlainTextResponse:
    return PlainTextResponse("text", headers=TAGGED)


@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy.http()])
def test_a_hit_answers_a_condition_that_it_meets(policy: Policy) -> None:
    handler = Handler(tagged)
    client = TestClient(app_of(handler, policy))
    client.get("/")
    response = client.get("/", headers=ASKED)
    assert_hit(response, "L1")
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"one"')
    assert "content-length" not in response.headers
    assert client.get("/", headers={"if-none-match": '"two"'}).text == "text"
    assert handler.calls == 1


@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy.http()])
def test_a_miss_does_too_and_stores_the_whole_response(policy: Policy) -> None:
    handler = Handler(tagged)
    client = TestClient(app_of(handler, policy))
    response = client.get("/", headers=ASKED)
    assert (response.status_code, response.content) == (304, b"")
    assert client.get("/").text == "text"
    assert handler.calls == 1


def test_head_meets_conditions_as_get_does() -> None:
    client = TestClient(app_of(Handler(tagged), Policy(ttl=60)))
    client.get("/")
    assert client.head("/", headers=ASKED).status_code == 304


def test_who_follows_a_fill_has_a_condition_of_its_own() -> None:
    go_on = asyncio.Event()

    async def respond(_: Request) -> PlainTextResponse:
        await go_on.wait()
        return PlainTextResponse("text", headers=TAGGED)

    handler = Handler(respond)
    app = app_of(handler, Policy(ttl=60))

    async def test() -> None:
        leader = asyncio.create_task(ask(app, headers=[(b"if-none-match", b'"one"')]))
        await until(lambda: handler.calls == 1)
        follower = asyncio.create_task(ask(app))
        await turns()
        go_on.set()
        assert (await leader).status == 304
        assert (await follower).body == b"text"
        assert handler.calls == 1

    run(test())
