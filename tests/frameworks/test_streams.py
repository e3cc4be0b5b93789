"""Streams through the cache: what is sent arrives at once, whatever the cache does with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy
from tests.frameworks.apps import ALL_MODES, HTTP_MODES, Clocked, app_with, name_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns

KEPT = Policy(ttl=60, retention=3600)
all_modes = pytest.mark.parametrize("policy", ALL_MODES, ids=name_of)
http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)
validating = pytest.mark.parametrize("policy", [*HTTP_MODES, KEPT], ids=name_of)


class Source:
    """Yields `one`, and `two` once the test lets it."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.calls = 0

    async def lines(self) -> AsyncIterator[str]:
        """The stream."""
        self.calls += 1
        yield "one "
        await self.go_on.wait()
        yield "two "

    def serve(self, app: FastAPI, path: str = "/", **headers: str) -> None:
        """Put it at `path`; a condition is judged there."""

        @app.get(path)
        async def stream(request: Request) -> Response:
            told = {"Cache-Control": "max-age=60", "ETag": '"v1"', **headers}
            if request.headers.get("if-none-match") == told["ETag"]:
                return Response(status_code=304, headers=told)
            return StreamingResponse(self.lines(), media_type=told.pop("Content-Type", "text/plain"), headers=told)


class Plain(BaseHTTPMiddleware):
    """One that adds nothing."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class Line(BaseModel):
    """What is streamed."""

    text: str


def _a_minute(response: Response) -> None:
    """What a handler that yields cannot say itself: its response has begun by then."""
    response.headers["Cache-Control"] = "max-age=60"


class Ending:
    """Says when the app below has come to its end."""

    def __init__(self, app: ASGIApp, ended: asyncio.Event) -> None:
        self.app = app
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            self._ended.set()


@all_modes
@pytest.mark.parametrize("around", [None, "above", "below"])
def test_the_first_bytes_arrive_while_the_rest_is_still_to_come(policy: Policy, around: str | None) -> None:
    async def test() -> None:
        source = Source()
        middleware = {around: [Middleware(Plain)]} if around else {}
        app = app_with(default=policy, **middleware)  # type: ignore[arg-type]
        source.serve(app)
        exchange = Exchange(app, http_scope())
        await exchange.until(2)
        assert exchange.messages[1]["body"] == b"one "
        source.go_on.set()
        reply = await exchange.reply()
        assert (reply.body, reply.hit) == (b"one two ", False)
        again = await ask(app)
        assert (again.body, again.hit, source.calls) == (b"one two ", True, 1)

    run(test())


@all_modes
def test_a_plain_generator_does_as_well(policy: Policy) -> None:
    calls = list[int]()
    app = app_with(default=policy)

    @app.get("/")
    def stream() -> StreamingResponse:
        def lines() -> Iterator[str]:
            calls.append(1)
            yield from ("one ", "two ")

        return StreamingResponse(lines(), headers={"Cache-Control": "max-age=60"})

    async def test() -> None:
        for number in range(3):
            reply = await ask(app)
            assert (reply.body, reply.hit) == (b"one two ", number > 0)
        assert len(calls) == 1
        part = await ask(app, headers=[(b"range", b"bytes=4-6")])
        assert (part.status, part.body) == (206, b"two")

    run(test())


@validating
@pytest.mark.parametrize("around", [None, "above", "below"])
def test_a_validation_that_finds_something_new_streams_it_at_once(policy: Policy, around: str | None) -> None:
    clocked = Clocked()

    async def test() -> None:
        source, etag = Source(), ['"v1"']
        middleware = {around: [Middleware(Plain)]} if around else {}
        app = app_with(clocked.cache, default=policy, **middleware)  # type: ignore[arg-type]

        @app.get("/")
        async def stream(request: Request) -> Response:
            told = {"Cache-Control": "max-age=60", "ETag": etag[0]}
            if request.headers.get("if-none-match") == etag[0]:
                return Response(status_code=304, headers=told)
            return StreamingResponse(source.lines(), headers=told)

        source.go_on.set()
        await ask(app)
        clocked.tick(61)
        held = await ask(app)
        assert (held.body, source.calls) == (b"one two ", 1)
        assert "fwd-status=304" in held.cache_status

        clocked.tick(61)
        etag[0] = '"v2"'
        source.go_on.clear()
        leader = Exchange(app, http_scope())
        await leader.until(2)
        assert leader.messages[1]["body"] == b"one "
        follower = Exchange(app, http_scope())
        await turns()
        source.go_on.set()
        assert (await leader.reply()).body == (await follower.reply()).body == b"one two "
        assert source.calls == 2

    run(test())


@all_modes
@pytest.mark.parametrize("around", [None, "above", "below"])
def test_events_arrive_one_by_one_for_each_client(policy: Policy, around: str | None) -> None:
    """GZip has known since 0.47 that they are not to be compressed."""

    async def test() -> None:
        source = Source()
        middleware = {around: [Middleware(GZipMiddleware)]} if around else {}
        app = app_with(default=policy, **middleware)  # type: ignore[arg-type]
        source.serve(app, **{"Content-Type": "text/event-stream"})
        headers = [(b"accept-encoding", b"gzip")]
        clients = [Exchange(app, http_scope(headers=headers)) for _ in range(3)]
        for client in clients:
            await client.until(2)
            assert client.messages[1]["body"] == b"one "
        assert source.calls == 3
        source.go_on.set()
        for client in clients:
            assert (await client.reply()).body == b"one two "
        assert not (await ask(app)).hit

    run(test())


@all_modes
def test_a_client_that_leaves_an_endless_stream_ends_it(policy: Policy) -> None:
    async def test() -> None:
        ended = asyncio.Event()
        app = app_with(default=policy, below=[Middleware(Ending, ended=ended)])

        @app.get("/")
        async def events() -> StreamingResponse:
            async def lines() -> AsyncIterator[str]:
                while True:
                    yield "data: x\n\n"
                    await asyncio.sleep(0)

            return StreamingResponse(lines(), media_type="text/event-stream")

        exchange = Exchange(app, http_scope(asgi={"version": "3.0", "spec_version": "2.3"}))
        await exchange.until(5)
        exchange.disconnect()
        await exchange.reply()
        async with asyncio.timeout(5):
            await ended.wait()

    run(test())


@validating
@pytest.mark.parametrize("failing", [True, False])
def test_a_stream_that_breaks_off_while_validating_replaces_nothing(policy: Policy, failing: bool) -> None:
    """Its client sees it break off; the next one is answered from scratch."""
    clocked = Clocked()

    async def test() -> None:
        app, broken = app_with(clocked.cache, default=policy), [False]

        @app.get("/")
        async def stream() -> StreamingResponse:
            async def lines() -> AsyncIterator[str]:
                yield "one "
                if broken[0] and failing:
                    raise RuntimeError("broken")
                yield "two "

            length = {"Content-Length": "99"} if broken[0] else {}
            return StreamingResponse(lines(), headers={"Cache-Control": "max-age=60", "ETag": '"v1"', **length})

        await ask(app)
        clocked.tick(61)
        broken[0] = True
        if failing:
            with pytest.raises(RuntimeError, match="broken"):
                await ask(app)
        else:
            await ask(app)
        broken[0] = False
        assert (await ask(app)).body == b"one two "
        assert (await ask(app)).hit

    run(test())


@http_modes
def test_what_fastapi_streams_from_a_handler_that_yields(policy: Policy) -> None:
    """Lines of JSON are stored once they have come to their end, events are not."""
    sse = pytest.importorskip("fastapi.sse")

    async def test() -> None:
        app, calls, go_on = app_with(default=policy), list[str](), asyncio.Event()

        @app.get("/lines", dependencies=[Depends(_a_minute)])
        async def lines() -> AsyncIterator[Line]:
            calls.append("lines")
            yield Line(text="one")
            await go_on.wait()
            yield Line(text="two")

        @app.get("/events", response_class=sse.EventSourceResponse, dependencies=[Depends(_a_minute)])
        async def events() -> AsyncIterator[Line]:
            calls.append("events")
            yield Line(text="one")
            await go_on.wait()

        for path in ("/lines", "/events"):
            go_on.clear()
            exchange = Exchange(app, http_scope(path))
            await exchange.until(2)
            assert b"one" in exchange.messages[1]["body"]
            go_on.set()
            assert (await ask(app, path)).body == (await exchange.reply()).body
        assert (await ask(app, "/lines")).hit
        assert not (await ask(app, "/events")).hit
        assert calls == ["lines", "events", "events", "events"]

    run(test())
