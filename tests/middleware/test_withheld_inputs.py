"""What is not in the key does not reach the handler."""

from __future__ import annotations

import pytest
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import ask, run
from tests.middleware.users import COOKIE, ByHeader, signed


def test_dropped_query_parameters_reach_neither_key_nor_handler() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.query))
    client = client_of(handler, Policy(ttl=60, drop_query=("utm_*", "ref")))
    assert client.get("/?utm_source=x&q=1&ref=y").text == "q=1"
    assert_hit(client.get("/?q=1&utm_medium=z"))


def test_a_dropped_parameter_spelled_in_escapes_is_dropped() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.query))
    client = client_of(handler, Policy(ttl=60, drop_query=("ref",)))
    assert client.get("/?%72ef=y&q=1").text == "q=1"


def test_only_listed_query_parameters_reach_key_and_handler() -> None:
    handler = Handler(lambda request: JSONResponse(dict(request.query_params)))
    client = client_of(handler, Policy(ttl=60, query=("q",)))
    assert client.get("/?q=1&evil=2").json() == {"q": "1"}
    assert_hit(client.get("/?q=1"))
    assert_miss(client.get("/?q=2"))


def test_an_empty_list_of_query_parameters_lets_none_through() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.query))
    client = client_of(handler, Policy(ttl=60, query=()))
    assert client.get("/?q=1").text == ""
    assert_hit(client.get("/?q=2"))


def test_unkeyed_headers_do_not_reach_the_handler() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60))
    client.get("/", headers={"x-forwarded-host": "evil", "user-agent": "bot", "x-user": "ann", "referer": "x"})
    assert set(handler.seen.headers) <= {"host", "accept", "accept-encoding"}


@pytest.mark.parametrize(
    "name",
    ["accept", "accept-language", "accept-encoding", "origin", "traceparent", "tracestate", "baggage", "x-request-id"],
)
def test_negotiation_and_tracing_reach_the_handler(name: str) -> None:
    handler = Handler()
    client_of(handler, Policy(ttl=60)).get("/", headers={name: "value"})
    assert handler.seen.headers[name] == "value"


def test_keyed_headers_reach_the_handler() -> None:
    handler = Handler()
    client_of(handler, Policy(ttl=60, vary_on=("x-tenant",))).get("/", headers={"x-tenant": "a", "x-other": "b"})
    assert handler.seen.headers["x-tenant"] == "a"
    assert "x-other" not in handler.seen.headers


def test_without_strict_other_headers_reach_the_handler() -> None:
    handler = Handler()
    client_of(handler, Policy(ttl=60, strict=False)).get("/", headers={"x-other": "b"})
    assert handler.seen.headers["x-other"] == "b"


def test_without_strict_an_ignored_header_is_still_withheld() -> None:
    handler = Handler()
    policy = Policy(ttl=60, strict=False, ignore=("x-other", "authorization"))
    client_of(handler, policy).get("/", headers={"x-other": "b", "authorization": "Bearer a"})
    assert not {"x-other", "authorization"} & set(handler.seen.headers)


def test_an_ignored_cookie_does_not_reach_the_handler() -> None:
    handler = Handler(lambda request: JSONResponse(request.cookies))
    client = client_of(handler, Policy(ttl=60, ignore=("cookie",)))
    assert client.get("/", headers={"cookie": "a=1"}).json() == {}
    assert_hit(client.get("/", headers={"cookie": "a=2"}))


def test_only_keyed_cookies_reach_the_handler() -> None:
    handler = Handler(lambda request: JSONResponse(request.cookies))
    client = client_of(handler, Policy(ttl=60, cookies=("theme",)))
    assert client.get("/", headers={"cookie": "id=7; theme=dark"}).json() == {"theme": "dark"}
    assert_hit(client.get("/", headers={"cookie": "theme=dark; id=8"}))


def test_an_ignored_session_above_is_empty_for_the_handler() -> None:
    handler = Handler(lambda request: JSONResponse(dict(request.session)))
    policy = Policy(ttl=60, ignore=("cookie", "session"))
    app = app_of(handler, policy, above=[Middleware(SessionMiddleware, secret_key="s")])
    client = TestClient(app)
    assert client.get("/", headers={"cookie": f"{COOKIE}={signed({'name': 'ann'})}"}).json() == {}
    assert_hit(client.get("/", headers={"cookie": f"{COOKIE}={signed({'name': 'bob'})}"}))


def test_an_ignored_cookie_leaves_a_session_below_empty() -> None:
    handler = Handler(lambda request: JSONResponse(dict(request.session)))
    app = app_of(handler, Policy(ttl=60, ignore=("cookie",)), below=[Middleware(SessionMiddleware, secret_key="s")])
    assert TestClient(app).get("/", headers={"cookie": f"{COOKIE}={signed({'name': 'ann'})}"}).json() == {}


def test_an_ignored_user_above_is_nobody_for_the_handler() -> None:
    handler = Handler(lambda request: PlainTextResponse(f"{request.user.is_authenticated} {request.auth.scopes}"))
    policy = Policy(ttl=60, ignore=("user", "auth"))
    app = app_of(handler, policy, above=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    client = TestClient(app)
    assert client.get("/", headers={"x-user": "ann"}).text == "False []"
    assert_hit(client.get("/", headers={"x-user": "bob"}))


def test_an_unkeyed_custom_header_leaves_the_user_below_unknown() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.user.display_name))
    app = app_of(handler, Policy(ttl=60), below=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    client = TestClient(app)
    assert [client.get("/", headers={"x-user": user}).text for user in ("ann", "bob")] == ["", ""]


def test_the_clients_address_does_not_reach_the_handler() -> None:
    """It is no more in the key than any header is, and would end up in everybody's answer."""
    handler = Handler(lambda request: PlainTextResponse(request.client.host if request.client else "nobody"))
    app = app_of(handler, Policy(ttl=60))

    async def test() -> None:
        first = await ask(app, client=("192.0.2.1", 1))
        second = await ask(app, client=("192.0.2.2", 1))
        assert b"192.0.2.1" not in (first.body, second.body)

    run(test())


def test_conditions_and_ranges_do_not_reach_the_handler() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, strict=False))
    conditions = {"if-none-match": '"a"', "if-modified-since": "Sat, 01 Jan 2022 00:00:00 GMT", "if-range": '"a"'}
    assert_miss(client.get("/", headers=conditions), stored=True)
    assert not set(conditions) & set(handler.seen.headers)


def test_a_miss_with_a_range_passes_by_as_it_came() -> None:
    handler = Handler()
    response = client_of(handler, Policy(ttl=60)).get("/", headers={"range": "bytes=0-1"})
    assert "detail=range" in response.headers["cache-status"]
    assert handler.seen.headers["range"] == "bytes=0-1"


def test_a_request_that_passes_by_reaches_the_handler_as_it_came() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.query))
    client = client_of(handler, Policy(ttl=60, query=("q",)))
    response = client.get("/?x=1", headers={"cookie": "a=1", "x-other": "b"})
    assert response.text == "x=1"
    assert handler.seen.headers["x-other"] == "b"


def test_the_scope_of_the_request_itself_stays_as_it_was() -> None:
    """Middleware above ours logs the query and the headers that were sent."""
    seen: list[tuple[bytes, int]] = []

    class Log:
        def __init__(self, app: object) -> None:
            self.app = app

        async def __call__(self, scope: dict[str, object], receive: object, send: object) -> None:
            lines = len(scope["headers"])  # type: ignore[arg-type]
            await self.app(scope, receive, send)  # type: ignore[operator]
            seen.append((scope["query_string"], len(scope["headers"]) - lines))  # type: ignore[arg-type]

    app = app_of(Handler(), Policy(ttl=60, query=()), above=[Middleware(Log)])
    TestClient(app).get("/?x=1", headers={"x-other": "b"})
    assert seen == [(b"x=1", 0)]
