"""A request with a credential that the policy has no answer for passes by, and is told why."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run
from tests.middleware.users import COOKIE, ByHeader, signed

POLICY = Policy(ttl=60)


async def _ask_with(app: ASGIApp, name: str, value: object) -> Reply:
    """A request whose scope some middleware above has filled."""
    return await Exchange(app, {**http_scope(), name: value}).reply()


@pytest.mark.parametrize("name", ["authorization", "cookie"])
def test_a_header_that_says_who_is_asking_passes_by(name: str) -> None:
    handler = Handler()
    client = client_of(handler, POLICY)
    client.get("/")
    for number in (2, 3):
        response = client.get("/", headers={name: "a=1"})
        assert response.text == f"answer {number}"
        assert response.headers["cache-status"] == f"tiercache; fwd=bypass; detail={name}"
    assert client.get("/").text == "answer 1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("session", {"id": 7}), ("user", SimpleUser("ann")), ("auth", AuthCredentials(["known"]))],
)
def test_a_scope_that_says_who_is_asking_passes_by(name: str, value: object) -> None:
    handler = Handler()
    app = app_of(handler, POLICY)

    async def test() -> None:
        for _ in range(2):
            reply = await _ask_with(app, name, value)
            assert reply.cache_status == f"tiercache; fwd=bypass; detail={name}"
        assert handler.calls == 2

    run(test())


@pytest.mark.parametrize(
    ("name", "value"), [("session", {}), ("user", UnauthenticatedUser()), ("user", None), ("auth", AuthCredentials())]
)
def test_a_scope_that_says_nobody_is_cached(name: str, value: object) -> None:
    handler = Handler()
    app = app_of(handler, POLICY)

    async def test() -> None:
        await _ask_with(app, name, value)
        assert (await _ask_with(app, name, value)).hit

    run(test())


@pytest.mark.parametrize("place", ["above", "below"])
def test_sessions_of_starlette_are_never_shared(place: str) -> None:
    handler = Handler(lambda request: PlainTextResponse(request.session.get("name", "nobody")))
    around = {place: [Middleware(SessionMiddleware, secret_key="s")]}
    client = TestClient(app_of(handler, POLICY, **around))  # type: ignore[arg-type]
    assert client.get("/").text == "nobody"
    for name in ("ann", "bob", "ann"):
        response = client.get("/", headers={"cookie": f"{COOKIE}={signed({'name': name})}"})
        assert response.text == name
        assert "fwd=bypass" in response.headers["cache-status"]
    assert_hit(client.get("/"))


@pytest.mark.parametrize("place", ["above", "below"])
def test_a_response_that_begins_a_session_is_not_stored(place: str) -> None:
    """Whoever comes next would go without the session that the handler meant to begin."""

    def respond(request: Request) -> PlainTextResponse:
        request.session["basket"] = []
        return PlainTextResponse("welcome")

    handler = Handler(respond)
    around = {place: [Middleware(SessionMiddleware, secret_key="s")]}
    app = app_of(handler, POLICY, **around)  # type: ignore[arg-type]
    for _ in range(2):
        response = TestClient(app).get("/")
        assert "set-cookie" in response.headers
    assert handler.calls == 2


def test_users_of_starlette_above_are_never_shared() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.user.display_name))
    app = app_of(handler, POLICY, above=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    client = TestClient(app)
    assert client.get("/").text == ""
    for name in ("ann", "bob", "ann"):
        response = client.get("/", headers={"x-user": name})
        assert response.text == name
        assert response.headers["cache-status"] == "tiercache; fwd=bypass; detail=user"
    assert_hit(client.get("/"))


def test_users_of_starlette_below_are_kept_apart_by_the_keyed_header() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.user.display_name))
    policy = Policy(ttl=60, vary_on=("x-user",))
    app = app_of(handler, policy, below=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    client = TestClient(app)
    assert [client.get("/", headers={"x-user": name}).text for name in ("ann", "bob", "ann")] == ["ann", "bob", "ann"]
    assert handler.calls == 2


def test_users_above_are_kept_apart_by_a_user_callable() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.user.display_name))
    policy = Policy(ttl=60, user=lambda scope: scope["user"].display_name or "nobody")
    app = app_of(handler, policy, above=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    client = TestClient(app)
    assert [client.get("/", headers={"x-user": name}).text for name in ("ann", "bob", "ann")] == ["ann", "bob", "ann"]
    assert handler.calls == 2


def test_a_session_above_is_kept_apart_by_a_user_callable() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.session["name"]))
    policy = Policy(ttl=60, user=lambda scope: scope["session"].get("name"))
    app = app_of(handler, policy, above=[Middleware(SessionMiddleware, secret_key="s")])
    client = TestClient(app)
    cookies = [f"{COOKIE}={signed({'name': name})}" for name in ("ann", "bob", "ann")]
    assert [client.get("/", headers={"cookie": cookie}).text for cookie in cookies] == ["ann", "bob", "ann"]
    assert handler.calls == 2


def test_a_keyed_cookie_does_not_stand_for_the_session_made_of_it() -> None:
    """The session may depend on more than the cookie that is keyed."""
    handler = Handler(lambda request: PlainTextResponse(request.session["name"]))
    policy = Policy(ttl=60, cookies=(COOKIE,))
    app = app_of(handler, policy, above=[Middleware(SessionMiddleware, secret_key="s")])
    response = TestClient(app).get("/", headers={"cookie": f"{COOKIE}={signed({'name': 'ann'})}"})
    assert "detail=session" in response.headers["cache-status"]


Say = Callable[[int], dict[str, str]]


@pytest.mark.parametrize(
    ("say", "warned"),
    [(lambda number: {"cookie": "a=1"} if number % 3 else {}, True), (lambda number: {}, False)],
)
def test_the_log_says_once_that_most_requests_pass_by(say: Say, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(Handler(), POLICY)
    with caplog.at_level(logging.WARNING, logger="asgi_tiercache"):
        for number in range(250):
            client.get("/", headers=say(number))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (1 if warned else 0)
    assert all("'cookie'" in line and "ignore=" in line for line in lines)


def test_a_get_with_a_body_passes_by() -> None:
    handler = Handler()
    client = client_of(handler, POLICY)
    for _ in range(2):
        response = client.request("GET", "/", content=b"question")
        assert_miss(response)
        assert "detail=body" in response.headers["cache-status"]
    assert handler.calls == 2


@pytest.mark.parametrize("policy", [POLICY, Policy.http()])
def test_a_body_that_no_header_announces_passes_by(policy: Policy) -> None:
    """HTTP/2 needs no Content-Length. The handler must get the body, and nobody else the answer to it."""

    async def respond(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await request.body()).decode(), headers={"cache-control": "max-age=60"})

    handler = Handler(respond)
    app = app_of(handler, policy)

    async def test() -> None:
        assert (await ask(app, body=b"question")).body == b"question"
        assert (await ask(app)).body == b""

    run(test())


def test_a_body_that_no_header_announces_does_not_poison_a_key_that_could_not_be_shared() -> None:
    async def respond(request: Request) -> PlainTextResponse:
        text = (await request.body()).decode()
        return PlainTextResponse(text, status_code=200 if text or handler.calls > 1 else 404)

    handler = Handler(respond)
    app = app_of(handler, POLICY)

    async def test() -> None:
        assert (await ask(app)).status == 404
        await ask(app, body=b"poison")
        assert (await ask(app)).body == b""

    run(test())
