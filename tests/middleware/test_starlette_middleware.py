"""Starlette's own middleware above and below ours."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import pytest
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware, GZipResponder
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import OURS, ask, run

POLICY = Policy(ttl=60)
LONG = "long " * 500
ZIP = [(b"accept-encoding", b"gzip")]


def _long() -> Handler:
    return Handler(lambda _: PlainTextResponse(LONG))


class CountingGZip(GZipMiddleware):
    """Counts the bodies that it compresses."""

    compressed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"accept-encoding", b"gzip") in scope["headers"]:
            await _CountingResponder(self.app, self.minimum_size)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _CountingResponder(GZipResponder):
    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        CountingGZip.compressed += 1
        return await super().apply_compression(body, more_body=more_body)


def test_gzip_below_is_cached_compressed_and_a_hit_compresses_nothing() -> None:
    handler = _long()
    app = app_of(handler, POLICY, below=[Middleware(CountingGZip)])
    CountingGZip.compressed = 0

    async def test() -> None:
        replies = [await ask(app, headers=ZIP) for _ in range(3)]
        assert [reply.hit for reply in replies] == [False, True, True]
        assert len({reply.body for reply in replies}) == 1
        assert gzip.decompress(replies[2].body).decode() == LONG
        assert (CountingGZip.compressed, handler.calls) == (1, 1)

    run(test())


def test_gzip_below_gives_each_client_what_it_can_read() -> None:
    handler = _long()
    app = app_of(handler, POLICY, below=[Middleware(GZipMiddleware)])

    async def test() -> None:
        for _ in range(2):
            packed, plain = await ask(app, headers=ZIP), await ask(app)
            assert gzip.decompress(packed.body) == plain.body == LONG.encode()
        assert (packed.hit, plain.hit, handler.calls) == (True, True, 2)

    run(test())


def test_gzip_above_twice_over_one_entry_gives_right_answers() -> None:
    handler = _long()
    app = app_of(handler, POLICY, above=[Middleware(GZipMiddleware)])

    async def test() -> None:
        for _ in range(3):
            packed, plain = await ask(app, headers=ZIP), await ask(app)
            assert gzip.decompress(packed.body) == plain.body == LONG.encode()
            assert _lengths(packed.messages[0]["headers"]) == [str(len(packed.body)).encode()]
            assert _lengths(plain.messages[0]["headers"]) == [str(len(plain.body)).encode()]
        assert handler.calls == 1

    run(test())


def _lengths(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == b"content-length"]


def test_the_headers_of_one_answer_are_nobody_elses() -> None:
    app = app_of(Handler(), POLICY)

    async def test() -> None:
        for _ in range(3):
            reply = await ask(app)
            headers = reply.messages[0]["headers"]
            assert (b"x-mine", b"1") not in headers
            headers.append((b"x-mine", b"1"))

    run(test())


SITE = "https://site.example"
OTHER = "https://other.example"


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(CORSMiddleware, allow_origins=list(origins))


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("origins", [[SITE, OTHER], ["*"]])
@pytest.mark.parametrize("order", [[SITE, OTHER], [None, SITE], [SITE, None, SITE], ["https://evil.example", SITE]])
def test_cors_tells_each_origin_what_it_would_without_us(
    place: str, origins: Sequence[str], order: Sequence[str | None]
) -> None:
    """Whoever came first, with an `Origin` or without."""
    ours = TestClient(app_of(Handler(), POLICY, **{place: [_cors(origins)]}))  # type: ignore[arg-type]
    bare = TestClient(app_of(Handler(), None, above=[_cors(origins)]))
    for origin in [*order, *order]:
        headers = {"origin": origin} if origin else {}
        told, expected = (each.get("/", headers=headers).headers for each in (ours, bare))
        assert told.get("access-control-allow-origin") == expected.get("access-control-allow-origin")


class OlderCORS(CORSMiddleware):
    """As in Starlette before 1.0: says nothing, not even `Vary`, where a request has no `Origin`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "origin" not in Headers(scope=scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def test_a_request_without_an_origin_does_not_lock_out_those_with_one() -> None:
    cors = Middleware(OlderCORS, allow_origins=[SITE])
    client = TestClient(app_of(Handler(), POLICY, below=[cors]))
    for _ in range(2):
        client.get("/")
        assert client.get("/", headers={"origin": SITE}).headers.get("access-control-allow-origin") == SITE


@pytest.mark.parametrize("place", ["above", "below"])
def test_a_preflight_request_is_answered(place: str) -> None:
    handler = Handler()
    client = TestClient(app_of(handler, POLICY, **{place: [_cors([SITE])]}))  # type: ignore[arg-type]
    headers = {"origin": SITE, "access-control-request-method": "GET"}
    for _ in range(2):
        response = client.options("/", headers=headers)
        assert response.headers["access-control-allow-origin"] == SITE
    assert handler.calls == 0


def test_cors_above_is_added_to_hits() -> None:
    client = TestClient(app_of(Handler(), POLICY, above=[_cors([SITE])]), headers={"origin": SITE})
    client.get("/")
    response = client.get("/")
    assert_hit(response)
    assert response.headers["access-control-allow-origin"] == SITE


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("policy", [POLICY, Policy.http(), Policy.http(ttl=60)])
def test_a_session_is_begun_read_and_ended_through_us(place: str, policy: Policy) -> None:
    def respond(request: Request) -> Response:
        match request.path_params["action"]:
            case "begin":
                request.session["name"] = request.query_params["name"]
            case "end":
                request.session.clear()
        return PlainTextResponse(request.session.get("name", "nobody"))

    around = {place: [Middleware(SessionMiddleware, secret_key="s")]}
    app = app_of(Handler(respond), policy, path="/{action}", **around)  # type: ignore[arg-type]
    ann, bob, visitor = TestClient(app), TestClient(app), TestClient(app)
    assert visitor.get("/read").text == "nobody"
    assert [ann.get("/begin?name=ann").text, bob.get("/begin?name=bob").text] == ["ann", "bob"]
    for _ in range(2):
        assert [client.get("/read").text for client in (ann, bob, visitor)] == ["ann", "bob", "nobody"]
    ann.get("/end")
    assert [client.get("/read").text for client in (ann, bob, visitor)] == ["nobody", "bob", "nobody"]


class Named(BaseHTTPMiddleware):
    """Adds a header to each response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-named"] = request.url.path
        return response


@pytest.mark.parametrize("place", ["above", "below"])
def test_http_middleware_of_the_old_kind_works(place: str) -> None:
    handler = Handler()
    client = TestClient(app_of(handler, POLICY, **{place: [Middleware(Named)]}))  # type: ignore[arg-type]
    responses = [client.get("/") for _ in range(3)]
    assert_hit(responses[2])
    assert [(each.text, each.headers["x-named"]) for each in responses] == [("answer 1", "/")] * 3
    assert handler.calls == 1


def test_everything_at_once() -> None:
    around = [Middleware(Named), _cors([SITE]), Middleware(GZipMiddleware)]
    client = TestClient(app_of(_long(), POLICY, above=around, below=around), headers={"origin": SITE})
    first, second = client.get("/"), client.get("/")
    assert_hit(second)
    assert second.text == first.text == LONG
    lines = [sorted(line for line in each.headers.items() if line[0].encode() not in OURS) for each in (first, second)]
    assert lines[0] == lines[1]
