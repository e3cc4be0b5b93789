"""GZip above the cache, and below it, beside validators, conditions and ranges."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Annotated

import pytest
from fastapi import FastAPI, Header, Request, Response
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware, GZipResponder
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.frameworks.apps import ALL_MODES, HTTP_MODES, Clocked, app_with, name_of
from tests.middleware.asgi import ask, run

LONG = "long " * 500
PLAIN = {"accept-encoding": "identity"}
ZIP = {"accept-encoding": "gzip"}
ZIPPED = Middleware(GZipMiddleware)
Condition = Annotated[str | None, Header()]

all_modes = pytest.mark.parametrize("policy", ALL_MODES, ids=name_of)
http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)
places = pytest.mark.parametrize("place", ["above", "below"])


class CountingGZip(GZipMiddleware):
    """Counts the bodies that it compresses."""

    def __init__(self, app: Callable[..., object], compressed: list[int]) -> None:
        super().__init__(app)  # type: ignore[arg-type]
        self._compressed = compressed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"accept-encoding", b"gzip") in scope["headers"]:
            await _CountingResponder(self.app, self._compressed)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _CountingResponder(GZipResponder):
    def __init__(self, app: Callable[..., object], compressed: list[int]) -> None:
        super().__init__(app, 500)  # type: ignore[arg-type]
        self._compressed = compressed

    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        self._compressed.append(len(body))
        return await super().apply_compression(body, more_body=more_body)


def _long(app: FastAPI, *, cache_control: str = "max-age=60", etag: str = '"one"') -> list[str | None]:
    """A handler that judges conditions itself, and knows nothing of encodings; returns what it was asked."""
    asked = list[str | None]()

    @app.get("/")
    async def handler(if_none_match: Condition = None) -> Response:
        asked.append(if_none_match)
        headers = {"Cache-Control": cache_control} | ({"ETag": etag} if etag else {})
        if etag and if_none_match and etag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(LONG, media_type="text/plain", headers=headers)

    return asked


def _raw(client: TestClient, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    with client.stream("GET", "/", headers=headers) as response:
        return b"".join(response.iter_raw()), dict(response.headers)


@all_modes
@pytest.mark.parametrize(("place", "times"), [("above", 3), ("below", 1)])
def test_above_each_request_is_compressed_for_itself_and_below_only_what_is_made(
    policy: Policy, place: str, times: int
) -> None:
    compressed = list[int]()
    gzips = [Middleware(CountingGZip, compressed=compressed)]
    app = app_with(default=policy, **{place: gzips})  # type: ignore[arg-type]
    asked = _long(app)
    client = TestClient(app)
    for _ in range(3):
        body, headers = _raw(client, ZIP)
        assert gzip.decompress(body).decode() == LONG
        assert (headers["content-encoding"], headers["content-length"]) == ("gzip", str(len(body)))
        assert "Accept-Encoding" in headers["vary"]
    assert (len(asked), len(compressed)) == (1, times)


@all_modes
@places
@pytest.mark.parametrize("first", [ZIP, PLAIN])
def test_each_client_gets_what_it_can_read_also_where_one_tag_stands_for_both(
    policy: Policy, place: str, first: dict[str, str]
) -> None:
    """A 304 by a handler that knows nothing of encodings must not lead to the bytes of another encoding."""
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy, **{place: [ZIPPED]})  # type: ignore[arg-type]
    _long(app)
    client = TestClient(app)
    second = PLAIN if first is ZIP else ZIP
    for _ in range(3):
        for headers in (first, second, first):
            body, told = _raw(client, headers)
            if headers is ZIP:
                assert told["content-encoding"] == "gzip"
                body = gzip.decompress(body)
            else:
                assert "content-encoding" not in told
            assert body.decode() == LONG
        clocked.tick(61)


@http_modes
@places
@pytest.mark.parametrize("headers", [ZIP, PLAIN])
def test_what_has_expired_is_validated_through_it(policy: Policy, place: str, headers: dict[str, str]) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy, **{place: [ZIPPED]})  # type: ignore[arg-type]
    asked = _long(app)
    client = TestClient(app)
    first, told = _raw(client, headers)
    clocked.tick(61)
    again, told_again = _raw(client, headers)
    assert asked == [None, '"one"']
    assert again == first
    assert told_again["content-length"] == told["content-length"]
    assert told_again.get("content-encoding") == told.get("content-encoding")
    assert_hit(client.get("/", headers=headers))


@all_modes
def test_ranges_are_of_the_encoded_bytes_where_these_are_stored(policy: Policy) -> None:
    """A range is one of the selected representation, and its encoding belongs to that (RFC 9110, section 14.1.2)."""
    app = app_with(default=policy, below=[ZIPPED])
    _long(app)
    client = TestClient(app)
    whole, _ = _raw(client, ZIP)
    part, told = _raw(client, {**ZIP, "range": "bytes=0-9"})
    assert (part, told["content-range"], told["content-encoding"]) == (whole[:10], f"bytes 0-9/{len(whole)}", "gzip")
    client.get("/", headers=PLAIN)
    part, told = _raw(client, {**PLAIN, "range": "bytes=0-9"})
    assert (part.decode(), told["content-range"]) == (LONG[:10], f"bytes 0-9/{len(LONG)}")
    assert "content-encoding" not in told


@all_modes
def test_ranges_stay_plain_where_it_is_above(policy: Policy) -> None:
    app = app_with(default=policy, above=[ZIPPED])
    _long(app)
    client = TestClient(app)
    client.get("/", headers=ZIP)
    part, told = _raw(client, {**ZIP, "range": "bytes=0-999"})
    assert (part.decode(), told["content-range"]) == (LONG[:1000], f"bytes 0-999/{len(LONG)}")
    assert "content-encoding" not in told


@all_modes
def test_a_generated_tag_tells_encodings_apart_below(policy: Policy) -> None:
    app = app_with(default=policy.but(etag=True), below=[ZIPPED])
    _long(app, etag="")
    client = TestClient(app)
    for headers in (ZIP, PLAIN):
        client.get("/", headers=headers)
    packed, plain = (client.get("/", headers=headers).headers["etag"] for headers in (ZIP, PLAIN))
    assert packed != plain
    for headers, tag, status in [(ZIP, packed, 304), (ZIP, plain, 200), (PLAIN, plain, 304), (PLAIN, packed, 200)]:
        assert client.get("/", headers={**headers, "if-none-match": tag}).status_code == status


@all_modes
@places
def test_a_condition_is_met_with_either_encoding(policy: Policy, place: str) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy, **{place: [ZIPPED]})  # type: ignore[arg-type]
    _long(app)
    client = TestClient(app)
    for _ in range(3):
        for headers in (ZIP, PLAIN):
            response = client.get("/", headers={**headers, "if-none-match": '"one"'})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"one"')
        clocked.tick(40)


@http_modes
def test_what_is_too_short_to_be_compressed_is_one_more_variant(policy: Policy) -> None:
    """GZip says `Vary` only of what is long enough."""
    text = ["short"]
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy, below=[ZIPPED])

    @app.get("/")
    async def handler() -> Response:
        return Response(text[0], media_type="text/plain", headers={"Cache-Control": "max-age=60"})

    client = TestClient(app)
    for now in ("short", LONG, "short", LONG):
        text[0] = now
        for headers in (ZIP, PLAIN, ZIP, PLAIN):
            assert client.get("/", headers=headers).text == now
        clocked.tick(5000)


@http_modes
def test_a_miss_with_a_tag_says_so_once(policy: Policy) -> None:
    app = app_with(default=policy, above=[ZIPPED], below=[ZIPPED])
    _long(app)
    client = TestClient(app)
    assert_miss(client.get("/", headers=ZIP))
    response = client.get("/", headers=ZIP)
    assert_hit(response)
    assert response.text == LONG


class Plain(BaseHTTPMiddleware):
    """What makes a stream of every response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@all_modes
def test_a_304_made_of_a_stream_has_no_content_for_gzip_above(policy: Policy) -> None:
    """Nothing compressed is not nothing."""
    app = app_with(default=policy, above=[ZIPPED], below=[Middleware(Plain)])
    _long(app)

    async def test() -> None:
        headers = [(b"accept-encoding", b"gzip"), (b"if-none-match", b'"one"')]
        for _ in range(2):
            reply = await ask(app, headers=headers)
            names = {name for name, _ in reply.messages[0]["headers"]}
            assert (reply.status, reply.body) == (304, b"")
            assert not names & {b"content-encoding", b"content-length"}

    run(test())


@http_modes
def test_a_304_without_the_vary_of_its_200_leaves_it(policy: Policy) -> None:
    """GZip says `Vary` of what it compresses, CORS of everything: a 304 then names less than the 200 has named."""
    clocked = Clocked()
    cors = Middleware(CORSMiddleware, allow_origins=["https://site.example", "https://other.example"])
    app = app_with(clocked.cache, default=policy, below=[cors, ZIPPED])
    _long(app)
    client = TestClient(app)
    for _ in range(3):
        for headers in (ZIP, PLAIN):
            body, told = _raw(client, headers)
            assert (gzip.decompress(body) if headers is ZIP else body).decode() == LONG
            assert told.get("content-encoding") == ("gzip" if headers is ZIP else None)
        clocked.tick(61)
