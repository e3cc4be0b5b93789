"""Nothing that the app sends is held back, and what has no end is not kept."""

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


def _start(headers: list[tuple[bytes, bytes]] | None = None, status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers or []}


def _chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


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


@pytest.mark.parametrize("policy", [POLICY, Policy.http(), Policy.http(ttl=60)])
@pytest.mark.parametrize("times", [1, 2, 6])
def test_the_first_chunk_arrives_before_the_handler_goes_on(policy: Policy, times: int) -> None:
    go_on = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first "
        await go_on.wait()
        yield b"second"

    app = app_of(Handler(lambda _: StreamingResponse(chunks())), policy.but(max_body=8))

    async def test() -> None:
        for _ in range(times):
            go_on.clear()
            exchange = Exchange(app)
            await exchange.until(2)
            assert exchange.messages[1]["body"] == b"first "
            go_on.set()
            assert (await exchange.reply()).body == b"first second"

    run(test())


def test_a_start_without_a_body_arrives_at_once() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start())
        await go_on.wait()
        await send(_chunk(b"text", more=False))

    async def test() -> None:
        exchange = Exchange(_ours(app))
        await exchange.until(1)
        go_on.set()
        assert (await exchange.reply()).status == 200

    run(test())


def test_messages_arrive_as_they_were_sent() -> None:
    sent = [_start([(b"x-a", b"1")]), _chunk(b"one"), _chunk(b""), _chunk(b"two"), _chunk(b"", more=False)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)

    async def test() -> None:
        reply = await ask(_ours(app))
        assert reply.messages[1:] == sent[1:]
        assert reply.messages[0]["headers"][0] == (b"x-a", b"1")

    run(test())


def test_a_slow_client_slows_the_app_down() -> None:
    """The app runs on only when the client has taken the message before."""
    taken, progress = asyncio.Event(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for number, message in enumerate([_start(), _chunk(b"one"), _chunk(b"two", more=False)]):
            await send(message)
            progress.append(number)

    async def slow(message: Message) -> None:
        await taken.wait()

    async def test() -> None:
        task = asyncio.create_task(_ours(app)(http_scope(), _silence, slow))
        await turns()
        assert progress == []
        taken.set()
        await task
        assert progress == [0, 1, 2]

    run(test())


async def _silence() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_complete_stream_is_stored_once_it_has_ended() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    handler = Handler(lambda _: StreamingResponse(chunks()))
    app = app_of(handler, POLICY)

    async def test() -> None:
        await ask(app)
        reply = await ask(app)
        assert (reply.hit, reply.body, handler.calls) == (True, b"one two", 1)

    run(test())


def test_an_entry_is_there_before_the_last_message_leaves() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start())
        await send(_chunk(b"text", more=False))

    ours = _ours(app)
    hits: list[bool] = []

    async def curious(message: Message) -> None:
        if message["type"] == "http.response.body":
            hits.append((await ask(ours)).hit)

    async def test() -> None:
        await ours(http_scope(), _silence, curious)
        assert hits == [True]

    run(test())


@pytest.mark.parametrize("content_type", [b"text/event-stream", b"text/event-stream; charset=utf-8"])
def test_server_sent_events_are_passed_on_live_and_not_kept(content_type: bytes) -> None:
    go_on = asyncio.Event()
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        await send(_start([(b"content-type", content_type)]))
        await send(_chunk(b"data: 1\n\n"))
        await go_on.wait()
        await send(_chunk(b"", more=False))

    ours = _ours(app)

    async def test() -> None:
        first, second = Exchange(ours), Exchange(ours)
        for each in (first, second):
            await each.until(2)
        go_on.set()
        replies = [await each.reply() for each in (first, second)]
        assert "detail=event-stream" in replies[0].cache_status
        assert len(calls) == 2
        assert not (await ask(ours)).hit

    run(test())


def test_a_body_that_outgrows_the_bound_is_passed_on_live() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start())
        for _ in range(3):
            await send(_chunk(b"x" * 10))
        await go_on.wait()
        await send(_chunk(b"", more=False))

    ours = _ours(app, Policy(ttl=60, max_body=15))

    async def test() -> None:
        leader = Exchange(ours)
        await leader.until(2)
        follower = Exchange(ours)
        await follower.until(4)  # released when the body outgrew the bound, long before its end
        go_on.set()
        assert len((await leader.reply()).body) == len((await follower.reply()).body) == 30

    run(test())


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
