"""Clients that go away: who hears of it, and who must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until

POLICY = Policy(ttl=60)
SSE = [(b"content-type", b"text/event-stream")]


def _ours(app: ASGIApp, policy: Policy = POLICY) -> TierCacheMiddleware:
    return TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})


def _start(headers: list[tuple[bytes, bytes]] | None = None) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers or []}


def _chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _silence() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Endless:
    """Streams until it is stopped, and remembers how it ended."""

    def __init__(self, headers: list[tuple[bytes, bytes]], chunk: bytes = b"data\n\n") -> None:
        self.ended: list[BaseException] = []
        self.sent = 0
        self._headers = headers
        self._chunk = chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(_start(self._headers))
            while True:
                await send(_chunk(self._chunk))
                self.sent += 1
                await asyncio.sleep(0)
        except BaseException as error:
            self.ended.append(error)
            raise


def test_the_app_hears_that_the_client_of_an_endless_stream_is_gone() -> None:
    """By `http.disconnect` through `receive`, for which Starlette waits below ASGI 2.4."""
    ended: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data\n\n"
                await asyncio.sleep(0)
        finally:
            ended.append("stream")

    handler = Handler(lambda _: StreamingResponse(chunks(), media_type="text/event-stream"))
    app = app_of(handler, POLICY)
    scope = http_scope(asgi={"version": "3.0", "spec_version": "2.0"})

    async def test() -> None:
        exchange = Exchange(app, scope)
        await exchange.until(3)
        exchange.disconnect()
        await until(exchange.task.done)
        await until(lambda: ended == ["stream"])

    run(test())


def test_receive_says_that_the_client_is_gone_where_the_response_cannot_be_stored() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(SSE))
        heard.extend([(await receive())["type"], (await receive())["type"]])
        await send(_chunk(b"", more=False))

    async def test() -> None:
        exchange = Exchange(_ours(app))
        await exchange.until(1)
        exchange.disconnect()
        await exchange.reply()
        assert heard == ["http.request", "http.disconnect"]

    run(test())


def test_receive_never_says_so_while_the_response_may_be_stored() -> None:
    heard: list[str] = []
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        listener = asyncio.create_task(_hear(receive, heard))
        await send(_start())
        await go_on.wait()
        assert heard == []
        await send(_chunk(b"text", more=False))
        await listener

    ours = _ours(app)

    async def test() -> None:
        exchange = Exchange(ours)
        await exchange.until(1)
        exchange.disconnect()
        await turns()
        go_on.set()
        await exchange.reply()
        assert heard == ["http.disconnect"]
        assert (await ask(ours)).hit

    run(test())


async def _hear(receive: Receive, heard: list[str]) -> None:
    heard.append((await receive())["type"])


def test_an_endless_stream_ends_when_its_client_is_cancelled() -> None:
    endless = Endless(SSE)

    async def test() -> None:
        exchange = Exchange(_ours(endless))
        await exchange.until(3)
        await exchange.cancel()
        await until(lambda: bool(endless.ended))
        assert isinstance(endless.ended[0], OSError | asyncio.CancelledError)

    run(test())


def test_a_silent_stream_ends_when_its_client_is_cancelled() -> None:
    """It sends nothing by which it could learn that nobody listens."""
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(SSE))
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    async def test() -> None:
        exchange = Exchange(_ours(app))
        await exchange.until(1)
        await exchange.cancel()
        await until(lambda: bool(ended))
        assert isinstance(ended[0], asyncio.CancelledError)

    run(test())


def test_an_endless_stream_that_looked_storable_ends_once_it_is_too_large() -> None:
    endless = Endless([], chunk=b"x" * 10)

    async def test() -> None:
        exchange = Exchange(_ours(endless, Policy(ttl=60, max_body=100)))
        await exchange.until(3)
        await exchange.cancel()
        await until(lambda: bool(endless.ended))
        assert isinstance(endless.ended[0], OSError)
        assert endless.sent <= 11

    run(test())


def test_the_app_gets_the_error_of_a_client_that_refuses_an_unstorable_response() -> None:
    endless = Endless(SSE)

    async def test() -> None:
        exchange = Exchange(_ours(endless), refuse=3)
        with pytest.raises(OSError, match="the client is gone"):
            await exchange.reply()
        assert isinstance(endless.ended[0], OSError)

    run(test())


@pytest.mark.parametrize("refuse", [0, 1, 2])
def test_a_client_that_is_gone_does_not_keep_others_waiting(refuse: int) -> None:
    """Servers raise from `send` once the connection is lost; the fill goes on for those who follow."""
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        await send(_start())
        await send(_chunk(b"te"))
        await send(_chunk(b"xt", more=False))

    ours = _ours(app)

    async def test() -> None:
        lost = Exchange(ours, refuse=refuse)
        follower = Exchange(ours)
        with pytest.raises(OSError, match="the client is gone"):
            await lost.reply()
        assert (await follower.reply()).body == b"text"
        assert (await ask(ours)).hit
        assert len(calls) == 1

    run(test())


def test_a_client_cancelled_while_it_is_being_sent_to_does_not_keep_others_waiting() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start())
        await send(_chunk(b"text", more=False))

    ours = _ours(app)
    stuck = asyncio.Event()

    async def never(message: Message) -> None:
        stuck.set()
        await asyncio.Event().wait()

    async def test() -> None:
        leader = asyncio.create_task(ours(http_scope(), _silence, never))
        await stuck.wait()
        follower = Exchange(ours)
        await turns()
        leader.cancel()
        assert (await follower.reply()).body == b"text"

    run(test())
