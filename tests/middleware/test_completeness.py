"""Only what came to its end is stored; what goes wrong goes wrong as it would without us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import OURS, Exchange, ask, run

POLICY = Policy(ttl=60)
POLICIES = [POLICY, Policy.http(), Policy.http(ttl=60)]


class BoomError(Exception):
    """What handlers raise here."""


def _ours(app: ASGIApp) -> TierCacheMiddleware:
    return TierCacheMiddleware(app, cache=TierCache(), routes={"/": POLICY})


def _script(*messages: Message, error: Exception | None = None) -> tuple[ASGIApp, list[int]]:
    """An app that sends `messages`, and then raises `error`; and a list that grows with each call."""
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        for message in messages:
            await send(dict(message))
        if error is not None:
            raise error

    return app, calls


def _start(*headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers), **more}


def _body(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize("length", [b"3", b"5", b"four"])
def test_a_body_that_is_not_as_long_as_announced_is_not_stored(length: bytes) -> None:
    app, calls = _script(_start((b"content-length", length)), _body(b"text"))
    ours = _ours(app)

    async def test() -> None:
        for _ in range(2):
            assert (await ask(ours)).body == b"text"
        assert len(calls) == 2

    run(test())


def test_a_response_without_its_last_message_is_not_stored() -> None:
    app, calls = _script(_start(), _body(b"te", more=True))
    ours = _ours(app)

    async def test() -> None:
        for _ in range(2):
            reply = await ask(ours)
            assert [message["type"] for message in reply.messages] == ["http.response.start", "http.response.body"]
        assert len(calls) == 2

    run(test())


def test_an_app_that_sends_nothing_sends_nothing() -> None:
    app, calls = _script()
    ours = _ours(app)

    async def test() -> None:
        for _ in range(2):
            assert (await ask(ours)).messages == []
        assert len(calls) == 2

    run(test())


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_an_exception_before_the_end_reaches_the_outside_and_nothing_is_stored(sent: int) -> None:
    messages = [_start(), _body(b"te", more=True)][:sent]
    error = BoomError("as it is")
    app, calls = _script(*messages, error=error)
    ours = _ours(app)

    async def test() -> None:
        for _ in range(2):
            exchange = Exchange(ours)
            with pytest.raises(BoomError) as caught:
                await exchange.reply()
            assert caught.value is error
            assert len(exchange.messages) == sent
        assert len(calls) == 2

    run(test())


def test_an_exception_after_the_end_reaches_the_outside_and_the_answer_is_stored() -> None:
    app, calls = _script(_start(), _body(b"text"), error=BoomError())
    ours = _ours(app)

    async def test() -> None:
        with pytest.raises(BoomError):
            await Exchange(ours).reply()
        reply = await ask(ours)
        assert (reply.hit, reply.body, len(calls)) == (True, b"text", 1)

    run(test())


def _raise_at_once(_: Request) -> PlainTextResponse:
    raise BoomError


async def _raising() -> AsyncIterator[bytes]:
    yield b"te"
    raise BoomError


def _raise() -> None:
    raise BoomError


RAISING: dict[str, Callable[[Request], PlainTextResponse | StreamingResponse]] = {
    "before the start": _raise_at_once,
    "after the start": lambda _: StreamingResponse(_raising()),
    "after the end": lambda _: PlainTextResponse("text", background=BackgroundTask(_raise)),
}


def _outcome(app: Starlette, *, within: bool, raising: bool) -> list[object]:
    """What a test of the app sees of three requests."""
    client = TestClient(app, raise_server_exceptions=raising)
    if within:
        with client:
            return [_attempt(client) for _ in range(3)]
    return [_attempt(client) for _ in range(3)]


def _attempt(client: TestClient) -> object:
    try:
        response = client.get("/")
    except Exception as error:
        return type(error)
    return (
        response.status_code,
        response.text,
        [line for line in response.headers.items() if line[0].encode() not in OURS],
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("raising", [True, False])
@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("moment", ["before the start", "after the start"])
def test_a_test_of_the_app_sees_the_same_exceptions(moment: str, within: bool, raising: bool, policy: Policy) -> None:
    respond = RAISING[moment]
    bare = Starlette(routes=[Route("/", Handler(respond).answer)])
    ours = app_of(Handler(respond), policy)
    assert _outcome(ours, within=within, raising=raising) == _outcome(bare, within=within, raising=raising)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_exception_of_a_background_task_surfaces(policy: Policy) -> None:
    client = client_of(Handler(RAISING["after the end"]), policy)
    with pytest.raises(BoomError):
        client.get("/")


def test_a_background_task_runs_once_for_each_time_that_the_handler_ran() -> None:
    ran: list[str] = []
    handler = Handler(lambda _: PlainTextResponse("text", background=BackgroundTask(ran.append, "ran")))
    client = client_of(handler, POLICY)
    client.get("/")
    assert ran == ["ran"]
    assert_hit(client.get("/"))
    assert ran == ["ran"]


def test_a_background_task_runs_although_the_response_is_not_stored() -> None:
    ran: list[str] = []

    def respond(_: Request) -> PlainTextResponse:
        return PlainTextResponse("text", status_code=404, background=BackgroundTask(ran.append, "ran"))

    client = client_of(Handler(respond), POLICY)
    for _ in range(3):
        client.get("/")
    assert ran == ["ran"] * 3


def test_an_error_page_of_the_app_is_not_stored() -> None:
    def respond(_: Request) -> PlainTextResponse:
        raise BoomError

    async def on_error(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", status_code=503)

    handler = Handler(respond)
    ours = Middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": POLICY})
    app = Starlette(routes=[Route("/", handler.answer)], middleware=[ours], exception_handlers={BoomError: on_error})
    client = TestClient(app)
    for _ in range(2):
        assert client.get("/").text == "sorry"
    assert handler.calls == 2


def test_bytes_of_other_types_are_stored_as_they_were() -> None:
    app, calls = _script(_start(), _body(bytearray(b"te"), more=True), _body(memoryview(b"xt")))  # type: ignore[arg-type]
    ours = _ours(app)

    async def test() -> None:
        await Exchange(ours).reply()
        assert ((await ask(ours)).body, len(calls)) == (b"text", 1)

    run(test())


def test_a_hit_after_a_failure_is_a_miss_first() -> None:
    def respond(_: Request) -> PlainTextResponse:
        if handler.calls == 1:
            raise BoomError
        return PlainTextResponse("text")

    handler = Handler(respond)
    client = client_of(handler, POLICY)
    with pytest.raises(BoomError):
        client.get("/")
    assert_miss(client.get("/"), stored=True)
    assert_hit(client.get("/"))
