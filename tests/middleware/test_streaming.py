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


def test_a_slow_client_slows_the_app_down_where_the_response_is_its_alone() -> None:
    """The app runs on only when the client has taken the message before; nothing piles up in memory."""
    taken, progress = asyncio.Event(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start = {**_start(), "headers": [(b"cache-control", b"no-store")]}
        for number, message in enumerate([start, _chunk(b"one"), _chunk(b"two", more=False)]):
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


def test_a_slow_client_does_not_hold_up_a_response_that_others_wait_for() -> None:
    sent = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (_start(), _chunk(b"one"), _chunk(b"two", more=False)):
            await send(message)
        sent.set()

    async def never(message: Message) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        ours = _ours(app)
        slow = asyncio.create_task(ours(http_scope(), _silence, never))
        await sent.wait()
        assert (await ask(ours)).body == b"onetwo"
        slow.cancel()

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


def test_a_body_announced_as_too_large_releases_others_before_it_is_sent() -> None:
    go_on, calls = asyncio.Event(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        await asyncio.sleep(0)
        await send(_start([(b"content-length", b"20")]))
        await go_on.wait()
        await send(_chunk(b"x" * 20, more=False))

    ours = _ours(app, Policy(ttl=60, max_body=15))

    async def test() -> None:
        under_way = [Exchange(ours) for _ in range(3)]
        await until(lambda: len(calls) == 3)
        go_on.set()
        for each in under_way:
            assert "detail=too-large" in (await each.reply()).cache_status

    run(test())
