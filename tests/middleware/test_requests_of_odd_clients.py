"""Clients and apps that do what few others do, and what it must not do to everybody else."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.engine.fill import IDLE
from asgi_tiercache.testing import TickingClock, assert_hit, assert_miss
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, Lines, Reply, ask, http_scope, run, turns, until

HTTP = Policy.http()
NAMED = Policy.http(ttl=60)
"""Of a route on which requests wait for each other as long as need be, whatever came of its first ones."""
POLICY = Policy(ttl=60)
ETAG = '"1"'
POLL = [(b"if-none-match", ETAG.encode())]


# ---- clients that poll, log in, or want nothing stored ----


def test_polling_with_a_condition_does_not_keep_a_response_from_being_cached_again() -> None:
    clock = TickingClock()
    says = ["no-store"]

    def respond(request: Request) -> Response:
        headers = {"etag": ETAG, "cache-control": says[-1]}
        if request.headers.get("if-none-match") == ETAG:
            return Response(status_code=304, headers=headers)
        return PlainTextResponse("text", headers=headers)

    handler = Handler(respond)
    app = app_of(handler, HTTP, cache=TierCache(clock=clock))

    async def test() -> None:
        first = await ask(app)
        assert "detail=no-store" in first.cache_status
        says.append("max-age=600")
        for seconds in (30, 29):
            clock.tick(seconds)
            assert (await ask(app, headers=POLL)).status == 304
            assert "if-none-match" in handler.seen.headers, "while the key is remembered, conditions reach the handler"
        clock.tick(1)
        assert not (await ask(app, headers=POLL)).hit
        assert "if-none-match" not in handler.seen.headers, "from now on the cache answers conditions by itself"
        assert (await ask(app, headers=POLL)).hit
        assert handler.calls == 4

    run(test())


@pytest.mark.parametrize(
    "line", [(b"cookie", b"session=1"), (b"cache-control", b"no-store")], ids=["cookie", "no-store"]
)
def test_one_request_that_cannot_be_shared_leaves_single_flight_to_the_others(line: tuple[bytes, bytes]) -> None:
    gated = Gated(headers={"cache-control": "max-age=60"})
    app = app_of(gated.handler, NAMED)

    async def test() -> None:
        gated.open.set()
        assert "stored" not in (await ask(app, headers=[line])).cache_status
        gated.open.clear()
        anonymous = [Exchange(app) for _ in range(20)]
        await gated.entered(2)
        await turns()
        gated.open.set()
        replies = [await exchange.reply() for exchange in anonymous]
        assert [reply.body for reply in replies] == [b"text"] * 20
        assert sum(reply.hit for reply in replies) == 19
        assert gated.handler.calls == 2

    run(test())


def test_nobody_waits_for_a_response_that_its_client_wants_nobody_to_store() -> None:
    gated = Gated(headers={"cache-control": "max-age=60"})
    app = app_of(gated.handler, NAMED)

    async def test() -> None:
        private = Exchange(app, http_scope(headers=[(b"cache-control", b"no-store")]))
        await gated.entered()
        anonymous = [Exchange(app) for _ in range(20)]
        await gated.entered(2)
        await turns()
        gated.open.set()
        assert "stored" not in (await private.reply()).cache_status
        replies = [await exchange.reply() for exchange in anonymous]
        assert sum(reply.hit for reply in replies) == 19
        assert gated.handler.calls == 2

    run(test())


# ---- clients that say in two messages that there is no body ----


def test_a_client_inside_the_process_is_served_from_the_cache() -> None:
    """`ASGITransport` ends even an empty body in a message of its own."""
    handler = Handler()
    transport = httpx.ASGITransport(app_of(handler, POLICY))

    async def test() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
            assert_miss(await client.get("/"), stored=True)
            answer = await client.get("/")
            assert_hit(answer)
            assert answer.text == "answer 1"
        assert handler.calls == 1

    run(test())


async def _ask_in_parts(app: TierCacheMiddleware, *parts: bytes) -> Reply:
    """Send the body in one message for each of `parts`, of which only the last says that it is the last."""
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http_scope(), receive, send)
    return Reply(sent)


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"got: " + body})


def _ours(app: ASGIApp, policy: Policy = POLICY) -> TierCacheMiddleware:
    return TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})


def test_an_empty_body_in_several_messages_is_no_body() -> None:
    ours = _ours(_echo)

    async def test() -> None:
        replies = [await _ask_in_parts(ours, *parts) for parts in ((b"", b""), (b"", b"", b""), (b"",))]
        assert [reply.body for reply in replies] == [b"got: "] * 3
        assert [reply.hit for reply in replies] == [False, True, True]

    run(test())


def test_a_body_behind_an_empty_message_passes_by_and_reaches_the_handler_whole() -> None:
    ours = _ours(_echo)

    async def test() -> None:
        for parts in ((b"", b"one"), (b"", b"", b"t", b"wo")):
            reply = await _ask_in_parts(ours, *parts)
            assert reply.body == b"got: " + b"".join(parts)
            assert "detail=body" in reply.cache_status

    run(test())


# ---- clients that leave ----


@pytest.mark.parametrize("started", [False, True])
def test_a_handler_that_fails_after_its_client_has_left_is_in_the_log(
    started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entered, fail = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        entered.set()
        await fail.wait()
        raise ValueError("no such operator")

    async def test() -> None:
        exchange = Exchange(_ours(app))
        await entered.wait()
        await turns()
        await exchange.cancel()
        fail.set()
        await until(lambda: bool(caplog.records))

    with caplog.at_level(logging.ERROR, logger="asgi_tiercache"):
        run(test())
    (record,) = caplog.records
    assert "after its client had left" in record.getMessage()
    assert "no such operator" in caplog.text


# ---- apps that send files, and names in capitals ----


class App:
    """An app that sends `headers` and counts its calls; its body, or the file at `path`."""

    def __init__(self, headers: Lines = (), *, path: Path | None = None) -> None:
        self.headers = headers
        self.calls = 0
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        if self._path is None:
            await send({"type": "http.response.body", "body": b"text"})
        else:
            await send({"type": "http.response.pathsend", "path": str(self._path)})


def test_a_file_that_is_not_there_is_the_servers_to_find_out(tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    app = App(path=missing)
    ours = _ours(app, POLICY.but(files=1000))

    async def test() -> None:
        for _ in range(2):
            reply = await ask(ours)
            assert reply.messages[-1] == {"type": "http.response.pathsend", "path": str(missing)}
        assert app.calls == 2, "nothing was stored"

    run(test())


def test_no_store_counts_in_whatever_case_its_field_is_written() -> None:
    app = App([(b"Cache-Control", b"no-store")])
    ours = _ours(app)

    async def test() -> None:
        replies = [await ask(ours) for _ in range(2)]
        assert ["detail=no-store" in reply.cache_status for reply in replies] == [True, True]
        assert app.calls == 2

    run(test())


def test_what_clients_are_told_replaces_a_field_in_whatever_case_it_is_written() -> None:
    ours = _ours(App([(b"Cache-Control", b"max-age=5"), (b"Expires", b"0")]), POLICY.but(downstream="no-cache"))

    async def test() -> None:
        for hit in (False, True):
            reply = await ask(ours)
            assert reply.hit is hit
            told = [line for line in reply.messages[0]["headers"] if line[0].lower() in (b"cache-control", b"expires")]
            assert told == [(b"cache-control", b"no-cache")]

    run(test())


def test_a_route_that_never_gave_anything_to_store_awakes_to_a_field_in_capitals() -> None:
    app = App()
    ours = _ours(app, HTTP)

    async def test() -> None:
        for _ in range(6):
            assert "detail=no-freshness" in (await ask(ours)).cache_status
        app.headers = [(b"Cache-Control", b"max-age=60")]
        replies = [await ask(ours) for _ in range(3)]
        assert [reply.hit for reply in replies] == [False, False, True]
        assert app.calls == 8, "one on which the route awakes, one that is stored"

    run(test())


# ---- handlers that speak of a response which nobody is caching ----


def test_a_refusal_to_store_what_is_not_being_cached_holds_for_nothing_else() -> None:
    cache = TierCache()

    def respond(request: Request) -> Response:
        if request.method == "POST":
            cache.current.no_store()
        return PlainTextResponse(request.method)

    app = app_of(Handler(respond), POLICY, cache=cache, methods=["GET", "POST"])

    async def test() -> None:
        await ask(app, method="POST")
        assert not IDLE.refused, "it stands for every request that is not being cached"
        replies = [await ask(app) for _ in range(2)]
        assert [reply.hit for reply in replies] == [False, True]

    run(test())
