"""A handler that answers 304 itself, with the cache above: who did not ask never receives one, who is due one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.testclient import TestClient

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit
from tests.frameworks.apps import ALL_MODES, HTTP_MODES, Clocked, app_with, at, name_of
from tests.middleware.asgi import run, turns, until

KEPT = Policy(ttl=60, retention=3600)
"""An explicit policy that keeps what it can validate."""
all_modes = pytest.mark.parametrize("policy", [*ALL_MODES, KEPT], ids=["http", "rfc9111", "explicit", "explicit-kept"])
validating = pytest.mark.parametrize("policy", [*HTTP_MODES, KEPT], ids=name_of)
http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)

DATE = at(1_699_999_000)


class Article:
    """A handler with a version, judged by the tag or date that a request brings."""

    def __init__(self, *, cache_control: str = "max-age=60", by_date: bool = False) -> None:
        self.version = "one"
        self.modified = DATE
        self.made = 0
        """How often it had to make the content."""
        self.asked: list[str | None] = []
        """The condition that each request came with."""
        self._cache_control = cache_control
        self._by_date = by_date

    def serve(self, app: FastAPI) -> None:
        """Put it at `/`."""

        @app.get("/")
        async def article(request: Request) -> Response:
            return self.answer(request)

    def answer(self, request: Request) -> Response:
        """As an endpoint would."""
        name = "if-modified-since" if self._by_date else "if-none-match"
        own = self.modified if self._by_date else f'"{self.version}"'
        field = "Last-Modified" if self._by_date else "ETag"
        headers = {field: own, "Cache-Control": self._cache_control}
        asked = request.headers.get(name)
        self.asked.append(asked)
        if (asked is not None and own in asked.split(", ")) or (self._by_date and asked == own):
            return Response(status_code=304, headers=headers)
        self.made += 1
        return Response(self.version, media_type="text/plain", headers=headers)


def _client(article: Article, policy: Policy, clocked: Clocked | None = None) -> TestClient:
    app = app_with((clocked or Clocked()).cache, default=policy)
    article.serve(app)
    return TestClient(app)


class _Response(Protocol):
    """One of the test client's, or of httpx."""

    @property
    def status_code(self) -> int: ...

    @property
    def text(self) -> str: ...


def _told(response: _Response) -> tuple[int, str]:
    return response.status_code, response.text


FULL, SPARED = (200, "one"), (304, "")


@all_modes
def test_the_first_client_has_a_condition_that_is_met(policy: Policy) -> None:
    article = Article()
    client = _client(article, policy)
    first = client.get("/", headers={"if-none-match": '"one"'})
    assert (*_told(first), first.headers["etag"]) == (*SPARED, '"one"')
    assert _told(client.get("/")) == FULL
    assert article.asked == [None]


@all_modes
def test_the_first_client_has_a_condition_that_is_not(policy: Policy) -> None:
    article = Article()
    client = _client(article, policy)
    assert _told(client.get("/", headers={"if-none-match": '"zero"'})) == FULL
    assert _told(client.get("/")) == FULL
    assert article.asked == [None]


@all_modes
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ('"one"', SPARED),
        ('W/"one"', SPARED),
        ('"zero", "one"', SPARED),
        ('"a", W/"b","one" , "c"', SPARED),
        ("*", SPARED),
        ('"zero", "two"', FULL),
        ("one", FULL),
        ("", FULL),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_tags_in_every_form_are_the_caches_to_judge(
    policy: Policy, asked: str, told: tuple[int, str], before: int
) -> None:
    article = Article()
    client = _client(article, policy)
    for _ in range(before):
        client.get("/")
    assert _told(client.get("/", headers={"if-none-match": asked})) == told
    assert _told(client.get("/")) == FULL
    assert article.asked == [None]


@validating
def test_what_has_expired_is_asked_about_with_our_own_condition(policy: Policy) -> None:
    clocked, article = Clocked(), Article()
    client = _client(article, policy, clocked)
    client.get("/")
    clocked.tick(61)
    renewed = client.get("/")
    assert _told(renewed) == FULL
    assert renewed.headers["cache-status"].startswith("tiercache; fwd=stale; fwd-status=304; stored")
    again = client.get("/")
    assert_hit(again, "L1")
    assert (_told(again), again.headers["age"]) == (FULL, "0")
    assert (article.asked, article.made) == ([None, '"one"'], 1)


@validating
@pytest.mark.parametrize(
    ("asked", "now", "told"),
    [
        ('"one"', "one", SPARED),
        ('"two"', "one", FULL),
        ('"one"', "two", (200, "two")),
        ('"two"', "two", SPARED),
        ('"zero", "one"', "one", SPARED),
        (None, "one", FULL),
        (None, "two", (200, "two")),
    ],
)
def test_after_expiry_ours_and_the_clients_condition_are_two_things(
    policy: Policy, asked: str | None, now: str, told: tuple[int, str]
) -> None:
    clocked, article = Clocked(), Article()
    client = _client(article, policy, clocked)
    client.get("/")
    clocked.tick(61)
    article.version = now
    headers = {} if asked is None else {"if-none-match": asked}
    assert _told(client.get("/", headers=headers)) == told
    assert article.asked == [None, '"one"']
    assert _told(client.get("/")) == (200, now)
    assert len(article.asked) == 2


@validating
def test_dates_do_as_well(policy: Policy) -> None:
    clocked, article = Clocked(), Article(by_date=True)
    client = _client(article, policy, clocked)
    since = {"if-modified-since": DATE}
    assert _told(client.get("/", headers=since)) == SPARED
    assert _told(client.get("/")) == FULL
    clocked.tick(61)
    assert _told(client.get("/")) == FULL
    clocked.tick(61)
    assert _told(client.get("/", headers=since)) == SPARED
    article.modified, article.version = at(1_700_000_000), "two"
    clocked.tick(61)
    assert _told(client.get("/", headers=since)) == (200, "two")
    assert article.asked == [None, DATE, DATE, DATE]


@validating
def test_a_304_that_says_nothing_but_its_status_is_enough(policy: Policy) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy)

    @app.get("/")
    async def handler(request: Request) -> Response:
        if "if-none-match" in request.headers:
            return Response(status_code=304)
        return Response("one", headers={"ETag": '"one"', "Cache-Control": "max-age=60"})

    client = TestClient(app)
    client.get("/")
    for _ in range(3):
        clocked.tick(61)
        response = client.get("/")
        assert (_told(response), response.headers["content-length"]) == (FULL, "3")
        assert_hit(client.get("/"))


def _by_response(headers: dict[str, str], response: Response) -> Response:
    return Response(status_code=304, headers=headers)


def _by_exception(headers: dict[str, str], response: Response) -> Response:
    raise HTTPException(304, headers=headers)


def _by_parameter(headers: dict[str, str], response: Response) -> None:
    response.headers.update(headers)
    response.status_code = 304


@validating
@pytest.mark.parametrize("say", [_by_response, _by_exception, _by_parameter])
def test_however_a_handler_says_304(policy: Policy, say: Callable[[dict[str, str], Response], Response | None]) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy)

    @app.get("/", response_model=None)
    def handler(request: Request, response: Response) -> object:
        headers = {"ETag": '"one"', "Cache-Control": "max-age=60"}
        if request.headers.get("if-none-match") == '"one"':
            return say(headers, response)
        response.headers.update(headers)
        return {"version": "one"}

    client = TestClient(app)
    for _ in range(3):
        whole = client.get("/")
        assert (whole.status_code, whole.json()) == (200, {"version": "one"})
        assert whole.headers["content-type"] == "application/json"
        assert _told(client.get("/", headers={"if-none-match": '"one"'})) == SPARED
        assert_hit(client.get("/"))
        clocked.tick(61)
    assert "fwd-status=304" in client.get("/").headers["cache-status"]


@all_modes
def test_a_304_that_nobody_asked_for_is_passed_on_and_kept_from_the_others(policy: Policy) -> None:
    """The handler is wrong; nobody else is to suffer from it."""
    wrong = [True]
    app = app_with(default=policy)

    @app.get("/")
    async def handler() -> Response:
        headers = {"ETag": '"one"', "Cache-Control": "max-age=60"}
        return Response(status_code=304, headers=headers) if wrong[0] else Response("one", headers=headers)

    client = TestClient(app)
    client.get("/")
    wrong[0] = False
    for _ in range(2):
        assert _told(client.get("/")) == FULL


@validating
def test_a_304_about_something_else_makes_the_handler_answer_in_full(policy: Policy) -> None:
    clocked, asked = Clocked(), list[str | None]()
    app = app_with(clocked.cache, default=policy)

    @app.get("/")
    async def handler(request: Request) -> Response:
        asked.append(request.headers.get("if-none-match"))
        if asked[-1] is not None:
            return Response(status_code=304, headers={"ETag": '"other"'})
        return Response("one", headers={"ETag": '"one"', "Cache-Control": "max-age=60"})

    client = TestClient(app)
    client.get("/")
    clocked.tick(61)
    assert _told(client.get("/")) == FULL
    assert asked == [None, '"one"', None]


@http_modes
@pytest.mark.parametrize("cache_control", ["no-cache", "max-age=0, must-revalidate"])
def test_what_is_validated_at_each_use_answers_each_client_for_itself(policy: Policy, cache_control: str) -> None:
    article = Article(cache_control=cache_control)
    client = _client(article, policy)
    for _ in range(4):
        assert _told(client.get("/")) == FULL
        assert _told(client.get("/", headers={"if-none-match": '"one"'})) == SPARED
        assert _told(client.get("/", headers={"if-none-match": '"zero"'})) == FULL
    assert article.made == 1


@all_modes
@pytest.mark.parametrize("cache_control", ["no-store", "private, max-age=60"])
def test_what_may_not_be_stored_is_spared_whom_the_handler_would_spare(policy: Policy, cache_control: str) -> None:
    article = Article(cache_control=cache_control)
    client = _client(article, policy)
    for _ in range(8):
        assert _told(client.get("/", headers={"if-none-match": '"one"'})) == SPARED
        assert _told(client.get("/")) == FULL


@validating
def test_of_many_at_once_each_gets_what_it_asked_for(policy: Policy) -> None:
    """Also where one validation answers them all."""
    clocked, article = Clocked(), Article()
    app = app_with(clocked.cache, default=policy)
    opened, entered = asyncio.Event(), list[int]()

    @app.get("/")
    async def handler(request: Request) -> Response:
        entered.append(1)
        await opened.wait()
        return article.answer(request)

    async def ask(client: httpx.AsyncClient, asked: Sequence[str | None]) -> list[tuple[int, str]]:
        opened.clear()
        entered.clear()
        requests = [
            asyncio.create_task(client.get("/", headers={} if tag is None else {"if-none-match": tag})) for tag in asked
        ]
        await until(lambda: bool(entered))
        await turns(50)
        opened.set()
        return [_told(await request) for request in requests]

    async def test() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = ['"one"', None, '"zero"', '"one"', None]
            expected = [SPARED, FULL, FULL, SPARED, FULL]
            for _ in range(3):
                assert await ask(client, asked) == expected
                clocked.tick(61)
        assert (article.made, article.asked) == (1, [None, '"one"', '"one"'])

    run(test())


@pytest.mark.parametrize(("policy", "asked"), [(Policy.rfc9111(), '"text"'), (Policy.http(), None), (KEPT, None)])
def test_only_the_exact_mode_asks_whether_the_response_for_others_answers_this_request_too(
    policy: Policy, asked: str | None
) -> None:
    """Who tags both languages alike would otherwise answer in the wrong one."""
    seen = list[str | None]()
    app = app_with(default=policy)

    @app.get("/")
    async def handler(request: Request) -> Response:
        seen.append(request.headers.get("if-none-match"))
        headers = {"ETag": '"text"', "Cache-Control": "max-age=60", "Vary": "Accept-Language"}
        if seen[-1] == '"text"':
            return Response(status_code=304, headers=headers)
        return Response(request.headers["accept-language"], headers=headers)

    client = TestClient(app)
    client.get("/", headers={"accept-language": "de"})
    response = client.get("/", headers={"accept-language": "fr"})
    assert response.text == ("fr" if asked is None else "de")
    assert seen == [None, asked]
